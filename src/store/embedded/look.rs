//! Page, open and buckets: reading lives from a snapshot; the counterpart of lua/page.lua and lua/open.lua.
//!
//! Called by `embedded.rs`.

use super::DatabaseResult;
use super::tables::{self, LifeRecord};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Period};
use crate::stats::layout;
use crate::store::{Life, Open, OpenBuckets, OpenLife, PAGE_SOURCES, Page, Shard, keys, open_buckets};
use std::ops::Bound;
use std::sync::Arc;

pub(super) fn page(
    t: &redb::ReadTransaction,
    shard: Shard,
    bucket: &Bucket,
    generation: i64,
    cursor: Option<&str>,
) -> DatabaseResult<Option<Page>> {
    let key = tables::bucket_key(shard, bucket);
    let life = t.open_table(tables::LIVES)?.get(&key[..])?.map(|life| LifeRecord::from_tuple(life.value()));
    if life.is_none_or(|life| life.generation != generation) {
        return Ok(None);
    }
    // The cursor is the last source read.
    let mut range = tables::states_range(&key);
    if let Some(source) = cursor {
        range.start = tables::state_key(&key, source);
    }
    let table = t.open_table(tables::STATES)?;
    let mut page = Page::default();
    let mut read = 0;
    let bounds = (Bound::Excluded(&range.start[..]), Bound::Excluded(&range.end[..]));
    for entry in table.range::<&[u8]>(bounds)?.take(PAGE_SOURCES) {
        let (key, state) = entry?;
        read += 1;
        let source = tables::source_of(key.value());
        if read == PAGE_SOURCES {
            page.next = Some(source.to_owned());
        }
        match layout::decode(state.value()) {
            Ok(moments) => page.sources.push((Arc::from(source), moments)),
            // The close sets it aside; until then it is no reason to hold back the others.
            Err(e) => tracing::error!(source, bucket = %keys::bucket_name(bucket), "a state cannot be read: {e}"),
        }
    }
    Ok(Some(page))
}

pub(super) fn open(
    t: &redb::ReadTransaction,
    shard: Shard,
    sources: &[Arc<str>],
    periods: &[Period],
    (from, to): (Millis, Millis),
) -> DatabaseResult<Open> {
    let (lives, states) = (t.open_table(tables::LIVES)?, t.open_table(tables::STATES)?);
    let limit = open_buckets(sources.len());
    let mut found = Vec::new();
    for &period in periods {
        let range = tables::lives_range(shard, period, from, to);
        let range = (Bound::Included(&range.start[..]), Bound::Excluded(&range.end[..]));
        for entry in lives.range::<&[u8]>(range)?.take(limit + 1) {
            let (key, life) = entry?;
            found.push((tables::bucket_of(key.value()), LifeRecord::from_tuple(life.value())));
        }
    }
    // The limit is for all periods together, so the first start beyond it is the same for each.
    let mut starts: Vec<Millis> = found.iter().map(|(bucket, _)| bucket.start).collect();
    starts.sort_unstable();
    let until = starts.get(limit).copied();
    found.retain(|(bucket, _)| until.is_none_or(|until| bucket.start < until));
    let mut open = Open { lives: Vec::with_capacity(found.len()), until };
    for (bucket, life) in found {
        let key = tables::bucket_key(shard, &bucket);
        let mut moments = Vec::with_capacity(sources.len());
        for source in sources {
            let state = states.get(&tables::state_key(&key, source)[..])?;
            moments.push(state.and_then(|state| layout::decode(state.value()).ok()));
        }
        let life_id = Life { bucket, generation: life.generation, revision: life.revision };
        open.lives.push(OpenLife { life: life_id, written: life.acked > 0, moments });
    }
    Ok(open)
}

pub(super) fn buckets(t: &redb::ReadTransaction, shard: Shard, cursor: Option<&str>) -> DatabaseResult<OpenBuckets> {
    let lives = t.open_table(tables::LIVES)?;
    // The cursor is the name of the last bucket read.
    let last = cursor.and_then(keys::parse_bucket_name).map(|bucket| tables::bucket_key(shard, &bucket));
    let (first, end) = (shard.to_be_bytes(), (shard + 1).to_be_bytes());
    let from = last.as_ref().map_or(Bound::Included(&first[..]), |last| Bound::Excluded(&last[..]));
    let mut page = OpenBuckets::default();
    for entry in lives.range::<&[u8]>((from, Bound::Excluded(&end[..])))?.take(PAGE_SOURCES) {
        page.buckets.push(tables::bucket_of(entry?.0.value()));
    }
    page.next = page.buckets.last().filter(|_| page.buckets.len() == PAGE_SOURCES).map(keys::bucket_name);
    Ok(page)
}
