//! `POST /v1/readings`: takes a batch of readings and answers once the store has them.
//!
//! What arrives is read and decoded in `receive.rs`; here the parts go to the committer and the
//! answer is worded. A batch is all or nothing for bad lines unless `?on_error=skip`.

use super::Service;
use super::allowed::allow;
use super::auth::Caller;
use super::body::drain;
use super::nodes::no_ingest;
use super::problem::{Problem, line_errors};
use super::receive::{Received, Sent, receive};
use super::server::Held;
use crate::failpoint;
use crate::ingest::commit::{Committed, Request};
use crate::ingest::decode::Decoded;
use crate::store::{Acks, Durability, Store};
use crate::telemetry::metrics;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// The answer of a batch that the store has.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Accepted {
    /// Readings that are counted, now or before.
    #[serde(rename = "accepted")]
    counted: usize,
    /// All of it had been counted before, under the same Idempotency-Key.
    duplicate: bool,
    /// What the acknowledgement is worth: disk, seconds, memory or unknown.
    durability: String,
    /// `replica` if at least one replica of the store has the readings too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "replica")]
    acks: Option<String>,
    /// What was sent and is no reading: empty cells of a wide table, and bad lines where they are skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<usize>,
    /// The first 100 bad lines among the skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<super::openapi::LineError>>)]
    errors: Option<Value>,
    /// Under `late = refuse`: the readings that came too late.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Rejected>,
}

/// A reading that was not counted although nothing is wrong with it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Rejected {
    line: usize,
    code: &'static str,
}

#[utoipa::path(post, path = "/v1/readings", tag = "readings",
    params(
        ("precision" = Option<String>, Query, description = "Unit of timestamps that are numbers: s, ms (default), us, ns"),
        ("on_error" = Option<String>, Query, description = "refuse (default): one bad line refuses the batch; skip: counts the others"),
        ("time" = Option<String>, Query, description = "text/csv: the column that holds the time, or now; a wide table needs it"),
        ("source" = Option<String>, Query, description = "text/csv, wide: template of the source ids, {place}.{column}; needs values"),
        ("values" = Option<String>, Query, description = "text/csv, wide: the columns that hold values, separated by commas; needs source"),
        ("Content-Encoding" = Option<String>, Header, pattern = "^(gzip|zstd|identity)$", description = "How the body is compressed"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "1 to 255 visible ASCII characters, new for each batch: repeated with it, a request counts once"),
        ("Idempotency-TTL" = Option<String>, Header, pattern = "^[0-9]+[smhd]?$", description = "How long the key is kept at least: 3600, 60m, 2h, at most 7d"),
    ),
    request_body(description = "One reading or an array of them; one per line with application/x-ndjson; a table with text/csv", content(
        (super::openapi::Readings = "application/json"),
        (String = "application/x-ndjson"),
        (String = "text/csv"),
    )),
    responses((status = 200, description = "The store has the readings", body = Accepted)),
)]
pub(super) async fn post(
    State(service): State<Service>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    held: Option<Extension<Arc<Held>>>,
    body: Body,
) -> Result<Json<Accepted>, Problem> {
    if !service.role.takes_readings() {
        drain(&headers, &mut body.into_data_stream()).await;
        return Err(no_ingest(&service.nodes));
    }
    let now = service.clock.now();
    let sent = Sent { caller: &caller, uri: &uri, headers: &headers, held: held.as_deref() };
    let received = receive(&service.calendar, service.store.policy(), now, sent, body).await?;
    let Received { mut decoded, key, skip_bad_lines } = received;
    if let Some(sender) = caller.identity() {
        allow(sender, &decoded, &service.query).await?;
    }
    failpoint::pass("decoded");
    let committed = if decoded.readings == 0 {
        Committed { duplicate: false, too_late: Vec::new() }
    } else {
        let parts = std::mem::take(&mut decoded.parts);
        service.committer.commit(Request { parts, key }).await?
    };
    failpoint::pass("answering");
    let mut answer = answer(&decoded, skip_bad_lines, &committed, service.store.durability());
    answer.acks = acks(&*service.store);
    metrics::readings_counted(answer.counted, answer.duplicate, answer.rejected.len());
    Ok(Json(answer))
}

