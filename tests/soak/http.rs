//! Requests to the service, of which any may end without an answer.
//!
//! Used by the clients and by the reader, each with connections of its own.

use serde_json::Value;
use std::time::Duration;

/// Shorter than the service may take, so that a request is also repeated while it is under way.
const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) struct Http(ureq::Agent);

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Http {
    pub(crate) fn new() -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        Self(config.timeout_global(Some(TIMEOUT)).build().new_agent())
    }

    /// `None` if no answer came.
    pub(crate) fn get(&self, port: u16, path: &str) -> Option<Answer> {
        received(self.0.get(format!("http://127.0.0.1:{port}{path}")).call())
    }

    /// Posts lines of readings under a key; `None` if no answer came.
    pub(crate) fn post(&self, port: u16, key: &str, lines: &str) -> Option<Answer> {
        let request = self.0.post(format!("http://127.0.0.1:{port}/v1/readings"));
        let request = request.header("Content-Type", "application/x-ndjson").header("Idempotency-Key", key);
        received(request.send(lines))
    }

    /// Count and sum of a source over all rows of a period; `None` if that cannot be said just now.
    pub(crate) fn total(&self, port: u16, source: &str, period: &str) -> Option<(u64, u64)> {
        let (mut total, mut cursor) = ((0, 0), String::new());
        loop {
            let answer = self.get(port, &format!("/v1/stats?source={source}&period={period}{cursor}"))?;
            if answer.status == 404 {
                return Some((0, 0));
            }
            let page = answer.json();
            if answer.status != 200 || page["partial"] == true {
                return None;
            }
            for row in page["rows"].as_array()? {
                total.0 += row["count"].as_u64()?;
                total.1 += row["sum"].as_f64()? as u64;
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Some(total),
            }
        }
    }
}

fn received(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<Answer> {
    let mut answer = answer.ok()?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(u64::MAX).read_to_string().ok()?;
    Some(Answer { status, body })
}
