//! Folds readings into deltas per (root buckets, source), before anything reaches the store.
//!
//! Called by `decode/`; makes what `commit.rs` commits. A request is cut by reading index into
//! parts of bounded size, the same cut for every repetition of the request on any node. A reading with
//! several root buckets is folded once, for all of them: so it can be refused as a whole. This is the
//! hot path: a source seen before costs one hash and one probe and allocates nothing.

use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Calendar};
use crate::stats::layout::{self, SCALAR_DOUBLES};
use crate::stats::moments::{Moments, Unlike};
use foldhash::fast::RandomState;
use hashbrown::hash_table::Entry;
use hashbrown::{HashMap, HashTable};
use std::hash::BuildHasher;
use std::sync::Arc;

/// The most one part may hold, in doubles of its readings' states: 2,000 readings of a number, 133 of a vector
/// of 8, 3 of 64.
pub const PART_DOUBLES: usize = 14_000;

/// What some consecutive readings of a request folded to: the unit that is keyed and committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// No two for the same buckets.
    pub deltas: Vec<RootDeltas>,
    /// Readings folded into it.
    pub readings: usize,
}

/// Readings that fall into the same root buckets: each is counted in all of these, or in none.
#[derive(Clone, Debug, PartialEq)]
pub struct RootDeltas {
    /// At least one, the finest first.
    pub buckets: Vec<Bucket>,
    /// No source twice.
    pub sources: Vec<(Arc<str>, Moments)>,
}

impl RootDeltas {
    /// The end of the bucket that is over first, and is the first to be too late.
    pub(super) fn end(&self) -> Millis {
        self.buckets.iter().map(|bucket| bucket.end).min().expect("a reading has a root bucket")
    }

    /// Doubles of the states it may add to the store.
    pub(super) fn doubles(&self) -> usize {
        self.buckets.len() * self.sources.iter().map(|(_, moments)| moments.doubles()).sum::<usize>()
    }

    /// Whether all its readings are single numbers.
    pub(super) fn is_scalar(&self) -> bool {
        self.sources.iter().all(|(_, moments)| moments.vector.is_none())
    }
}

/// Takes the readings of one request in their order.
#[derive(Debug)]
pub struct Folder<'c> {
    calendar: &'c Calendar,
    hasher: RandomState,
    /// Every source of the request: parts and buckets share one id.
    names: HashTable<Name>,
    parts: Vec<Part>,
    /// The deltas of the current part, and where those for the buckets that overlap from a time on stand.
    open: Vec<OpenDeltas>,
    places: HashMap<Millis, usize, RandomState>,
    /// Deltas opened so far, in all parts.
    opened: u32,
    /// What a reading within `from..to` is folded into, as an index of `open`.
    target: usize,
    from: Millis,
    to: Millis,
    /// Doubles of the readings given to the current part, folded or passed over.
    doubles: usize,
    /// Readings folded into the current part.
    readings: usize,
    line: usize,
    lines: Option<Lines>,
}

/// A source of the request and where it was folded last, which is mostly where it is folded next.
#[derive(Debug)]
struct Name {
    hash: u64,
    id: Arc<str>,
    /// Serial number of the deltas, and the index in their `sources`.
    deltas: u32,
    /// A part has fewer readings than this can say. So a name has 32 bytes.
    index: u16,
    /// Numbers per reading: the same in all of a request.
    length: u16,
}
const _: () = assert!(PART_DOUBLES / SCALAR_DOUBLES < u16::MAX as usize);

/// Deltas while they grow.
#[derive(Debug)]
struct OpenDeltas {
    buckets: Vec<Bucket>,
    /// Their number among those of all parts of the request.
    serial: u32,
    sources: Vec<(Arc<str>, Moments)>,
    /// Hash of a source and its index in `sources`. Built when a source comes that was folded
    /// elsewhere since; a batch for one bucket never needs it.
    index: Option<HashTable<(u64, u16)>>,
}