/// Not said where it is the store alone.
pub(super) fn acks(store: &dyn Store) -> Option<String> {
    Some(store.acks()).filter(|acks| *acks != Acks::Store).map(|acks| acks.to_string())
}

fn answer(decoded: &Decoded, skip_bad_lines: bool, committed: &Committed, durability: Durability) -> Accepted {
    let rejected = decoded.lines.as_ref().map_or_else(Vec::new, |lines| lines.of(&committed.too_late));
    let skipped = decoded.error_count + decoded.empty;
    Accepted {
        counted: decoded.readings - rejected.len(),
        duplicate: committed.duplicate,
        durability: durability.to_string(),
        acks: None,
        skipped: (skip_bad_lines || skipped > 0).then_some(skipped),
        errors: skip_bad_lines.then(|| line_errors(&decoded.errors)),
        rejected: rejected.into_iter().map(|line| Rejected { line, code: "too_late" }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::decode::{LineError, MAX_ERRORS};
    use crate::ingest::fold::Folder;
    use crate::stats::calendar::{Calendar, Period, Zone};

    /// Four readings: lines 1, 2 and 5 in the first minute, 4 in the second; line 3 is bad.
    fn decoded() -> Decoded {
        let calendar = Calendar::new(vec![Period::Seconds(60)], Zone::utc()).unwrap();
        let mut folder = Folder::with_lines(&calendar);
        for (line, time) in [(1, 0), (2, 1), (4, 60_000), (5, 2)] {
            folder.at_line(line);
            folder.push("a", 1.0, time).unwrap();
        }
        let (parts, lines) = folder.finish_with_lines();
        let errors =
            vec![LineError { line: 3, field: Some("value".to_owned()), reason: "value is missing".to_owned() }];
        Decoded { parts, readings: 4, span: Some((0, 60_000)), errors, error_count: MAX_ERRORS + 1, empty: 0, lines }
    }

    #[track_caller]
    fn check(skip: bool, duplicate: bool, too_late: &[(usize, usize)], expected: &str) {
        let committed = Committed { duplicate, too_late: too_late.to_vec() };
        // Without skipping no batch comes so far that has bad lines.
        let error_count = if skip { MAX_ERRORS + 1 } else { 0 };
        let answer = answer(&Decoded { error_count, ..decoded() }, skip, &committed, Durability::Disk);
        assert_eq!(serde_json::to_string(&answer).unwrap(), expected);
    }

    #[test]
    fn empty_cells_are_said_without_errors() {
        let decoded = Decoded { errors: Vec::new(), error_count: 0, empty: 3, ..decoded() };
        let committed = Committed { duplicate: false, too_late: Vec::new() };
        let answer = answer(&decoded, false, &committed, Durability::Disk);
        let expected = r#"{"accepted":4,"duplicate":false,"durability":"disk","skipped":3}"#;
        assert_eq!(serde_json::to_string(&answer).unwrap(), expected);
    }

    #[test]
    fn answers() {
        check(false, false, &[], r#"{"accepted":4,"duplicate":false,"durability":"disk"}"#);
        check(false, true, &[], r#"{"accepted":4,"duplicate":true,"durability":"disk"}"#);
        check(
            true,
            false,
            &[],
            r#"{"accepted":4,"duplicate":false,"durability":"disk","skipped":101,"errors":[{"field":"value","line":3,"reason":"value is missing"}]}"#,
        );
        check(
            false,
            false,
            &[(0, 0)],
            r#"{"accepted":1,"duplicate":false,"durability":"disk","rejected":[{"line":1,"code":"too_late"},{"line":2,"code":"too_late"},{"line":5,"code":"too_late"}]}"#,
        );
    }
}
