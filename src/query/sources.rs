//! Which sources there are, and what the store holds of one right now.
//!
//! Called by `http/{sources,state}.rs`, and by `page.rs` before it says that a source is unknown.
//! The sink has a catalogue, the store has none: its sources are listed life by life, at most once
//! in [`LISTING_AGE`]. The store is always asked first, so that a source whose last life closes
//! meanwhile is found in the sink.

use super::near::near;
use super::position::{decode_id, encode_id};
use super::window::Lives;
use super::{EARLIEST, LATEST, MAX_SOURCES, PAGE_ROWS, Query, QueryError};
use crate::clock;
use crate::sink::Sink;
use crate::stats::Millis;
use crate::stats::calendar::Bucket;
use crate::stats::moments::Moments;
use crate::stats::source::SourceSpan;
use crate::store::{OpenLife, PAGE_SOURCES, StoreError};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A listing of the store's sources serves this long: many questions at once cost one listing, and
/// a source that has just sent its first reading shows up while somebody waits for it.
const LISTING_AGE: Duration = Duration::from_secs(1);
/// Pages read for one listing: two million entries of [`PAGE_SOURCES`] each, some seconds of work.
/// Beyond that the answer is marked as partial.
const LISTING_PAGES: usize = 2_000_000 / PAGE_SOURCES;
/// Known ids that are compared with an unknown one.
const NEAR_IDS: usize = 10_000;

/// Sources by id, with the starts of their first and last bucket over all periods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourcesPage {
    pub sources: Vec<SourceSpan>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
    /// The store or the sink could not be reached, or the store holds more than is listed.
    pub partial: bool,
}

/// The own state of one open life: what it was given itself, without earlier lives and without
/// what is still in finer buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenState {
    pub bucket: Bucket,
    pub moments: Moments,
    pub generation: i64,
    pub revision: i64,
    /// Whether the sink has some revision of it.
    pub written: bool,
}

/// Everything that the store's lives name.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Starts of the first and last life by id.
    sources: BTreeMap<Arc<str>, (Millis, Millis)>,
    cut: bool,
}

/// The last listing. Its lock is held while the next is made, so that only one question makes it.
pub(super) type ListingCache = Mutex<Option<(Instant, Arc<Listing>)>>;

impl Query {
    /// A page of the sources whose id begins with `prefix`; 1 to [`PAGE_ROWS`] of them.
    pub async fn sources(&self, prefix: &str, limit: usize, cursor: Option<&str>) -> Result<SourcesPage, QueryError> {
        let limit = limit.clamp(1, PAGE_ROWS);
        let after = cursor.map(decode_id).transpose()?;
        let sink = self.sink.as_ref().ok_or(QueryError::NoSink)?;
        let listing = self.listing().await;
        // One more than asked for tells whether there is a next page.
        let sunk = sink.sources(prefix, after.as_deref(), limit + 1).await;
        if let (Err(store), Err(sink)) = (&listing, &sunk) {
            return Err(QueryError::Unavailable(format!("{store}; {sink}")));
        }
        let mut partial = listing.is_err() || sunk.is_err();
        let mut union: BTreeMap<Arc<str>, (Millis, Millis)> = BTreeMap::new();
        for span in sunk.unwrap_or_default() {
            union.insert(span.source, (span.first, span.last));
        }
        if let Ok(listing) = listing {
            partial |= listing.cut;
            for (id, &(first, last)) in listing.from(prefix, after.as_deref()).take(limit + 1) {
                widen(&mut union, id, first, last);
            }
        }
        let more = union.len() > limit;
        let sources: Vec<SourceSpan> =
            union.into_iter().take(limit).map(|(source, (first, last))| SourceSpan { source, first, last }).collect();
        let next = sources.last().filter(|_| more).map(|last| encode_id(&last.source));
        Ok(SourcesPage { sources, next, partial })
    }

    /// The same of those that may be shown; the cursor too names one of them. Looks through all others on the way.
    pub async fn sources_shown(
        &self,
        prefix: &str,
        limit: usize,
        cursor: Option<&str>,
        shown: impl Fn(&str) -> bool,
    ) -> Result<SourcesPage, QueryError> {
        let limit = limit.clamp(1, PAGE_ROWS);
        let mut found = SourcesPage { sources: Vec::new(), next: cursor.map(str::to_owned), partial: false };
        loop {
            let page = self.sources(prefix, limit, found.next.as_deref()).await?;
            found.partial |= page.partial;
            found.next = page.next;
            found.sources.extend(page.sources.into_iter().filter(|span| shown(&span.source)));
            let more = found.next.is_some() || found.sources.len() > limit;
            if found.next.is_none() || found.sources.len() >= limit {
                found.sources.truncate(limit);
                found.next = found.sources.last().filter(|_| more).map(|last| encode_id(&last.source));
                return Ok(found);
            }
        }
    }

    /// The open lives of a source as the store holds them, by start, finer periods first; empty for
    /// a source that has none.
    pub async fn state(&self, source: &Arc<str>) -> Result<Vec<OpenState>, QueryError> {
        let unavailable = |error: StoreError| QueryError::Unavailable(error.to_string());
        let mut states = Vec::new();
        for OpenLife { life, written, mut moments } in
            self.all_lives(std::slice::from_ref(source)).await.map_err(unavailable)?
        {
            if let Some(moments) = moments.pop().flatten() {
                let (generation, revision) = (life.generation, life.revision);
                states.push(OpenState { bucket: life.bucket, moments, generation, revision, written });
            }
        }
        states.sort_by_key(|state| (state.bucket.start, state.bucket.period, state.bucket.end));
        if states.is_empty() {
            self.refuse_unknown(std::slice::from_ref(source)).await?;
        }
        Ok(states)
    }