impl OpenDeltas {
    /// The index of a source that was last seen elsewhere; adds it if it is new here.
    fn place(&mut self, name: &Name, hasher: &RandomState) -> u16 {
        let sources = &mut self.sources;
        let index = self.index.get_or_insert_with(|| {
            let mut index = HashTable::with_capacity(sources.len() + 1);
            for (i, (id, _)) in sources.iter().enumerate() {
                let hash = hasher.hash_one(&**id);
                index.insert_unique(hash, (hash, i as u16), |entry| entry.0);
            }
            index
        });
        let same = |&(hash, i): &(u64, u16)| hash == name.hash && Arc::ptr_eq(&sources[usize::from(i)].0, &name.id);
        if let Some(&(_, i)) = index.find(name.hash, same) {
            return i;
        }
        self.add(name.hash, Arc::clone(&name.id))
    }

    /// Adds a source that is not in it.
    fn add(&mut self, hash: u64, id: Arc<str>) -> u16 {
        let i = self.sources.len() as u16;
        if let Some(index) = &mut self.index {
            index.insert_unique(hash, (hash, i), |entry| entry.0);
        }
        self.sources.push((id, Moments::EMPTY));
        i
    }
}

/// Which lines of a request went into which deltas of which part; kept where a reading may be refused
/// by its line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// The line of each folded reading.
    of_reading: Vec<usize>,
    /// Folded readings, by part, then by deltas of the part.
    in_deltas: Vec<Vec<Vec<usize>>>,
}

impl Lines {
    /// The lines of all readings in these (part, deltas of the part), rising; a line that holds
    /// several of them is named as often.
    ///
    /// # Panics
    /// If the request had no such part or deltas.
    #[must_use]
    pub fn of(&self, deltas: &[(usize, usize)]) -> Vec<usize> {
        let readings = deltas.iter().flat_map(|&(part, deltas)| &self.in_deltas[part][deltas]);
        let mut readings: Vec<usize> = readings.copied().collect();
        readings.sort_unstable();
        readings.into_iter().map(|reading| self.of_reading[reading]).collect()
    }
}

impl<'c> Folder<'c> {
    #[must_use]
    pub fn new(calendar: &'c Calendar) -> Self {
        Self {
            calendar,
            hasher: RandomState::default(),
            names: HashTable::new(),
            parts: Vec::new(),
            open: Vec::new(),
            places: HashMap::default(),
            opened: 0,
            target: 0,
            from: Millis::MAX,
            to: Millis::MIN,
            doubles: 0,
            readings: 0,
            line: 0,
            lines: None,
        }
    }

    /// As [`Self::new`], and remembers which line went where.
    #[must_use]
    pub fn with_lines(calendar: &'c Calendar) -> Self {
        Self { lines: Some(Lines::default()), ..Self::new(calendar) }
    }

    /// The line of the readings that are pushed next.
    #[inline]
    pub fn at_line(&mut self, line: usize) {
        self.line = line;
    }

    /// Adds a reading of one number. The source is a valid id, the value as `Moments::push` wants it. Whether the request
    /// has this source for the first time.
    ///
    /// # Errors
    /// If readings of the source are vectors in this request; it is passed over then.
    #[inline]
    pub fn push(&mut self, source: &str, value: f64, timestamp: Millis) -> Result<bool, Unlike> {
        self.advance(SCALAR_DOUBLES);
        self.place(source, 1, timestamp, |target| target.push(value))
    }

    /// Adds a reading that is a vector, of a length and with values as `Moments::push_vector` wants them. Says and
    /// fails like [`Self::push`].
    pub fn push_vector(&mut self, source: &str, values: &[f64], timestamp: Millis) -> Result<bool, Unlike> {
        self.advance(layout::state_doubles(values.len()));
        self.place(source, values.len() as u16, timestamp, |target| target.push_vector(values))
    }

