//! The headers `Idempotency-Key` and `Idempotency-TTL`, and the fingerprint of what came with them.
//!
//! Used by `receive.rs` and `body.rs`. A key and a body are only ever kept as hashes; what they mean to the store
//! is in `store/mod.rs`. Without a key nothing is hashed.

use super::problem::{Kind, Problem};
use crate::ingest::commit::RequestKey;
use crate::stats::Millis;
use crate::store::MAX_IDEMPOTENCY_TTL;
use axum::http::{HeaderMap, HeaderValue};
use xxhash_rust::xxh3::Xxh3;

const KEY: &str = "Idempotency-Key";
const TTL: &str = "Idempotency-TTL";
/// Longest key: room for every usual id; it is hashed, so this bounds only the header.
const MAX_KEY_BYTES: usize = 255;

/// A key whose body is still arriving.
pub(super) struct Fingerprint {
    id: u128,
    ttl: Millis,
    content: Xxh3,
}

impl Fingerprint {
    /// Begins with the query; `None` if the request has no key. `scope` keeps the keys of different
    /// tokens apart, `least_ttl` is how long the service keeps a key anyway.
    pub(super) fn begin(
        headers: &HeaderMap,
        scope: &str,
        query: &str,
        least_ttl: Millis,
    ) -> Result<Option<Self>, Problem> {
        let ttl = single(headers, TTL)?.map_or(Ok(0), parse_ttl)?.max(least_ttl);
        let Some(key) = single(headers, KEY)? else { return Ok(None) };
        let key = key.as_bytes();
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
            return Err(invalid(format!("{KEY} must be 1 to {MAX_KEY_BYTES} visible ASCII characters")));
        }
        // Lengths before texts: no two pairs give the same bytes.
        let mut id = Xxh3::new();
        id.update(&(scope.len() as u64).to_le_bytes());
        id.update(scope.as_bytes());
        id.update(key);
        let mut content = Xxh3::new();
        content.update(&(query.len() as u64).to_le_bytes());
        content.update(query.as_bytes());
        Ok(Some(Self { id: id.digest128(), ttl, content }))
    }

    /// Takes the next piece of the body; how it is cut makes no difference.
    pub(super) fn update(&mut self, piece: &[u8]) {
        self.content.update(piece);
    }

    pub(super) fn finish(self) -> RequestKey {
        RequestKey { id: self.id, fingerprint: self.content.digest128(), ttl: self.ttl }
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(Kind::InvalidHeader, detail)
}

fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        _ => Err(invalid(format!("{name} is given more than once"))),
    }
}

/// Reads `3600`, `3600s`, `60m`, `2h` or `7d`.
fn parse_ttl(value: &HeaderValue) -> Result<Millis, Problem> {
    let text = value.to_str().unwrap_or_default().trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    // `parse` would take a sign.
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<Millis>().ok()).flatten();
    let ttl = number.zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    ttl.filter(|ttl| *ttl <= MAX_IDEMPOTENCY_TTL).ok_or_else(|| {
        let most = MAX_IDEMPOTENCY_TTL / 86_400_000;
        invalid(format!("{TTL} must be a number of seconds, or one with s, m, h or d, and at most {most}d"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = 3_600_000;

    fn begin(headers: &[(&'static str, &str)], scope: &str, query: &str) -> Result<Option<Fingerprint>, Problem> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Fingerprint::begin(&map, scope, query, HOUR)
    }

    fn key(key: &str, scope: &str, query: &str, pieces: &[&str]) -> RequestKey {
        let mut fingerprint = begin(&[("idempotency-key", key)], scope, query).unwrap().unwrap();
        for piece in pieces {
            fingerprint.update(piece.as_bytes());
        }
        fingerprint.finish()
    }

    #[test]
    fn keys() {
        let check = |headers: &[(&'static str, &str)], expected: Option<bool>| {
            let got = begin(headers, "", "").map(|key| key.is_some());
            assert_eq!(got.ok(), expected, "{headers:?}");
        };
        check(&[], Some(false));
        check(&[("idempotency-key", "a")], Some(true));
        check(&[("idempotency-key", &"k".repeat(255))], Some(true));
        check(&[("idempotency-key", &"k".repeat(256))], None);
        check(&[("idempotency-key", "")], None);
        check(&[("idempotency-key", "a b")], None);
        check(&[("idempotency-key", "ü")], None);
        check(&[("idempotency-key", "a"), ("idempotency-key", "a")], None);
    }

    #[test]
    fn times_to_live() {
        let check = |text: &str, expected: Option<Millis>| {
            let got = begin(&[("idempotency-key", "a"), ("idempotency-ttl", text)], "", "");
            assert_eq!(got.ok().map(|key| key.unwrap().finish().ttl), expected, "{text}");
        };
        check("7200", Some(2 * HOUR));
        check("7200s", Some(2 * HOUR));
        check("90m", Some(HOUR * 3 / 2));
        check("2h", Some(2 * HOUR));
        check("7d", Some(7 * 24 * HOUR));
        check("0", Some(HOUR));
        check("60", Some(HOUR));
        for text in
            ["604801", "8d", "", "d", "-1", "+1", "1.5h", "1 h", "1w", "99999999999999999999", "9223372036854775807d"]
        {
            check(text, None);
        }
    }

    #[test]
    fn the_same_request_has_the_same_hashes_and_no_other_has() {
        let one = key("k", "", "precision=s", &["abc", "def"]);
        assert_eq!(one, key("k", "", "precision=s", &["abcdef"]));
        let others = [
            (key("k", "", "precision=s", &["abcdeg"]), true),
            (key("k", "", "precision=ms", &["abcdef"]), true),
            (key("k", "", "precision=", &["sabcdef"]), true),
            (key("l", "", "precision=s", &["abcdef"]), false),
            (key("k", "token", "precision=s", &["abcdef"]), false),
            (key("bk", "a", "precision=s", &["abcdef"]), false),
        ];
        for (other, same_id) in others {
            assert_eq!(other.id == one.id, same_id, "{other:?}");
            assert_eq!(other.fingerprint == one.fingerprint, !same_id, "{other:?}");
        }
        assert_ne!(key("bk", "a", "", &[]).id, key("k", "ab", "", &[]).id);
    }
}
