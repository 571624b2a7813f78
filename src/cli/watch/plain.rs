//! Events as lines of text, for pipes and files.
//!
//! Called by `watch.rs`. Pure: what happened in, its lines out. The cells of a line are separated by tabs, which no
//! source id holds; numbers have every digit the service sent. What becomes of the connection is no data: it is said on
//! standard error.

use super::state::{Row, Statistic, Update};
use crate::cli::output;
use crate::stats::calendar::{Period, Zone};
use std::fmt::Write;

/// What is said of the connection, if that is what happened.
pub(super) fn note(update: &Update) -> Option<String> {
    match update {
        Update::Connected { instance } => Some(format!("connected to {instance}")),
        Update::Lost { reason } => Some(format!("trying again: {reason}")),
        _ => None,
    }
}

/// The lines of what happened, none if it is not for here. With a period only the buckets of this one.
pub(super) fn lines(update: &Update, period: Option<Period>, zone: &Zone) -> String {
    let period = period.map(|period| period.to_string());
    let mut text = String::new();
    let mut row = |event: &str, source: &str, row: &Row| {
        if period.as_ref().is_some_and(|period| *period != row.period) {
            return;
        }
        let start = output::local_start(&row.start, &row.period, zone);
        let numbers = [&row.mean, &row.stddev_samp, &row.min, &row.max].map(|x| number(x.as_ref())).join("\t");
        let _ = writeln!(text, "{event}\t{source}\t{}\t{start}\t{}\t{numbers}", row.period, row.count);
    };
    match update {
        Update::Present { source, rows } if rows.is_empty() => {
            let _ = writeln!(text, "live\t{source}\tno readings");
        }
        Update::Present { source, rows } => rows.iter().for_each(|present| row("live", source, present)),
        Update::Closed { source, row: closed } => row("closed", source, closed),
        Update::Recovered { source, all } => {
            let _ = writeln!(text, "recovered\t{source}\t{}", if *all { "all" } else { "not all" });
        }
        Update::Gap { source, missed } => {
            let missed = missed.map_or("unknown".to_owned(), |missed| missed.to_string());
            let _ = writeln!(text, "gap\t{source}\t{missed}");
        }
        Update::Connected { .. } | Update::Lost { .. } | Update::History { .. } => {}
    }
    text
}

/// In the fewest digits that read back to it; empty if there is none.
fn number(number: Option<&Statistic>) -> String {
    number.map(|number| number.text(|x| format!("{x:?}"))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::row;
    use super::*;

    fn check(update: &Update, period: Option<&str>, expected: &str) {
        let period = period.map(|period| period.parse().unwrap());
        assert_eq!(lines(update, period, &"Europe/Berlin".parse().unwrap()), expected);
    }

    #[test]
    fn events_are_lines() {
        let source = "a b".to_owned();
        let rows = vec![row(7, 21.1, 3, 0), Row { period: "1h".into(), ..row(0, 1e300, 1, 0) }];
        let present = Update::Present { source: source.clone(), rows };
        let minute = "live\ta b\t1m\t2026-11-20 06:07\t3\t21.1\t0.25\t20.1\t21.6\n";
        let hour = "live\ta b\t1h\t2026-11-20 06:00\t1\t1e300\t\t1e300\t1e300\n";
        check(&present, None, &format!("{minute}{hour}"));
        check(&present, Some("1m"), minute);
        check(&present, Some("1d"), "");
        check(&Update::Present { source: source.clone(), rows: vec![] }, Some("1m"), "live\ta b\tno readings\n");
        let closed = Update::Closed { source: source.clone(), row: row(7, 21.0, 3, 0) };
        check(&closed, None, "closed\ta b\t1m\t2026-11-20 06:07\t3\t21.0\t0.25\t20.0\t21.5\n");
        check(&Update::Recovered { source: source.clone(), all: true }, None, "recovered\ta b\tall\n");
        check(&Update::Recovered { source: source.clone(), all: false }, None, "recovered\ta b\tnot all\n");
        check(&Update::Gap { source: source.clone(), missed: Some(3) }, None, "gap\ta b\t3\n");
        check(&Update::Gap { source, missed: None }, None, "gap\ta b\tunknown\n");
        let connected = Update::Connected { instance: "n1".into() };
        check(&connected, None, "");
        assert_eq!(note(&connected).unwrap(), "connected to n1");
    }
}