    /// Gives the delta for a reading of so many numbers, which is counted as one of the part; whether its source is new.
    #[inline]
    fn place(
        &mut self,
        source: &str,
        length: u16,
        timestamp: Millis,
        put: impl FnOnce(&mut Moments),
    ) -> Result<bool, Unlike> {
        if timestamp < self.from || timestamp >= self.to {
            self.aim(timestamp);
        }
        let hash = self.hasher.hash_one(source);
        let open = &mut self.open[self.target];
        let same = |name: &Name| name.hash == hash && *name.id == *source;
        let (index, is_new) = match self.names.entry(hash, same, |name| name.hash) {
            Entry::Occupied(mut known) => {
                let name = known.get_mut();
                if name.length != length {
                    let unlike = Unlike(name.length.into(), length.into());
                    self.take_back();
                    return Err(unlike);
                }
                if name.deltas != open.serial {
                    (name.index, name.deltas) = (open.place(name, &self.hasher), open.serial);
                }
                (name.index, false)
            }
            Entry::Vacant(unknown) => {
                let id: Arc<str> = Arc::from(source);
                let index = open.add(hash, Arc::clone(&id));
                unknown.insert(Name { hash, id, deltas: open.serial, index, length });
                (index, true)
            }
        };
        self.readings += 1;
        if let Some(lines) = &mut self.lines {
            lines.in_deltas[self.parts.len()][self.target].push(lines.of_reading.len());
            lines.of_reading.push(self.line);
        }
        put(&mut self.open[self.target].sources[usize::from(index)].1);
        Ok(is_new)
    }

    /// Removes the deltas that were opened for a reading that is refused: a bucket without sources is none.
    #[cold]
    fn take_back(&mut self) {
        if self.open[self.target].sources.is_empty() {
            self.open.truncate(self.target);
            self.places.remove(&self.from);
            (self.from, self.to) = (Millis::MAX, Millis::MIN);
            if let Some(lines) = &mut self.lines {
                lines.in_deltas[self.parts.len()].truncate(self.target);
            }
        }
    }

    /// Passes over a reading that is refused. It keeps its place in the cut: whether a reading is
    /// refused may depend on the time of arrival, and a repetition must be cut like the original.
    pub fn skip(&mut self) {
        self.advance(SCALAR_DOUBLES);
    }

    /// The same for a reading that is a vector of an allowed length.
    pub fn skip_vector(&mut self, length: usize) {
        self.advance(layout::state_doubles(length));
    }

    /// The parts of the request; their numbers are their indices.
    #[must_use]
    pub fn finish(self) -> Vec<Part> {
        self.finish_with_lines().0
    }

    /// As [`Self::finish`], with the lines if they were asked for.
    #[must_use]
    pub fn finish_with_lines(mut self) -> (Vec<Part>, Option<Lines>) {
        if self.doubles > 0 {
            self.cut();
        }
        (self.parts, self.lines)
    }

    /// Makes room for one more reading whose state has so many doubles.
    #[inline]
    fn advance(&mut self, doubles: usize) {
        if self.doubles + doubles > PART_DOUBLES {
            self.cut();
        }
        self.doubles += doubles;
    }

    /// Ends the current part; one without readings stays, so that the parts after it keep their numbers.
    #[cold]
    fn cut(&mut self) {
        let close = |open: OpenDeltas| RootDeltas { buckets: open.buckets, sources: open.sources };
        let deltas = self.open.drain(..).map(close).collect();
        self.parts.push(Part { deltas, readings: std::mem::take(&mut self.readings) });
        if let Some(lines) = &mut self.lines {
            lines.in_deltas.resize_with(self.parts.len(), Vec::new);
        }
        self.places.clear();
        (self.from, self.to) = (Millis::MAX, Millis::MIN);
        self.doubles = 0;
    }

