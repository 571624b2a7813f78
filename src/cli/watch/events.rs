//! Server-Sent Events out of the bytes of an answer.
//!
//! Called by `follow.rs`, which knows what the events of the service mean. Pure: bytes in, events out, however they
//! are cut. Lines end with LF, CR or CRLF; comments and unknown fields are skipped; an event whose end has not
//! come is none.

/// Longest event. The longest the service sends is a message of 64 KiB in which each byte is escaped.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// `message` if it did not say.
    pub name: String,
    /// Its lines, with LF between them.
    pub data: String,
    /// The last id that was given, with this event or before it.
    pub id: Option<String>,
}

/// An event is longer than any the service sends.
#[derive(Debug, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT_BYTES} bytes; this is no stream of a meanwhile service")]
pub(super) struct TooLong;

/// Takes bytes as they come.
#[derive(Default)]
pub(super) struct Parser {
    /// Of the line whose end has not come.
    line: Vec<u8>,
    /// A CR has ended the line before; a LF behind it belongs to it.
    after_cr: bool,
    name: String,
    data: Option<String>,
    id: Option<String>,
    /// How long to wait before coming back, in milliseconds, if the service has said so.
    pub retry: Option<u64>,
}

impl Parser {
    /// The events that are complete with these bytes, in their order.
    ///
    /// # Errors
    /// If one is too long; nothing can be read behind it.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.end_of_line(&String::from_utf8_lossy(&line)));
                }
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > MAX_EVENT_BYTES {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let name = if name.is_empty() { "message".to_owned() } else { name };
            return self.data.take().map(|data| Event { name, data, id: self.id.clone() });
        }
        // A comment has no name before its colon.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()).filter(|id| !id.is_empty()),
            "retry" => self.retry = value.parse().ok().or(self.retry),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as `name|data|id`, whole, byte by byte, and cut at every place.
    fn check(text: &str, expected: &[&str]) {
        let shown = |events: Vec<Event>| -> Vec<String> {
            events.iter().map(|e| format!("{}|{}|{}", e.name, e.data, e.id.as_deref().unwrap_or("-"))).collect()
        };
        let fed = |parts: &[&[u8]]| {
            let mut parser = Parser::default();
            shown(parts.iter().flat_map(|part| parser.feed(part).unwrap()).collect())
        };
        let bytes = text.as_bytes();
        assert_eq!(fed(&bytes.chunks(1).collect::<Vec<_>>()), expected, "{text:?} byte by byte");
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(fed(&[head, tail]), expected, "{text:?} cut at {cut}");
        }
    }

    #[test]
    fn lines_however_they_end() {
        check("event: a\ndata: 1\n\nevent: b\ndata: 2\n\n", &["a|1|-", "b|2|-"]);
        check("event: a\r\ndata: 1\r\n\r\nevent: b\r\ndata: 2\r\n\r\n", &["a|1|-", "b|2|-"]);
        check("event: a\rdata: 1\r\revent: b\rdata: 2\r\r", &["a|1|-", "b|2|-"]);
        check("data: grüße\n\n", &["message|grüße|-"]);
    }

    #[test]
    fn data_of_several_lines() {
        check("data: 1\ndata:2\ndata:  3\ndata\n\n", &["message|1\n2\n 3\n|-"]);
        check("data\n\n", &["message||-"]);
        // A name belongs to its own event only.
        check("event: a\n\ndata: 1\n\n", &["message|1|-"]);
    }

    #[test]
    fn comments_and_what_is_unknown() {
        check(":\n\n: data: 1\nevent: a\n:x\ndata: 1\nnew: 2\ndatas: 3\n\n", &["a|1|-"]);
        check("event: a\ndata: 1\n", &[]);
        check("event: a\ndata: 1", &[]);
        check("", &[]);
    }

    #[test]
    fn an_id_holds_until_the_next() {
        check(
            "id: 7.8.kitchen\ndata: 1\n\ndata: 2\n\nid: 9\n\ndata: 3\n\n",
            &["message|1|7.8.kitchen", "message|2|7.8.kitchen", "message|3|9"],
        );
        check("id: 7\ndata: 1\n\nid\ndata: 2\n\nid: a\0b\ndata: 3\n\n", &["message|1|7", "message|2|-", "message|3|-"]);
        check("id: 1.2.a \ndata: 1\n\n", &["message|1|1.2.a "]);
    }

    #[test]
    fn the_pause_before_coming_back() {
        let mut parser = Parser::default();
        parser.feed(b"retry: 2000\nretry: soon\n").unwrap();
        assert_eq!(parser.retry, Some(2_000));
    }

    #[test]
    fn nothing_grows_without_end() {
        for line in ["data: 1\n", "x"] {
            let mut parser = Parser::default();
            let text = line.repeat(MAX_EVENT_BYTES / line.len() * 8 + 1);
            assert!(parser.feed(text.as_bytes()).is_err(), "{line:?}");
        }
        let mut parser = Parser::default();
        let comments = ":\n\n".repeat(MAX_EVENT_BYTES);
        assert_eq!(parser.feed(comments.as_bytes()).unwrap(), []);
    }
}