    /// An error for the first of these that neither side has heard of. A side that cannot be
    /// reached may know any source.
    pub async fn refuse_unknown(&self, sources: &[Arc<str>]) -> Result<(), QueryError> {
        if sources.is_empty() {
            return Ok(());
        }
        let (Ok(lives), Ok(sink)) = (self.all_lives(sources).await, self.sink()) else { return Ok(()) };
        for (i, id) in sources.iter().enumerate() {
            if lives.iter().any(|life| life.moments[i].is_some()) {
                continue;
            }
            // In the order of ids an id comes before all that it is a prefix of.
            let Ok(first) = sink.sources(id, None, 1).await else { return Ok(()) };
            if first.first().is_none_or(|span| span.source != *id) {
                return Err(QueryError::UnknownSource { id: Arc::clone(id), near: self.near(sink, id).await });
            }
        }
        Ok(())
    }

    /// Those of these that neither side has heard of; `None` if that cannot be told now.
    pub async fn unknown(&self, sources: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let mut unknown = Vec::new();
        for some in sources.chunks(MAX_SOURCES) {
            let lives = self.all_lives(some).await.ok()?;
            for (i, id) in some.iter().enumerate() {
                if lives.iter().any(|life| life.moments[i].is_some()) {
                    continue;
                }
                // In the order of ids an id comes before all that it is a prefix of.
                let first = self.sink().ok()?.sources(id, None, 1).await.ok()?;
                if first.first().is_none_or(|span| span.source != *id) {
                    unknown.push(Arc::clone(id));
                }
            }
        }
        Some(unknown)
    }

    /// A source was forgotten: what was listed before is not shown any more.
    pub async fn list_anew(&self) {
        *self.listing.lock().await = None;
    }

    /// Known ids like this one; best effort, as it only embellishes an error.
    async fn near(&self, sink: &dyn Sink, id: &str) -> Vec<Arc<str>> {
        let mut known: BTreeMap<Arc<str>, (Millis, Millis)> = BTreeMap::new();
        if let Ok(listing) = self.listing().await {
            for (id, &(first, last)) in listing.sources.iter().take(NEAR_IDS) {
                widen(&mut known, id, first, last);
            }
        }
        for span in sink.sources("", None, NEAR_IDS).await.unwrap_or_default() {
            widen(&mut known, &span.source, span.first, span.last);
        }
        near(id, known.keys())
    }

    async fn all_lives(&self, sources: &[Arc<str>]) -> Result<Vec<OpenLife>, StoreError> {
        let Lives { lives, .. } = self.lives(sources, self.calendar.periods(), EARLIEST, LATEST, LATEST).await?;
        Ok(lives)
    }

    async fn listing(&self) -> Result<Arc<Listing>, StoreError> {
        let mut last = self.listing.lock().await;
        if let Some((made, listing)) = &*last
            && clock::instant().duration_since(*made) < LISTING_AGE
        {
            return Ok(Arc::clone(listing));
        }
        let listing = Arc::new(self.list().await?);
        *last = Some((clock::instant(), Arc::clone(&listing)));
        Ok(listing)
    }

    /// Reads the sources of every open life.
    async fn list(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        let mut pages = 0;
        for shard in 0..self.store.shards() {
            let mut at = EARLIEST;
            loop {
                let open = self.store.open(shard, &[], self.calendar.periods(), at, LATEST).await?;
                for OpenLife { life, .. } in open.lives {
                    let mut cursor: Option<String> = None;
                    loop {
                        if pages == LISTING_PAGES {
                            listing.cut = true;
                            return Ok(listing);
                        }
                        pages += 1;
                        // A life that has ended meanwhile has left its sources to the sink.
                        let page = self.store.page(shard, life.bucket, life.generation, cursor.as_deref()).await?;
                        let page = page.unwrap_or_default();
                        for (source, _) in &page.sources {
                            widen(&mut listing.sources, source, life.bucket.start, life.bucket.start);
                        }
                        if page.next.is_none() {
                            break;
                        }
                        cursor = page.next;
                    }
                }
                let Some(until) = open.until else { break };
                assert!(until > at, "a look reads the lives of at least one start");
                at = until;
            }
        }
        Ok(listing)
    }
}

impl Listing {
    /// The ids that begin with `prefix` and come after `after`, in order.
    fn from(&self, prefix: &str, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &(Millis, Millis))> {
        let lower = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.sources.range::<str, _>((lower, Bound::Unbounded)).take_while(move |(id, _)| id.starts_with(prefix))
    }
}

fn widen(spans: &mut BTreeMap<Arc<str>, (Millis, Millis)>, id: &Arc<str>, first: Millis, last: Millis) {
    match spans.entry(Arc::clone(id)) {
        Entry::Vacant(entry) => {
            entry.insert((first, last));
        }
        Entry::Occupied(mut entry) => {
            let span = entry.get_mut();
            *span = (span.0.min(first), span.1.max(last));
        }
    }
}
