//! What the clients know: which readings they sent, what they were answered, and so how often each may be
//! counted.
//!
//! Kept by `schedule.rs` and by the attempts it starts; `verdict.rs` holds rows and answers against it. The
//! n-th reading of a source has the value 8 to the n-th: the octal digits of any sum of a source say how
//! often each reading is in it. A vector has it as its first component, and multiples of it as the others.

use meanwhile::ingest::commit::{CommitError, Committed, Request, RequestKey};
use meanwhile::ingest::fold::{Part, RootDeltas};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Calendar};
use meanwhile::stats::moments::{Moments, Unlike};
use std::collections::BTreeMap;

pub(crate) const SOURCES: [&str; 3] = ["a", "b", "c"];
/// Readings of one source, so that sums stay exact in a double.
pub(crate) const MOST_READINGS: usize = 16;
/// Below this a reading is found in a sum.
pub(crate) const BASE: u64 = 8;

/// One reading.
pub(crate) struct Reading {
    pub(crate) source: usize,
    /// Which reading of its source it is.
    pub(crate) number: u32,
    /// Numbers it has.
    pub(crate) length: usize,
    /// Its timestamp; `None`: it is of the time at which an attempt arrives.
    at: Option<Millis>,
    /// The times it was folded for.
    pub(crate) times: Vec<Millis>,
    request: usize,
    part: usize,
}

/// A moment, by the time that keys expire by and by that of the clients. A clock step lets the one run ahead, a store
/// that goes back the other.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) elapsed: Millis,
    pub(crate) passed: Millis,
}

impl Times {
    pub(crate) fn since(self, earlier: Self) -> Millis {
        (self.elapsed - earlier.elapsed).max(self.passed - earlier.passed)
    }
}

/// A request of a client, repeated until it is answered, or not.
pub(crate) struct Asked {
    pub(crate) key: Option<RequestKey>,
    parts: usize,
    /// When it, or the one that had its key first, was first sent.
    pub(crate) first_sent: Times,
    pub(crate) attempts: u32,
    /// Attempts that have not ended.
    pub(crate) running: u32,
    /// When it was answered that it is counted, by the clocks.
    pub(crate) acked: Vec<Millis>,
    /// Some attempt had an unknown outcome, or none.
    doubtful: bool,
    /// It was answered that its key belongs to another body, and is not repeated.
    pub(crate) reused: bool,
    /// What was answered to be too late: (part, deltas of the part), sorted.
    too_late: Vec<(usize, usize)>,
    /// The deltas in which each reading of each part stands.
    places: Vec<(usize, usize, usize)>,
}

/// How often a reading may be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) least: u64,
    pub(crate) most: u64,
}

#[derive(Default)]
pub(crate) struct Books {
    /// A repetition may be answered otherwise than the request was.
    pub(crate) store_forgets: bool,
    pub(crate) asked: Vec<Asked>,
    pub(crate) readings: Vec<Reading>,
}

impl Reading {
    fn moments(&self) -> Moments {
        let value = BASE.pow(self.number) as f64;
        let values: Vec<f64> = (1..=self.length).map(|n| n as f64 * value).collect();
        if let [value] = values[..] { Moments::of(value) } else { Moments::of_vector(&values) }
    }
}

/// A new reading: of which part, source, time and length.
pub(crate) type New = (usize, usize, Option<Millis>, usize);

impl Books {
    /// Whether a source can have one more reading.
    pub(crate) fn has_room(&self, source: usize) -> bool {
        self.numbered(source) < MOST_READINGS
    }

    fn numbered(&self, source: usize) -> usize {
        self.readings.iter().filter(|reading| reading.source == source).count()
    }

    /// Writes down a new request with these readings, a source in one length.
    pub(crate) fn ask(&mut self, key: Option<RequestKey>, readings: &[New]) -> usize {
        let request = self.asked.len();
        for &(part, source, at, length) in readings {
            let number = self.numbered(source) as u32;
            self.readings.push(Reading { source, number, length, at, times: Vec::new(), request, part });
        }
        let parts = readings.iter().map(|(part, ..)| part + 1).max().unwrap_or_default();
        self.asked.push(Asked {
            key,
            parts,
            first_sent: Times::default(),
            attempts: 0,
            running: 0,
            acked: Vec::new(),
            doubtful: false,
            reused: false,
            too_late: Vec::new(),
            places: Vec::new(),
        });
        request
    }

