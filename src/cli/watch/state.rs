//! What is known of the watched sources, and of the connection: what the screen shows.
//!
//! Filled by `terminal.rs` with what `follow.rs` hears, drawn by `screen.rs`. Plain data, the time is an argument.
//! Guarantees: of a bucket the newest version is kept, whichever way it came; the number of rows is bounded.

use crate::stats::calendar::{Period, Zone};
use crate::stats::{Millis, timestamp};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Closed buckets that are kept of each source: more than a plot has columns on most terminals, two hours of minutes.
pub(super) const KEPT: usize = 120;

/// A row as the service sends it, without what is not shown.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(super) struct Row {
    pub period: String,
    pub start: String,
    pub end: String,
    pub count: u64,
    pub mean: Option<Statistic>,
    pub stddev_samp: Option<Statistic>,
    pub min: Option<Statistic>,
    pub max: Option<Statistic>,
    pub state: String,
    pub generation: i64,
    pub revision: i64,
}

/// A number or, of vectors, a list of them.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub(super) enum Statistic {
    Number(f64),
    List(Vec<f64>),
}

impl Statistic {
    /// The number, if it is one.
    pub(super) fn double(&self) -> Option<f64> {
        match self {
            Self::Number(x) => Some(*x),
            Self::List(_) => None,
        }
    }

    /// In these words for a number.
    pub(super) fn text(&self, number: impl Fn(f64) -> String) -> String {
        match self {
            Self::Number(x) => number(*x),
            Self::List(values) => format!("[{}]", values.iter().map(|x| number(*x)).collect::<Vec<_>>().join(",")),
        }
    }
}

impl Row {
    /// The bucket, if the service names it in a way that is understood.
    pub(super) fn span(&self) -> Option<(Millis, Millis)> {
        let time = |text: &str| timestamp::parse(text, &Zone::utc());
        Some((time(&self.start)?, time(&self.end)?))
    }

    fn version(&self) -> (i64, i64) {
        (self.generation, self.revision)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Update {
    /// All channels are heard.
    Connected { instance: String },
    /// The connection broke, or could not be made again.
    Lost { reason: String },
    /// The buckets that hold the present moment.
    Present { source: String, rows: Vec<Row> },
    /// A bucket was written.
    Closed { source: String, row: Row },
    /// The last buckets, as the service has them.
    History { source: String, rows: Vec<Row> },
    /// Whether all that was written while the connection was broken came before this.
    Recovered { source: String, all: bool },
    /// So many events were left out; `None` if nobody knows how many.
    Gap { source: String, missed: Option<u64> },
}

/// How it stands with the connection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Link {
    Connecting,
    Connected {
        instance: String,
    },
    /// `since` is when it broke, whatever was tried afterwards.
    Lost {
        since: Millis,
        reason: String,
    },
}

/// A closed bucket.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Closed {
    pub row: Row,
    /// It was shown before, in an older version.
    pub corrected: bool,
}

pub(super) struct Watched {
    pub id: String,
    /// From fine to coarse.
    pub present: Vec<Row>,
    /// Of the chosen period, by their start.
    pub closed: BTreeMap<Millis, Closed>,
}

pub(super) struct State {
    /// In the order in which they were asked for; never empty.
    pub sources: Vec<Watched>,
    /// Of the closed buckets.
    pub period: Period,
    pub link: Link,
    /// Whose closed buckets are shown, an index of `sources`.
    pub chosen: usize,
}

impl State {
    pub(super) fn new(sources: &[String], period: Period) -> Self {
        let watched = |id: &String| Watched { id: id.clone(), present: Vec::new(), closed: BTreeMap::new() };
        Self { sources: sources.iter().map(watched).collect(), period, link: Link::Connecting, chosen: 0 }
    }

    /// Takes note of what has happened `now`.
    pub(super) fn apply(&mut self, update: Update, now: Millis) {
        let period = self.period.to_string();
        match update {
            Update::Connected { instance } => self.link = Link::Connected { instance },
            Update::Lost { reason } => {
                let since = if let Link::Lost { since, .. } = self.link { since } else { now };
                self.link = Link::Lost { since, reason };
            }
            Update::Present { source, rows } => self.of(&source, |watched| watched.present = rows),
            Update::Closed { source, row } => self.of(&source, |watched| watched.close(row, &period)),
            Update::History { source, rows } => {
                self.of(&source, |watched| rows.into_iter().for_each(|row| watched.close(row, &period)));
            }
            // What is missing comes as history.
            Update::Recovered { .. } | Update::Gap { .. } => {}
        }
    }

