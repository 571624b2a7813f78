//! What clients send and ask next: new requests, repetitions, other bodies under a used key, questions.
//!
//! A part of `schedule.rs`. Times are chosen so that requests meet: in the present bucket, in those just over, in
//! one long closed, in one that is being closed. What comes of it is in `books.rs`.

use super::{DAY, POLICY, Schedule};
use crate::books::{Books, MOST_READINGS, New, SOURCES, Times};
use crate::node::Node;
use crate::world::World;
use futures_util::FutureExt;
use meanwhile::ingest::commit::RequestKey;
use meanwhile::query::StatsQuery;
use meanwhile::stats::Millis;
use meanwhile::store::{Late, Store, WriterId};
use std::sync::Arc;

/// A client repeats a request as long as it may.
const REPEATED_FOR: Millis = POLICY.idempotency_ttl;
const MOST_REQUESTS: usize = 6;
const MOST_ATTEMPTS: u32 = 4;
impl Schedule {
    /// A client sends a new request, or one of before again.
    pub(super) fn post(&self) {
        let up: Vec<&Node> = self.nodes.iter().filter(|node| node.is_up()).collect();
        if up.is_empty() {
            return;
        }
        let node = up[self.draw(up.len() as u64) as usize];
        let now = self.times();
        let mut books = self.books.lock().expect("one thread");
        let again: Vec<usize> = (0..books.asked.len())
            .filter(|&request| {
                let asked = &books.asked[request];
                let in_time = asked.attempts == 0 || now.since(asked.first_sent) <= REPEATED_FOR;
                asked.key.is_some() && !asked.reused && asked.attempts < MOST_ATTEMPTS && in_time
            })
            .collect();
        let request = if !again.is_empty() && (self.draw(2) == 0 || books.asked.len() >= MOST_REQUESTS) {
            again[self.draw(again.len() as u64) as usize]
        } else if books.asked.len() < MOST_REQUESTS {
            self.new_request(&mut books, now)
        } else {
            return;
        };
        drop(books);
        node.post(request);
    }

    fn new_request(&self, books: &mut Books, now: Times) -> usize {
        let clock = self.world.now();
        // Into a bucket that is being closed, or into one that feeds it.
        let closing = self.world.oracle.closing().first().map(|bucket| bucket.start);
        let time = |world: &World| match world.draw(8) {
            0..4 if closing.is_some() => closing,
            0..3 if self.late == Late::Reopen => None,
            0..4 => Some(clock),
            4 => Some(clock - 10_000),
            5 => Some(clock - 20_000),
            // Long closed, or never seen.
            6 => Some(DAY - 5_000 - world.draw(2).cast_signed() * 60_000),
            _ => Some(DAY + 5_000),
        };
        // Each source is mostly of one length; here and there a number or a vector of two or three comes instead.
        let lengths = [0, 1, 2].map(|source| match self.unlike {
            0 => 1,
            percent if self.world.chance(percent) => 1 + self.draw(3) as usize,
            _ => 1 + source,
        });
        let mut readings: Vec<New> = Vec::new();
        let parts = if self.draw(5) == 0 { 2 } else { 1 };
        for part in 0..parts {
            for _ in 0..=self.draw(3) {
                let source = self.draw(SOURCES.len() as u64) as usize;
                let taken = readings.iter().filter(|(_, of, ..)| *of == source).count();
                if taken < MOST_READINGS && books.has_room(source) {
                    readings.push((part, source, time(&self.world), lengths[source]));
                }
            }
        }
        let keyed = self.draw(6) > 0;
        let request = books.asked.len() as u128;
        // Sometimes the key of another body.
        let other = (self.draw(10) == 0 && request > 0).then(|| self.draw(request as u64) as usize);
        let other = other.filter(|other| {
            let asked = &books.asked[*other];
            asked.key.is_some() && now.since(asked.first_sent) <= REPEATED_FOR
        });
        let id = other.and_then(|other| books.asked[other].key).map_or(request, |key| key.id);
        let first_sent = other.map_or(now, |other| books.asked[other].first_sent);
        let key = RequestKey { id, fingerprint: (request + 1) << 64, ttl: POLICY.idempotency_ttl };
        let request = books.ask(keyed.then_some(key), &readings);
        books.asked[request].first_sent = first_sent;
        request
    }

    fn times(&self) -> Times {
        self.world.now();
        let head = self.world.oracle.head(0, WriterId([0; 8])).now_or_never().expect("the oracle never waits");
        Times { elapsed: head.expect("the oracle answers").elapsed, passed: self.world.passed() }
    }

    pub(super) fn ask(&self) {
        let node = &self.nodes[self.draw(self.nodes.len() as u64) as usize];
        let mut sources: Vec<Arc<str>> = SOURCES.iter().map(|&source| source.into()).collect();
        sources.truncate(1 + self.draw(3) as usize);
        let periods = self.calendar.periods();
        let period = match self.draw(4) {
            // Not stored: merged from the coarsest that tiles it.
            0 => "1h".parse().expect("a period"),
            _ => periods[self.draw(periods.len() as u64) as usize],
        };
        let limit = if self.draw(3) == 0 { 1 } else { 1_000 };
        node.ask(StatsQuery { sources, period: Some(period), from: None, to: None, limit, cursor: None });
    }
}