    /// The request as it arrives at a node now: in its parts, folded into root buckets.
    pub(crate) fn arrive(&mut self, request: usize, calendar: &Calendar, now: Millis) -> Request {
        let asked = &mut self.asked[request];
        asked.attempts += 1;
        asked.running += 1;
        asked.places.clear();
        let mut parts = Vec::new();
        for part in 0..asked.parts {
            let mut folded: BTreeMap<Vec<Bucket>, Vec<usize>> = BTreeMap::new();
            for (index, reading) in self.readings.iter_mut().enumerate() {
                if (reading.request, reading.part) == (request, part) {
                    let time = reading.at.unwrap_or(now);
                    reading.times.push(time);
                    folded.entry(calendar.roots(time).buckets).or_default().push(index);
                }
            }
            let mut deltas = Vec::new();
            for (place, (buckets, indices)) in folded.into_iter().enumerate() {
                let mut sources: BTreeMap<usize, Moments> = BTreeMap::new();
                for index in &indices {
                    let reading = &self.readings[*index];
                    sources.entry(reading.source).or_default().merge(&reading.moments());
                    asked.places.push((*index, part, place));
                }
                let sources = sources.into_iter().map(|(source, moments)| (SOURCES[source].into(), moments));
                deltas.push(RootDeltas { buckets, sources: sources.collect() });
            }
            parts.push(Part { readings: deltas.iter().map(|d| d.sources.len()).sum(), deltas });
        }
        Request { parts, key: asked.key }
    }

    /// What an attempt was answered, or that its node died (`None`). An error says what is wrong about it.
    pub(crate) fn answered(
        &mut self,
        request: usize,
        answer: Option<Result<Committed, CommitError>>,
        now: Millis,
    ) -> Result<(), String> {
        let asked = &mut self.asked[request];
        asked.running -= 1;
        match answer {
            Some(Ok(Committed { mut too_late, .. })) => {
                too_late.sort_unstable();
                if asked.acked.is_empty() {
                    asked.too_late = too_late;
                } else if self.store_forgets {
                    // Forgotten and too late by now: the last answer counts.
                    asked.too_late.extend(too_late);
                } else if asked.too_late != too_late {
                    return Err(format!("request {request} was too late at {:?}, now at {too_late:?}", asked.too_late));
                }
                asked.acked.push(now);
            }
            Some(Err(CommitError::KeyReused)) => asked.reused = true,
            // What is counted is known to be, whatever has come into its buckets since.
            Some(Err(CommitError::Unlike { .. })) if !asked.acked.is_empty() && !self.store_forgets => {
                return Err(format!("request {request} was counted, and is now refused for its length"));
            }
            Some(Err(CommitError::Busy | CommitError::NotApplied(_) | CommitError::Unlike { partly: false, .. })) => {}
            None | Some(Err(CommitError::Unknown(_) | CommitError::Unlike { partly: true, .. })) => {
                asked.doubtful = true;
            }
        }
        Ok(())
    }

    /// How often this reading may be counted, as its client knows by now.
    pub(crate) fn bounds(&self, index: usize) -> Bounds {
        let asked = &self.asked[self.readings[index].request];
        if asked.acked.is_empty() {
            return Bounds { least: 0, most: u64::from(asked.doubtful || asked.running > 0) };
        }
        let place = asked.places.iter().find(|(of, ..)| *of == index).map(|&(_, part, deltas)| (part, deltas));
        let counted = u64::from(place.is_none_or(|place| !asked.too_late.contains(&place)));
        Bounds { least: counted, most: counted }
    }

    pub(crate) fn request_of(&self, index: usize) -> &Asked {
        &self.asked[self.readings[index].request]
    }

    pub(crate) fn describe(&self, index: usize) -> String {
        let Reading { source, number, request, times, .. } = &self.readings[index];
        format!("reading {number} of source {} (request {request}, times {times:?})", SOURCES[*source])
    }

    /// How often each reading of a source is in a sum.
    pub(crate) fn digits(&self, source: &str, moments: &Moments) -> Vec<(usize, u64)> {
        let sum = moments.vector.as_ref().map_or(moments.sum.hi, |vector| vector.sum()[0]) as u64;
        let of = self.readings.iter().enumerate().filter(|(_, reading)| SOURCES[reading.source] == source);
        of.map(|(index, reading)| (index, sum / BASE.pow(reading.number) % BASE)).filter(|(_, n)| *n > 0).collect()
    }

    /// Moments of these readings, each as often as said. An error if they are not of one length.
    pub(crate) fn moments(&self, digits: &[(usize, u64)]) -> Result<Moments, Unlike> {
        let mut moments = Moments::EMPTY;
        for &(index, times) in digits {
            for _ in 0..times {
                moments.try_merge(&self.readings[index].moments())?;
            }
        }
        Ok(moments)
    }
}