    /// Shows the closed buckets of the source that many further down, or up, around the ends.
    pub(super) fn choose(&mut self, further: isize) {
        let sources = self.sources.len().cast_signed();
        self.chosen = (self.chosen.cast_signed() + further).rem_euclid(sources).cast_unsigned();
    }

    fn of(&mut self, source: &str, change: impl FnOnce(&mut Watched)) {
        if let Some(watched) = self.sources.iter_mut().find(|watched| watched.id == source) {
            change(watched);
        }
    }
}

impl Watched {
    fn close(&mut self, row: Row, period: &str) {
        // An open bucket of the history: it comes when it is written.
        if row.period != period || row.state == "open" {
            return;
        }
        let Some((start, _)) = row.span() else { return };
        let known = self.closed.get(&start);
        if known.is_none_or(|known| known.row.version() < row.version()) {
            let corrected = known.is_some();
            self.closed.insert(start, Closed { row, corrected });
        }
        while self.closed.len() > KEPT {
            self.closed.pop_first();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A row of the minute that begins so many minutes after five, in a version.
    pub(crate) fn row(minute: i64, mean: f64, count: u64, revision: i64) -> Row {
        let five = 1_795_150_800_000;
        let at = |minute: i64| timestamp::format(five + minute * 60_000);
        let number = |x| Some(Statistic::Number(x));
        let (low, high) = (number(mean - 1.0), number(mean + 0.5));
        let (start, end, state) = (at(minute), at(minute + 1), "settling".to_owned());
        let (mean, stddev_samp) = (number(mean), number(0.25).filter(|_| count > 1));
        let (period, generation) = ("1m".to_owned(), 1);
        Row { period, start, end, count, mean, stddev_samp, min: low, max: high, state, generation, revision }
    }

    fn state() -> State {
        State::new(&["a".to_owned(), "b".to_owned()], Period::Seconds(60))
    }

    fn closed(state: &State) -> Vec<(&str, u64, bool)> {
        state.sources[0].closed.values().map(|c| (&c.row.start[11..16], c.row.count, c.corrected)).collect()
    }

    #[test]
    fn the_newest_version_of_a_bucket_is_kept() {
        let mut state = state();
        let mut tell = |row: Row| state.apply(Update::Closed { source: "a".into(), row }, 0);
        tell(row(1, 20.0, 3, 7));
        tell(row(0, 20.0, 2, 5));
        tell(row(1, 20.0, 3, 7));
        tell(row(1, 20.0, 4, 8));
        tell(row(1, 20.0, 3, 7));
        tell(Row { period: "1h".into(), ..row(2, 20.0, 9, 9) });
        tell(Row { state: "open".into(), ..row(3, 20.0, 9, 9) });
        assert_eq!(closed(&state), [("05:00", 2, false), ("05:01", 4, true)]);
        // A later life begins with revision 1 again.
        state.apply(Update::History { source: "a".into(), rows: vec![Row { generation: 2, ..row(0, 20.0, 5, 1) }] }, 0);
        assert_eq!(closed(&state), [("05:00", 5, true), ("05:01", 4, true)]);
        assert!(state.sources[1].closed.is_empty());
        state.apply(Update::Closed { source: "c".into(), row: row(0, 1.0, 1, 1) }, 0);
    }

    #[test]
    fn the_oldest_rows_go() {
        let mut state = state();
        let rows = (0..).take(KEPT + 5).map(|minute| row(minute, 20.0, 1, 1)).collect();
        state.apply(Update::History { source: "a".into(), rows }, 0);
        assert_eq!(state.sources[0].closed.len(), KEPT);
        assert_eq!(closed(&state)[0], ("05:05", 1, false));
    }

    #[test]
    fn a_connection_is_lost_once() {
        let mut state = state();
        let lost = |reason: &str| Update::Lost { reason: reason.into() };
        state.apply(Update::Connected { instance: "n1".into() }, 1);
        assert_eq!(state.link, Link::Connected { instance: "n1".into() });
        state.apply(lost("it broke"), 2);
        state.apply(lost("nobody there"), 3);
        assert_eq!(state.link, Link::Lost { since: 2, reason: "nobody there".into() });
        state.apply(Update::Connected { instance: "n2".into() }, 4);
        state.apply(lost("it broke"), 5);
        assert_eq!(state.link, Link::Lost { since: 5, reason: "it broke".into() });
    }

    #[test]
    fn sources_are_chosen_around_the_ends() {
        let mut state = state();
        let mut chosen = |further| {
            state.choose(further);
            state.chosen
        };
        assert_eq!([chosen(1), chosen(1), chosen(-1), chosen(-1)], [1, 0, 1, 0]);
    }
}