    /// Finds the deltas for readings at `t`, and opens them if the part does not have them yet.
    #[cold]
    fn aim(&mut self, t: Millis) {
        let roots = self.calendar.roots(t);
        (self.from, self.to) = (roots.from, roots.to);
        self.target = *self.places.entry(roots.from).or_insert_with(|| {
            self.opened += 1;
            let open = OpenDeltas { buckets: roots.buckets, serial: self.opened, sources: Vec::new(), index: None };
            self.open.push(open);
            self.open.len() - 1
        });
        if let Some(lines) = &mut self.lines {
            lines.in_deltas.resize_with(self.parts.len() + 1, Vec::new);
            lines.in_deltas[self.parts.len()].resize_with(self.open.len(), Vec::new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::calendar::Zone;
    use crate::stats::timestamp;

    fn calendar(periods: &[&str], zone: &str) -> Calendar {
        Calendar::new(periods.iter().map(|p| p.parse().unwrap()).collect(), zone.parse().unwrap()).unwrap()
    }

    fn at(text: &str) -> Millis {
        timestamp::parse(text, &Zone::utc()).unwrap()
    }

    /// Each part as its readings and its lines `period start ... source=count@mean`.
    fn show(parts: &[Part]) -> Vec<(usize, Vec<String>)> {
        let row = |buckets: &[Bucket], (source, moments): &(Arc<str>, Moments)| {
            let name = |bucket: &Bucket| format!("{} {}", bucket.period, timestamp::format(bucket.start));
            let names = buckets.iter().map(name).collect::<Vec<_>>().join(" ");
            format!("{names} {source}={}@{}", moments.count, moments.mean().unwrap())
        };
        let rows = |part: &Part| {
            part.deltas.iter().flat_map(|d| d.sources.iter().map(|s| row(&d.buckets, s)).collect::<Vec<_>>()).collect()
        };
        parts.iter().map(|part| (part.readings, rows(part))).collect()
    }

    fn check(calendar: &Calendar, readings: &[(&str, f64, &str)], expected: &[&str]) {
        let mut folder = Folder::new(calendar);
        for (source, value, time) in readings {
            folder.push(source, *value, at(time)).unwrap();
        }
        let got = show(&folder.finish());
        assert_eq!(got, [(readings.len(), expected.iter().map(|&row| row.to_owned()).collect::<Vec<_>>())]);
    }

    #[test]
    fn readings_meet_in_their_bucket() {
        check(
            &calendar(&["1m", "1h"], "UTC"),
            &[
                ("a", 1.0, "2026-11-20T05:00:00Z"),
                ("b", 5.0, "2026-11-20T05:00:59.999Z"),
                ("a", 2.0, "2026-11-20T05:01:00Z"),
                ("a", 3.0, "2026-11-20T05:00:30Z"),
            ],
            &["1m 2026-11-20T05:00:00Z a=2@2", "1m 2026-11-20T05:00:00Z b=1@5", "1m 2026-11-20T05:01:00Z a=1@2"],
        );
    }

    #[test]
    fn a_period_that_no_finer_one_tiles_is_folded_too() {
        check(
            &calendar(&["1h", "1d"], "Asia/Kolkata"),
            &[
                ("a", 1.0, "2026-11-20T18:00:00Z"),
                ("a", 2.0, "2026-11-20T18:45:00Z"),
                ("a", 3.0, "2026-11-20T18:29:59Z"),
            ],
            &[
                "1h 2026-11-20T18:00:00Z 1d 2026-11-19T18:30:00Z a=2@2",
                "1h 2026-11-20T18:00:00Z 1d 2026-11-20T18:30:00Z a=1@2",
            ],
        );
    }

    #[test]
    fn sources_that_go_back_and_forth_between_buckets_meet_themselves() {
        let calendar = calendar(&["1m"], "UTC");
        let mut folder = Folder::new(&calendar);
        // The first minute has sources before its index is needed; "c" is new to an indexed bucket.
        for (source, minute) in
            [("a", 0), ("b", 0), ("a", 1), ("a", 0), ("c", 0), ("b", 1), ("c", 1), ("c", 0), ("b", 0)]
        {
            folder.push(source, 1.0, minute * 60_000).unwrap();
        }
        let counts = |part: &Part, bucket: usize| -> Vec<(String, f64)> {
            part.deltas[bucket].sources.iter().map(|(source, moments)| (source.to_string(), moments.count)).collect()
        };
        let parts = folder.finish();
        assert_eq!(counts(&parts[0], 0), [("a".to_owned(), 2.0), ("b".to_owned(), 2.0), ("c".to_owned(), 2.0)]);
        assert_eq!(counts(&parts[0], 1), [("a".to_owned(), 1.0), ("b".to_owned(), 1.0), ("c".to_owned(), 1.0)]);
    }

    #[test]
    fn vectors_meet_in_their_bucket_and_are_cut_by_their_doubles() {
        let calendar = calendar(&["1m"], "UTC");
        let mut folder = Folder::with_lines(&calendar);
        for i in 0..134 {
            folder.at_line(i);
            folder.push_vector("a", &[1.0; 8], 0).unwrap();
        }
        let (parts, lines) = folder.finish_with_lines();
        assert_eq!(parts.iter().map(|part| part.readings).collect::<Vec<_>>(), [133, 1]);
        assert_eq!(parts[0].deltas[0].sources[0].1.count, 133.0);
        assert_eq!((parts[0].deltas[0].doubles(), parts[0].deltas[0].is_scalar()), (105, false));
        assert_eq!(lines.unwrap().of(&[(1, 0)]), [133]);
        let mut skipped = Folder::new(&calendar);
        (0..133).for_each(|_| skipped.skip_vector(8));
        skipped.push_vector("a", &[1.0; 8], 0).unwrap();
        assert_eq!(skipped.finish().len(), 2, "a refused one keeps its place");
    }

    #[test]
    fn a_source_has_one_length_in_a_request() {
        let calendar = calendar(&["1m"], "UTC");
        let mut folder = Folder::with_lines(&calendar);
        folder.push_vector("a", &[1.0, 2.0], 0).unwrap();
        assert_eq!(folder.push_vector("a", &[1.0, 2.0, 3.0], 0), Err(Unlike(2, 3)));
        // Of another minute, which is not opened for it.
        assert_eq!(folder.push("a", 1.0, 60_000), Err(Unlike(2, 1)));
        folder.push("b", 1.0, 60_000).unwrap();
        folder.push_vector("a", &[1.0, 2.0], 60_000).unwrap();
        let (parts, lines) = folder.finish_with_lines();
        let shown: Vec<_> = parts[0].deltas.iter().map(|d| (d.buckets[0].start, d.sources.len())).collect();
        assert_eq!((shown, parts[0].readings), (vec![(0, 1), (60_000, 2)], 3));
        assert_eq!(lines.unwrap().of(&[(0, 0), (0, 1)]).len(), 3);
    }

    #[test]
    fn no_readings_no_parts() {
        assert_eq!(Folder::new(&calendar(&["1m"], "UTC")).finish(), []);
    }

    #[test]
    fn the_cut_depends_on_the_index_alone() {
        let calendar = calendar(&["1m"], "UTC");
        let readings = |skipped: &[u16]| -> Vec<usize> {
            let mut folder = Folder::new(&calendar);
            for i in 0..4_001 {
                if skipped.contains(&i) {
                    folder.skip();
                } else {
                    folder.push("a", 1.0, 60_000 * Millis::from(i)).unwrap();
                }
            }
            folder.finish().iter().map(|part| part.readings).collect()
        };
        assert_eq!(readings(&[]), [2_000, 2_000, 1]);
        assert_eq!(readings(&[0, 1, 3_999]), [1_998, 1_999, 1]);
        assert_eq!(readings(&(0..2_000).collect::<Vec<_>>()), [0, 2_000, 1]);
    }

    #[test]
    fn parts_share_the_id_of_a_source() {
        let calendar = calendar(&["1m"], "UTC");
        let mut folder = Folder::new(&calendar);
        for i in 0..2_001 {
            folder.push("a", 1.0, 60_000 * (i % 2)).unwrap();
        }
        let parts = folder.finish();
        let names: Vec<&Arc<str>> =
            parts.iter().flat_map(|p| &p.deltas).flat_map(|d| &d.sources).map(|s| &s.0).collect();
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|name| Arc::ptr_eq(name, names[0])));
    }

    #[test]
    fn lines_are_found_by_what_they_were_folded_into() {
        let calendar = calendar(&["1h", "1d"], "Asia/Kolkata");
        let mut folder = Folder::with_lines(&calendar);
        for (line, time) in [(1, "2026-11-20T18:00:00Z"), (3, "2026-11-20T18:45:00Z"), (4, "2026-11-20T19:00:00Z")] {
            folder.at_line(line);
            folder.push("a", 1.0, at(time)).unwrap();
        }
        for _ in 3..2_000 {
            folder.skip();
        }
        folder.at_line(2_005);
        folder.push("b", 1.0, at("2026-11-20T19:00:00Z")).unwrap();
        let (parts, lines) = folder.finish_with_lines();
        let lines = lines.unwrap();
        assert_eq!(parts.len(), 2);
        // The first part: the hour from 18:00 with the day before 18:30 and with that after, then the next hour.
        assert_eq!(lines.of(&[(0, 0)]), [1]);
        assert_eq!(lines.of(&[(0, 1), (0, 0)]), [1, 3]);
        assert_eq!(lines.of(&[(1, 0), (0, 2)]), [4, 2_005]);
        assert_eq!(lines.of(&[]), [0; 0]);
    }
}
