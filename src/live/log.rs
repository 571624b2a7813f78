//! A part of the log of acks in memory, for those who catch up.
//!
//! Used by `replay.rs`, which needs it from the place of the first of them on: read once for all, and what is behind
//! it as it comes. It also says which entries another one has taken the place of, so that their rows need not be
//! looked for. Bounded like the log itself.

use super::Hub;
use super::closings::Place;
use super::written::{ENTRIES, acked};
use crate::query::QueryError;
use crate::stats::calendar::Bucket;
use crate::store::{LOG_LIVES, Life};
use std::collections::HashMap;

/// See the module.
#[derive(Default)]
pub(super) struct Log {
    /// Whether it was read at all.
    begun: bool,
    epoch: Option<i64>,
    /// It has the entries behind this mark ...
    from: i64,
    /// ... up to this one.
    until: i64,
    /// Who has this mark, or a later one, misses nothing here.
    whole_from: i64,
    lives: Vec<(i64, Life)>,
    /// The mark of the last entry of each life.
    last: HashMap<(Bucket, i64), i64>,
}

impl Log {
    /// Reads on, so that everything from behind a mark up to a place is here.
    ///
    /// # Errors
    /// `Moving` if the log is another one now than at this place.
    pub(super) async fn cover(&mut self, hub: &Hub, from: i64, place: Place) -> Result<(), QueryError> {
        if !self.begun || self.epoch != place.epoch || from < self.from || self.until > place.mark.max(from) {
            *self = Self { begun: true, epoch: place.epoch, from, until: from, whole_from: from, ..Self::default() };
        }
        while self.until < place.mark {
            let log = acked(hub, Some(self.until)).await?;
            if log.epoch != self.epoch {
                *self = Self::default();
                return Err(QueryError::Moving);
            }
            if !log.whole {
                self.whole_from = log.lives.first().map_or(log.last, |(mark, _)| *mark);
            }
            let more = log.lives.len() == ENTRIES;
            for (mark, life) in log.lives.into_iter().filter(|(mark, _)| *mark <= place.mark) {
                self.last.insert((life.bucket, life.generation), mark);
                self.lives.push((mark, life));
                self.until = mark;
            }
            if !more || self.until >= place.mark {
                self.until = place.mark;
            }
        }
        self.trim();
        Ok(())
    }

    /// Forgets what the store has forgotten long ago.
    fn trim(&mut self) {
        if self.lives.len() <= 2 * LOG_LIVES {
            return;
        }
        self.lives.drain(..self.lives.len() - LOG_LIVES);
        let oldest = self.lives[0].0;
        (self.from, self.whole_from) = (oldest - 1, self.whole_from.max(oldest));
        self.last.retain(|_, mark| *mark >= oldest);
    }

    /// Whether everything between a mark and a place is here, as far as the store has it.
    pub(super) fn covers(&self, mark: i64, place: Place) -> bool {
        self.begun && self.epoch == place.epoch && self.from <= mark && self.until >= place.mark
    }

    /// Whether nothing behind a mark is missing here.
    pub(super) fn is_whole_behind(&self, mark: i64) -> bool {
        mark >= self.whole_from
    }

    /// Up to so many entries behind a mark that no later one has taken the place of, and up to which mark these are all.
    pub(super) fn behind(&self, mark: i64, limit: usize) -> (Vec<(i64, Life)>, i64) {
        let first = self.lives.partition_point(|(of, _)| *of <= mark);
        let newest = |(mark, life): &&(i64, Life)| self.last.get(&(life.bucket, life.generation)) == Some(mark);
        let mut newest = self.lives[first..].iter().filter(newest);
        let some: Vec<(i64, Life)> = newest.by_ref().take(limit).copied().collect();
        let until = match (newest.next(), some.last()) {
            (Some(_), Some((mark, _))) => *mark,
            _ => self.until,
        };
        (some, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Expected;
    use crate::query::tests::query;
    use crate::query::tests::world::World;
    use crate::stats::Millis;
    use crate::store::AckLog;
    use std::ops::RangeInclusive;
    use std::sync::Arc;

    /// The life of a minute, in its version of a mark.
    fn life(minute: Millis, mark: i64) -> (i64, Life) {
        let bucket = Bucket { period: "1m".parse().unwrap(), start: minute * 60_000, end: (minute + 1) * 60_000 };
        (mark, Life { bucket, generation: 1, revision: mark })
    }

    fn part(epoch: i64, whole: bool, marks: RangeInclusive<i64>) -> AckLog {
        let last = *marks.end();
        AckLog { epoch: Some(epoch), whole, lives: marks.map(|mark| life(mark, mark)).collect(), last }
    }

    /// A log that has read these answers, and what came of it.
    async fn cover(parts: Vec<AckLog>, from: i64, until: i64) -> (Log, Result<(), QueryError>) {
        let world = World::new("1m", "UTC");
        world.lock().logs.extend(parts);
        let hub = Hub::new(Arc::clone(&world) as _, Arc::new(query(&world)), None, |_| Vec::new(), Expected::default());
        let mut log = Log::default();
        let covered = log.cover(&hub, from, Place { epoch: Some(1), mark: until }).await;
        assert!(world.lock().logs.is_empty(), "all was read");
        (log, covered)
    }

    #[tokio::test]
    async fn a_store_that_is_emptied_between_two_answers_is_noticed() {
        let (log, covered) = cover(vec![part(1, true, 1..=200), part(2, true, 201..=210)], 0, 300).await;
        assert_eq!(covered, Err(QueryError::Moving));
        assert_eq!(log.behind(0, 10).0, []);
        let (log, covered) = cover(vec![part(1, true, 1..=200), part(1, true, 201..=210)], 0, 205).await;
        assert_eq!(covered, Ok(()));
        assert_eq!(log.behind(0, 1_000), ((1..=205).map(|mark| life(mark, mark)).collect(), 205));
    }

    #[tokio::test]
    async fn what_the_store_has_dropped_is_missed_by_who_was_told_before() {
        let (log, covered) = cover(vec![part(1, false, 5..=8)], 2, 8).await;
        assert_eq!(covered, Ok(()));
        assert_eq!([4, 5, 8].map(|mark| log.is_whole_behind(mark)), [false, true, true]);
    }

    #[tokio::test]
    async fn entries_that_later_ones_have_taken_the_place_of_are_left_out() {
        let mut answer = part(1, true, 1..=3);
        answer.lives.push(life(1, 4));
        let (log, _) = cover(vec![answer], 0, 6).await;
        assert_eq!(log.behind(0, 10), (vec![life(2, 2), life(3, 3), life(1, 4)], 6));
        assert_eq!(log.behind(0, 2), (vec![life(2, 2), life(3, 3)], 3), "up to which nothing is left");
        assert_eq!(log.behind(3, 1), (vec![life(1, 4)], 6));
        assert_eq!(log.behind(4, 1), (vec![], 6));
    }
}
