//! Adds fields to a line of the log that is just being written.
//!
//! Called by `incidents/notice.rs`, which sees an error before it is written and knows its id. In a JSON log they are
//! members of the record, else they stand at the end of the line.

use serde_json::Value;
use std::cell::RefCell;
use std::fmt::{self, Write};
use tracing::callsite::Identifier;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

type Fields = Vec<(&'static str, String)>;

thread_local! {
    /// For the next line of this place; a line that the filter leaves out takes none.
    static ATTACHED: RefCell<Option<(Identifier, Fields)>> = const { RefCell::new(None) };
}

/// Adds fields to the event with this description that this thread is about to write.
pub fn attach(metadata: &Metadata<'_>, fields: Fields) {
    ATTACHED.set(Some((metadata.callsite(), fields)));
}

/// Writes lines as `inner` does, with what is attached to them.
pub(super) struct Attaching<F> {
    inner: F,
    add: fn(&mut String, Fields),
}

impl<F> Attaching<F> {
    pub(super) fn text(inner: F) -> Self {
        Self { inner, add: add_to_text }
    }

    pub(super) fn json(inner: F) -> Self {
        Self { inner, add: add_to_json }
    }
}

impl<S, N, F> FormatEvent<S, N> for Attaching<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let attached = ATTACHED.take().filter(|(callsite, _)| *callsite == event.metadata().callsite());
        let Some((_, fields)) = attached else { return self.inner.format_event(context, writer, event) };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        (self.add)(&mut line, fields);
        writer.write_str(&line)
    }
}

fn add_to_text(line: &mut String, fields: Fields) {
    line.truncate(line.trim_end_matches('\n').len());
    for (name, value) in fields {
        let value = if value.contains(' ') { format!("{value:?}") } else { value };
        write!(line, " {name}={value}").expect("a text takes everything");
    }
    line.push('\n');
}

fn add_to_json(line: &mut String, fields: Fields) {
    line.truncate(line.trim_end().trim_end_matches('}').len());
    for (name, value) in fields {
        write!(line, ",\"{name}\":{}", Value::from(value)).expect("a text takes everything");
    }
    line.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_at_the_end() {
        let check = |add: fn(&mut String, Fields), line: &str, expected: &str| {
            let mut line = line.to_owned();
            add(&mut line, vec![("error_id", "ab".to_owned()), ("view", "a \"b\"".to_owned())]);
            assert_eq!(line, expected);
        };
        check(add_to_text, "ERROR it is away\n", "ERROR it is away error_id=ab view=\"a \\\"b\\\"\"\n");
        check(
            add_to_json,
            "{\"level\":\"ERROR\",\"message\":\"away\"}\n",
            "{\"level\":\"ERROR\",\"message\":\"away\",\"error_id\":\"ab\",\"view\":\"a \\\"b\\\"\"}\n",
        );
    }
}
