//! A client of the service that judges nothing: requests as text, answers as they came.
//!
//! Used by the tests from the outside. Clones share their connections. The short forms in which
//! tests ask for counts and rows are here too.

use crate::service::eventually;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longer than the service takes for any answer.
const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By name in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Sees that it is a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{self:?}");
        self
    }
}

impl Client {
    pub(crate) fn new(url: String) -> Self {
        Self::impatient(url, TIMEOUT)
    }

    /// A client that takes an answer for lost after so long.
    pub(crate) fn impatient(url: String, timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        Self { agent: config.timeout_global(Some(timeout)).build().new_agent(), url }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// An error is an answer that did not come.
    pub(crate) fn try_get(&self, path: &str) -> Result<Answer, ureq::Error> {
        received(self.agent.get(format!("{}{path}", self.url)).call()?)
    }

    /// Posts nothing, and does not go where the answer says.
    pub(crate) fn without_following(&self, path: &str) -> Answer {
        let request = self.agent.post(format!("{}{path}", self.url)).config().max_redirects(0).build();
        let answer = request.send_empty().map(received);
        answer.and_then(|answer| answer).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Posts nothing to any path.
    pub(crate) fn post_to(&self, path: &str) -> Answer {
        let answer = self.agent.post(format!("{}{path}", self.url)).send_empty().map(received);
        answer.and_then(|answer| answer).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Says something to a channel, which is encoded already.
    #[track_caller]
    pub(crate) fn publish(&self, channel: &str, message: &[u8]) -> Answer {
        let answer = self.agent.post(format!("{}/v1/publish?channel={channel}", self.url)).send(message).map(received);
        answer.and_then(|answer| answer).unwrap_or_else(|error| panic!("publish {channel}: {error}"))
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        let answer = self.agent.delete(format!("{}{path}", self.url)).call().map(received);
        answer.and_then(|answer| answer).unwrap_or_else(|error| panic!("DELETE {path}: {error}"))
    }

    /// Posts to `/v1/readings`; `query` is empty or begins with `?`. An error is an answer that did
    /// not come.
    pub(crate) fn try_post(&self, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}/v1/readings{query}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        received(request.send(body)?)
    }

    #[track_caller]
    pub(crate) fn post(&self, body: &str) -> Answer {
        self.try_post("", &[("Content-Type", "application/json")], body.as_bytes()).expect("an answer")
    }

    #[track_caller]
    pub(crate) fn post_keyed(&self, key: &str, body: &str) -> Answer {
        self.try_post("", &keyed(key), body.as_bytes()).expect("an answer")
    }

    /// Repeats a request under its key, as a client should, until it is counted.
    pub(crate) fn post_until_counted(&self, key: &str, body: &str) -> Answer {
        eventually(&format!("{key} is counted"), || match self.try_post("", &keyed(key), body.as_bytes()) {
            Ok(answer) if answer.status == 200 => Some(answer),
            Ok(answer) if matches!(answer.status, 503 | 504) => None,
            Ok(answer) => panic!("{answer:?}"),
            Err(_) => None,
        })
    }

    /// Any request; the body is sent where there is one.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = if body.is_empty() {
            self.agent.run(request.body(()).unwrap())
        } else {
            self.agent.run(request.body(body.to_owned()).unwrap())
        };
        let answer = sent.map(received).and_then(|answer| answer);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// All rows of a source, oldest first.
    pub(crate) fn rows(&self, source: &str, period: &str) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/stats?source={source}&period={period}{cursor}")).ok().json();
            rows.extend_from_slice(page["rows"].as_array().unwrap());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }

    /// Count and sum over all rows of a source; nothing if it is not known.
    pub(crate) fn total(&self, source: &str, period: &str) -> (u64, f64) {
        if self.get(&format!("/v1/stats?source={source}&period={period}")).status == 404 {
            return (0, 0.0);
        }
        let add = |(count, sum): (u64, f64), row: Value| {
            (count + row["count"].as_u64().unwrap(), sum + row["sum"].as_f64().unwrap())
        };
        self.rows(source, period).into_iter().fold((0, 0.0), add)
    }
}

fn keyed(key: &str) -> [(&str, &str); 2] {
    [("Content-Type", "application/json"), ("Idempotency-Key", key)]
}

fn received(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let text = |value: &ureq::http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let body = response.body_mut().with_config().limit(u64::MAX).read_to_string()?;
    Ok(Answer { status: response.status().as_u16(), headers, body })
}

/// A reading at the time of its arrival.
pub(crate) fn reading(source: &str, value: f64) -> String {
    format!(r#"{{"source":"{source}","value":{value}}}"#)
}

/// A reading at an instant or a date.
pub(crate) fn reading_at(source: &str, value: f64, time: &str) -> String {
    format!(r#"{{"source":"{source}","value":{value},"timestamp":"{time}"}}"#)
}

/// Readings as one array.
pub(crate) fn array(readings: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", readings.into_iter().collect::<Vec<_>>().join(","))
}
