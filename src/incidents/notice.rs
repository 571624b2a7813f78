//! Sees errors: every line of the log at the level of errors, and every panic.
//!
//! Installed by `cli/serve.rs`, before anything else begins. The line has the id, the view, the class and the place
//! of its row, whatever the format of the log; a panic is such a line too. Lines of libraries are none of ours: some
//! of them call an error what a client does wrong.

use super::{Class, context, note_in};
use crate::telemetry;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::fmt;
use std::panic::PanicHookInfo;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const OURS: &str = "meanwhile";
/// Files of the program stand below this in the paths the compiler knows.
const SOURCES: &str = "src/";

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The row of the panic that was just caught on this thread; asked at once, and once.
#[must_use]
pub fn last_panic() -> Option<String> {
    LAST_PANIC.take()
}

pub(super) fn set_last_panic(id: Option<String>) {
    LAST_PANIC.set(id);
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Noticing;

impl<S: Subscriber> Layer<S> for Noticing {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() != Level::ERROR || metadata.target().split("::").next() != Some(OURS) {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        if words.noted {
            return;
        }
        let place = place(metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
        let (context, class) = (context::present(), class(metadata.target()));
        let view = context.view.to_string();
        let id = note_in(context, class, &words.message, &place);
        let class = class.name().to_owned();
        telemetry::attach(metadata, vec![("error_id", id), ("view", view), ("class", class), ("place", place)]);
    }
}

/// The message of an event, and whether its row is there already.
#[derive(Default)]
struct Words {
    message: String,
    noted: bool,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "error_id" => self.noted = true,
            _ => {}
        }
    }
}

/// By the module that says it.
fn class(target: &str) -> Class {
    match target.split("::").nth(1) {
        Some("store" | "ingest") => Class::Store,
        Some("sink") => Class::Sink,
        Some("rollover") => Class::Rollover,
        Some("live") => Class::Live,
        Some("http") => Class::Http,
        _ => Class::Other,
    }
}

fn place(file: &str, line: u32) -> String {
    // Of a dependency the file in its own folder is enough, and none of the machine it was built on.
    let short = match file.rfind(SOURCES) {
        Some(at) if file.starts_with('/') => {
            let folder = file[..at].trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            format!("{folder}/{}", &file[at..])
        }
        _ => file.to_owned(),
    };
    format!("{short}:{line}")
}

/// From now on every panic of the process is a row and a line of the log, and nothing else.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(notice_panic));
}

fn notice_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("without words");
    let place = panic.location().map_or_else(String::new, |at| place(at.file(), at.line()));
    let context = context::present();
    let (view, request_id) = (context.view.to_string(), context.request_id.clone());
    let id = note_in(context, Class::Panic, message, &place);
    let class = Class::Panic.name();
    tracing::error!(error_id = id, view, class, place, request_id = request_id.as_deref(), "a panic: {message}");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::warn!(error_id = id, "the way to the panic: {trace}");
    }
    set_last_panic(Some(id));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_name_no_machine() {
        assert_eq!(place("src/http/state.rs", 7), "src/http/state.rs:7");
        assert_eq!(place("/home/me/.cargo/registry/src/index-1/redb-4.4.0/src/db.rs", 7), "redb-4.4.0/src/db.rs:7");
        assert_eq!(place("", 0), ":0");
    }

    #[test]
    fn classes_are_of_the_module() {
        assert_eq!(class("meanwhile::store::redis"), Class::Store);
        assert_eq!(class("meanwhile::sink::csv::writer"), Class::Sink);
        assert_eq!(class("meanwhile"), Class::Other);
    }
}
