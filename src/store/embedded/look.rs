//! Page, open and buckets: reading lives from a snapshot; the counterpart of lua/page.lua and lua/open.lua.
//!
//! Called by `embedded.rs`.

use super::DatabaseResult;
use super::tables::{self, LifeRecord};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Period};
use crate::stats::layout;
use crate::store::{
    Life, OPEN_DOUBLES, Open, OpenBuckets, OpenLife, PAGE_DOUBLES, PAGE_SOURCES, Page, Shard, keys, open_buckets,
};
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
    let (mut read, mut bytes) = (0, 0);
    let bounds = (Bound::Excluded(&range.start[..]), Bound::Excluded(&range.end[..]));
    for entry in table.range::<&[u8]>(bounds)? {
        let (key, state) = entry?;
        (read, bytes) = (read + 1, bytes + state.value().len());
        let source = tables::source_of(key.value());
        if read == PAGE_SOURCES || bytes >= size_of::<f64>() * PAGE_DOUBLES {
            page.next = Some(source.to_owned());
        }
        match layout::decode(state.value()) {
            Ok(moments) => page.sources.push((Arc::from(source), moments)),
            // The close sets it aside; until then it is no reason to hold back the others.
            Err(e) => tracing::error!(source, bucket = %keys::bucket_name(bucket), "a state cannot be read: {e}"),
        }
        if page.next.is_some() {
            break;
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
    let (table, states) = (t.open_table(tables::LIVES)?, t.open_table(tables::STATES)?);
    let limit = open_buckets(sources.len());
    let mut found = Vec::new();
    for &period in periods {
        let range = tables::lives_range(shard, period, from, to);
        let range = (Bound::Included(&range.start[..]), Bound::Excluded(&range.end[..]));
        for entry in table.range::<&[u8]>(range)?.take(limit + 1) {
            let (key, life) = entry?;
            found.push((tables::bucket_of(key.value()), LifeRecord::from_tuple(life.value())));
        }
    }
    // The limits are for all periods together, so the first start beyond them is the same for each.
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|&i| found[i].0.start);
    let mut until = order.get(limit).map(|&i| found[i].0.start);
    let (mut bytes, mut before) = (0, None);
    let mut lives: Vec<Option<OpenLife>> = found.iter().map(|_| None).collect();
    for i in order {
        let (bucket, life) = found[i];
        if bytes >= size_of::<f64>() * OPEN_DOUBLES && before.is_some_and(|before| before < bucket.start) {
            until = Some(bucket.start);
        }
        if until.is_some_and(|until| bucket.start >= until) {
            break;
        }
        before = Some(bucket.start);
        let key = tables::bucket_key(shard, &bucket);
        let mut moments = Vec::with_capacity(sources.len());
        for source in sources {
            let state = states.get(&tables::state_key(&key, source)[..])?;
            bytes += state.as_ref().map_or(0, |state| state.value().len());
            moments.push(state.and_then(|state| layout::decode(state.value()).ok()));
        }
        let life_id = Life { bucket, generation: life.generation, revision: life.revision };
        lives[i] = Some(OpenLife { life: life_id, written: life.acked > 0, moments });
    }
    Ok(Open { lives: lives.into_iter().flatten().collect(), until })
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
