//! The only place that spells a key, a field or the name of a bucket.
//!
//! Used by `redis.rs` for keys and by both stores for bucket names. All keys of a shard stand under
//! one hash tag, so one slot of a cluster. Source ids are fields, never parts of keys.

use super::{Shard, WriterId};
use crate::stats::calendar::{Bucket, Period};

/// Layout version, shard count: pinned at first start, checked at every other.
pub const META: &str = "mw:meta";
/// A field of it, as JSON: stored period -> since when its rows are complete.
pub const COMPLETE: &str = "complete";

/// Epoch, clocks, highest generation, writer records.
#[must_use]
pub fn head(shard: Shard) -> String {
    format!("mw:{{{shard}}}")
}

/// Sorted set: bucket name -> next time the rollover must look.
#[must_use]
pub fn due(shard: Shard) -> String {
    format!("mw:{{{shard}}}:due")
}

/// Sorted set: name of a closed bucket -> `elapsed` at which it may be forgotten.
#[must_use]
pub fn tombstones(shard: Shard) -> String {
    format!("mw:{{{shard}}}:tombs")
}

/// Sorted set: slice of idempotency keys -> `elapsed` at which it expires.
#[must_use]
pub fn slices(shard: Shard) -> String {
    format!("mw:{{{shard}}}:slices")
}

/// Hash of one slice: key id -> fingerprint. The slice's name follows.
#[must_use]
pub fn slice_prefix(shard: Shard) -> String {
    format!("mw:{{{shard}}}:k:")
}

/// Hash: states that could not be read, kept for a person to look at.
#[must_use]
pub fn aside(shard: Shard) -> String {
    format!("mw:{{{shard}}}:aside")
}

/// Hash: id of an instance -> its number, when it was last heard of, what it says of itself.
#[must_use]
pub fn nodes(shard: Shard) -> String {
    format!("mw:{{{shard}}}:nodes")
}

/// Hash: number of a version of the rules -> since when, and what it says.
#[must_use]
pub fn rules(shard: Shard) -> String {
    format!("mw:{{{shard}}}:rules")
}

/// Stream: mark of an ack -> the life that the sink has.
#[must_use]
pub fn log(shard: Shard) -> String {
    format!("mw:{{{shard}}}:log")
}

/// Hash: id of an error -> its row; behind a prefix how often and when it was first seen.
#[must_use]
pub fn errors(shard: Shard) -> String {
    format!("mw:{{{shard}}}:errors")
}

/// Sorted set: id of an error -> when it was last seen.
#[must_use]
pub fn errors_by_time(shard: Shard) -> String {
    format!("mw:{{{shard}}}:errors:last")
}

/// Sorted set of a period: name of an open bucket -> its start. A range of it answers which
/// descendants are open without walking all buckets.
#[must_use]
pub fn open(shard: Shard, period: Period) -> String {
    format!("mw:{{{shard}}}:open:{period}")
}

/// Hash of one life. The bucket's name follows.
#[must_use]
pub fn bucket_prefix(shard: Shard) -> String {
    format!("mw:{{{shard}}}:b:")
}

#[must_use]
pub fn bucket(shard: Shard, bucket: &Bucket) -> String {
    bucket_prefix(shard) + &bucket_name(bucket)
}

/// `<period>:<start>:<end>`, times in milliseconds.
#[must_use]
pub fn bucket_name(bucket: &Bucket) -> String {
    format!("{}:{}:{}", bucket.period, bucket.start, bucket.end)
}

/// The bucket of a name; `None` if it is not one of ours.
#[must_use]
pub fn parse_bucket_name(name: &str) -> Option<Bucket> {
    let mut parts = name.split(':');
    let bucket = Bucket {
        period: parts.next()?.parse().ok()?,
        start: parts.next()?.parse().ok()?,
        end: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(bucket)
}

/// Field of a source's state in a bucket.
#[must_use]
pub fn source_field(source: &str) -> String {
    format!("s:{source}")
}

/// The source of a state's field; `None` for the other fields of a bucket.
#[must_use]
pub fn parse_source_field(field: &str) -> Option<&str> {
    field.strip_prefix("s:")
}

/// Field of a writer's record in the head.
#[must_use]
pub fn writer_field(writer: WriterId) -> String {
    format!("w:{writer}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let month = Bucket { period: Period::Month, start: -5, end: 86_400_000 };
        assert_eq!(bucket_name(&month), "1mo:-5:86400000");
        assert_eq!(parse_bucket_name("1mo:-5:86400000"), Some(month));
        for name in ["", "1mo", "1mo:1", "1mo:1:2:3", "x:1:2", "1mo:a:2"] {
            assert_eq!(parse_bucket_name(name), None, "{name}");
        }
        assert_eq!(bucket(0, &bucket_of("1h:0:3600000")), "mw:{0}:b:1h:0:3600000");
        assert_eq!(parse_source_field(&source_field("a:b")), Some("a:b"));
        assert_eq!(parse_source_field("generation"), None);
    }

    fn bucket_of(name: &str) -> Bucket {
        parse_bucket_name(name).unwrap()
    }
}
