//! `application/x-ndjson`: one reading per line, decoded while the body arrives. The hot path.
//!
//! Called by `http/receive.rs` with chunks as the network cuts them. Whole lines are decoded in
//! place, only a line broken by a chunk's end is copied. A line that is not JSON is a bad line like
//! any other: the next one begins at the next line end. Blank lines are counted and skipped.

use super::json::syntax;
use super::reading::JsonReading;
use super::{Batch, DecodeError, MAX_LINE_BYTES};
use memchr::memchr;
use serde::de::Deserialize;

/// A body on its way.
#[derive(Debug)]
pub struct Ndjson<'c> {
    batch: Batch<'c>,
    /// Lines that have ended.
    line: usize,
    /// The beginning of a line whose end has not come yet.
    carry: Vec<u8>,
    /// The current line is too long: it has been noted, the rest of it is dropped.
    dropping: bool,
}

impl<'c> Ndjson<'c> {
    /// A body whose readings go into this batch.
    #[must_use]
    pub fn new(batch: Batch<'c>) -> Self {
        Self { batch, line: 0, carry: Vec::new(), dropping: false }
    }

    /// Decodes what has arrived.
    ///
    /// # Errors
    /// If there are too many readings.
    pub fn feed(&mut self, mut chunk: &[u8]) -> Result<(), DecodeError> {
        while let Some(end) = memchr(b'\n', chunk) {
            if self.carry.is_empty() && !self.dropping {
                self.line += 1;
                decode_line(self.line, &chunk[..end], &mut self.batch)?;
            } else {
                self.hold(&chunk[..end])?;
                self.end_line()?;
            }
            chunk = &chunk[end + 1..];
        }
        self.hold(chunk)
    }

    /// The batch, with the last line, which need not have an end.
    ///
    /// # Errors
    /// If there are too many readings.
    pub fn finish(mut self) -> Result<Batch<'c>, DecodeError> {
        self.end_line()?;
        Ok(self.batch)
    }

    /// Keeps a piece of the current line.
    fn hold(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        if self.dropping {
            return Ok(());
        }
        if self.carry.len() + piece.len() > MAX_LINE_BYTES {
            self.dropping = true;
            self.carry.clear();
            return refuse_length(self.line + 1, &mut self.batch);
        }
        self.carry.extend_from_slice(piece);
        Ok(())
    }

    /// Ends the line that was held.
    fn end_line(&mut self) -> Result<(), DecodeError> {
        self.line += 1;
        let taken = if self.dropping { Ok(()) } else { decode_line(self.line, &self.carry, &mut self.batch) };
        self.dropping = false;
        self.carry.clear();
        taken
    }
}

#[cold]
fn refuse_length(line: usize, batch: &mut Batch<'_>) -> Result<(), DecodeError> {
    batch.refuse(line, None, format_args!("the line has more than {MAX_LINE_BYTES} bytes"))
}

fn decode_line(number: usize, line: &[u8], batch: &mut Batch<'_>) -> Result<(), DecodeError> {
    if line.len() > MAX_LINE_BYTES {
        return refuse_length(number, batch);
    }
    let Ok(text) = std::str::from_utf8(line) else {
        return batch.refuse(number, None, format_args!("the line is not UTF-8"));
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = JsonReading::deserialize(&mut json).and_then(|reading| json.end().map(|()| reading));
    match parsed {
        Ok(reading) => reading.give(number, batch),
        Err(_) if text.trim_ascii().is_empty() => Ok(()),
        Err(error) => match syntax(&error) {
            DecodeError::Syntax { column, reason, .. } => {
                batch.refuse(number, None, format_args!("the line is not JSON: {reason} at column {column}"))
            }
            other => Err(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_READINGS;
    use super::super::tests::{batch, shown};
    use super::*;

    /// The same at every way to cut the body in two, and byte by byte.
    #[track_caller]
    fn check(body: impl AsRef<[u8]>, expected: &[&str]) {
        let body = body.as_ref();
        let decode = |chunks: &[&[u8]]| {
            let mut decoder = Ndjson::new(batch());
            for chunk in chunks {
                decoder.feed(chunk).unwrap();
            }
            shown(&decoder.finish().unwrap().finish())
        };
        for cut in 0..=body.len().min(500) {
            assert_eq!(decode(&[&body[..cut], &body[cut..]]), expected, "cut at {cut}");
        }
        assert_eq!(decode(&body.chunks(1).collect::<Vec<_>>()), expected, "byte by byte");
    }

    #[test]
    fn lines() {
        check("", &[]);
        check("\n \r\n\n", &[]);
        check(
            "{\"source\":\"a\",\"value\":1}\n\r\n{\"source\":\"b\",\"value\":2}\r\n{\"source\":\"a\",\"value\":2}",
            &["05:00 a=2@1.5", "05:00 b=1@2"],
        );
        check("{\"source\":\"ü\\u0041\",\"value\":1}\n", &["05:00 üA=1@1"]);
    }

    #[test]
    fn bad_lines_are_named_and_the_rest_goes_on() {
        check(
            "{\"source\":\"a\",\"value\":1\n\n{\"source\":\"a\",\"value\":NaN}\n{\"source\":\"a\",\"value\":1}\n",
            &[
                "05:00 a=1@1",
                "1 - the line is not JSON: EOF while parsing an object at column 23",
                "3 - the line is not JSON: expected value at column 23",
            ],
        );
        check(b"\"\xff\"\n{\"source\":\"a\",\"value\":1}", &["05:00 a=1@1", "1 - the line is not UTF-8"]);
        check(
            "[]\n5",
            &["1 - a reading must be an object, this is an array", "2 - a reading must be an object, this is a number"],
        );
        check("{} {}", &["1 - the line is not JSON: trailing characters at column 4"]);
        check("{\"value\":1}", &["1 source source is missing"]);
    }

    #[test]
    fn a_long_line_is_refused_and_the_rest_goes_on() {
        let reading = "{\"source\":\"a\",\"value\":1}";
        let padded = |bytes: usize| format!("{reading}{}\n{reading}\n", " ".repeat(bytes - reading.len()));
        check(padded(MAX_LINE_BYTES), &["05:00 a=2@1"]);
        check(padded(MAX_LINE_BYTES + 1), &["05:00 a=1@1", "1 - the line has more than 65536 bytes"]);
        check("x".repeat(3 * MAX_LINE_BYTES), &["1 - the line has more than 65536 bytes"]);
    }

    #[test]
    fn a_line_without_end_is_not_held() {
        let mut decoder = Ndjson::new(batch());
        for _ in 0..3 {
            decoder.feed(&vec![b'x'; MAX_LINE_BYTES]).unwrap();
            assert!(decoder.carry.len() <= MAX_LINE_BYTES);
        }
        assert_eq!(decoder.batch.finish().error_count, 1);
    }

    #[test]
    fn too_many_readings_end_it() {
        let mut decoder = Ndjson::new(batch());
        for _ in 0..MAX_READINGS {
            decoder.feed(b"{\"source\":\"a\",\"value\":1}\n").unwrap();
        }
        decoder.feed(b"\n").unwrap();
        assert_eq!(decoder.feed(b"{\"source\":\"a\",\"value\":1}\n"), Err(DecodeError::TooManyReadings));
    }
}
