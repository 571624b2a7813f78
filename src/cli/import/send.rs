//! Sends a batch until the service has acknowledged it.
//!
//! Called by `mod.rs`. Every attempt carries the same idempotency key, so a batch whose answer was
//! lost is not counted twice. What is wrong with the batch itself is not tried again.

use super::batches::Batch;
use crate::cli::client::{Client, ClientError};
use crate::clock;
use serde::Deserialize;
use std::time::Duration;

/// How long the service is asked to remember the keys: its longest.
const TTL: &str = "7d";
/// Doubled after every attempt, for a service that restarts ...
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// ... up to this, so that one that is back is noticed soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The service's acknowledgement.
#[derive(Debug, Deserialize)]
pub(super) struct Acknowledged {
    /// Readings that are counted now, also for a duplicate.
    pub accepted: u64,
    /// They had been counted before, by an earlier attempt or an earlier import.
    pub duplicate: bool,
    /// Readings that came after their bucket had closed; only where the service refuses those.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Rejected {
    /// From 1, in the batch.
    pub line: u64,
}

/// Sends a batch to `path`, again and again while the service cannot take it, for `retry_for` since it last
/// could; `None` is for ever. `say` is told once why it takes longer.
pub(super) fn send(
    client: &Client,
    path: &str,
    batch: &Batch,
    key: &str,
    retry_for: Option<Duration>,
    say: impl Fn(&str),
) -> Result<Acknowledged, ClientError> {
    let headers = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", key), ("Idempotency-TTL", TTL)];
    let started = clock::instant();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match client.post(path, &headers, &batch.body) {
            Ok(acknowledged) => return Ok(acknowledged),
            Err(error) if !may_pass(&error) => return Err(error),
            Err(error) => error,
        };
        let left = retry_for.map(|limit| limit.saturating_sub(clock::instant() - started));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(error);
        }
        if pause == FIRST_PAUSE {
            let how_long = left.map_or_else(
                || "until it is acknowledged".to_owned(),
                |left| format!("for {} s", left.as_secs_f64().ceil()),
            );
            say(&format!("{error}; trying again {how_long}"));
        }
        std::thread::sleep(left.map_or(pause, |left| pause.min(left)));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether the same request may be answered better later.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::NoServer(_) | ClientError::NoAnswer { .. } => true,
        // Too slow, too many, not now, outcome unknown; and what proxies say in between.
        ClientError::Problem(problem) => matches!(problem.status, 408 | 429 | 500 | 502..=504),
        ClientError::Distrusted { .. } | ClientError::Strange { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::serve;
    use crate::cli::import::batches::Batches;

    const TAKEN: (&str, &str) = ("200 OK", r#"{"accepted": 1, "duplicate": false, "durability": "disk"}"#);

    /// Many times what the pauses of these tests add up to.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Sends one batch to a service with these answers: what came of it, how often it was said that
    /// it takes longer, and the requests.
    fn attempt(
        answers: Vec<(&'static str, &'static str)>,
        retry_for: impl Into<Option<Duration>>,
    ) -> (Result<Acknowledged, ClientError>, usize, Vec<String>) {
        let (client, served) = serve(answers);
        let batch = Batches::ndjson("{\"source\": \"a\", \"value\": 1}\n".as_bytes()).next().unwrap().unwrap();
        let said = std::cell::Cell::new(0);
        let result = send(&client, "/v1/readings", &batch, "import-1", retry_for.into(), |_| said.set(said.get() + 1));
        (result, said.get(), served.requests())
    }

    #[test]
    fn a_batch_is_repeated_with_its_key_until_it_is_acknowledged() {
        let answers = vec![("503 Service Unavailable", "{}"), ("", ""), ("504 Gateway Timeout", "{}"), TAKEN];
        let (result, said, requests) = attempt(answers, None);
        assert_eq!((result.unwrap().accepted, said, requests.len()), (1, 1, 4));
        for request in &requests {
            assert!(request.starts_with("POST /prefix/v1/readings HTTP/1.1\r\n"), "{request}");
            for header in ["content-type: application/x-ndjson", "idempotency-key: import-1", "idempotency-ttl: 7d"] {
                assert!(request.to_lowercase().contains(header), "{request}");
            }
            assert!(request.ends_with("\r\n\r\n{\"source\": \"a\", \"value\": 1}\n"), "{request}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_batch_is_not_repeated() {
        for status in ["400 Bad Request", "413 Content Too Large", "422 Unprocessable Content"] {
            let (result, said, requests) = attempt(vec![(status, "{}")], PATIENCE);
            assert!(matches!(result, Err(ClientError::Problem(_))));
            assert_eq!((said, requests.len()), (0, 1), "{status}");
        }
    }

    #[test]
    fn patience_ends() {
        let (result, said, _) = attempt(vec![("503 Service Unavailable", r#"{"title": "Busy"}"#)], Duration::ZERO);
        assert_eq!((result.unwrap_err().to_string().as_str(), said), ("Busy (503)", 0));
    }
}
