//! `GET /v1/stream`: channels as Server-Sent Events.
//!
//! Called by the route table; who hears what is the hub's (`live/`). Guarantees: the answer begins when every channel
//! is heard, so that what is published after its first event comes; a line every [`HEARTBEAT`] tells proxies
//! and clients that both sides are alive; the stream ends with the service.

use super::Service;
use super::auth::{Caller, PARAMETER, not_heard};
use super::nodes::with_the_sink;
use super::parameters::{Parameters, refuse};
use super::problem::{Kind, Problem};
use super::standing::Standing;
use crate::failpoint;
use crate::live::channel::Channel;
use crate::live::outbox::{Body, Frame};
use crate::live::{Client, LiveError, Pace, PaceError, Position, PositionError, Terms, Transport};
use crate::stats::timestamp;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

pub(super) const PARAMETERS: [&str; 4] = ["channel", "since", "rate_ms", PARAMETER];
/// What a browser that comes back says; stronger than the parameter, which is of its first time.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Shorter than the shortest read timeout of proxies in use, 30 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What a browser waits, in milliseconds, before it comes back.
const RETRY: u32 = 2_000;
/// Nginx would collect events until it has a buffer full of them.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

#[utoipa::path(get, path = "/v1/stream", tag = "live",
    params(
        ("channel" = Vec<String>, Query, example = json!(["live:kitchen"]),
        description = "Up to 100, repeated: live:SOURCE for the present buckets of a source, closed:SOURCE or closed:PATTERN for rows as they are written, silent:SOURCE or silent:PATTERN for sources that fall silent, any other name for what is published there"),
        ("since" = Option<String>, Query, description = "The id of the last `closed` event that was heard: those behind it come first"),
        ("rate_ms" = Option<u64>, Query, example = json!(1000), description = "Present rows no more often than once in so many milliseconds, the newest then; 250 to 3,600,000"),
        ("token" = Option<String>, Query, description = "For clients that cannot set the header Authorization, as browsers with an EventSource"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, as browsers say it"),
    ),
    responses((status = 200, content_type = "text/event-stream", body = String,
        description = "Server-Sent Events: welcome, then live, closed, silent, back, message, recovered and gap, each with JSON as its data")),
)]
pub(super) async fn stream(
    State(service): State<Service>,
    caller: Caller,
    raw: RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(&raw, &PARAMETERS, "channel")?;
    let names = parameters.all("channel");
    if names.is_empty() {
        return Err(refuse("channel", "it is missing: write ?channel=live:SOURCE, or the name of a channel"));
    }
    let terms = Terms { since: since(&parameters, &headers)?, pace: pace(&parameters)? };
    let named =
        |name: &&str| Channel::subscribed(name).map_err(|error| refuse("channel", &format!("\"{name}\": {error}")));
    let channels = names.iter().map(named).collect::<Result<Vec<Channel>, Problem>>()?;
    caller.needs_channels(&channels)?;
    let mut client = service.hub.connect(Transport::Events);
    let subscribed = client.subscribe(channels.clone(), &terms).await;
    subscribed.map_err(|error| with_the_sink(failed(&error), &service.nodes))?;
    let welcome = event("welcome", &json!({"instance": service.instance.to_string()}).to_string());
    let first = Bytes::from(format!("retry: {RETRY}\n{}", String::from_utf8_lossy(&welcome)));
    let listening = Listening { client, channels, standing: Some(Standing::new(&service.guard, caller)) };
    let events = stream::unfold((listening, Some(first)), |(mut listening, first)| async {
        let event = match first {
            Some(first) => first,
            None => listening.next().await?,
        };
        Some((Ok::<_, Infallible>(event), (listening, None)))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store"), (UNBUFFERED, "no")];
    Ok((headers, HttpBody::from_stream(events)).into_response())
}

/// Where a client that comes back stopped.
fn since(parameters: &Parameters, headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let header = headers.get(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()));
    let Some(id) = header.as_deref().or(parameters.one("since")).filter(|id| !id.is_empty()) else { return Ok(None) };
    let refused = |error: PositionError| refuse("since", &format!("\"{id}\": {error}"));
    id.parse().map(Some).map_err(refused)
}

/// How often it wants the present rows.
fn pace(parameters: &Parameters) -> Result<Option<Pace>, Problem> {
    let Some(rate) = parameters.one("rate_ms") else { return Ok(None) };
    let pace = rate.parse().map_err(|_| PaceError).and_then(Pace::of_millis);
    pace.map(Some).map_err(|error| refuse("rate_ms", &format!("\"{rate}\": {error}")))
}

/// One who listens.
struct Listening {
    client: Client,
    channels: Vec<Channel>,
    /// `None` if there are no rights any more: it was said, and this is the end.
    standing: Option<Standing>,
}

impl Listening {
    /// The next event, or a sign of life; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let pause = sleep(HEARTBEAT);
        tokio::pin!(pause);
        loop {
            let standing = self.standing.as_mut()?;
            tokio::select! {
                frame = self.client.next() => {
                    failpoint::trip("event-sent");
                    return Some(encoded(&*frame?));
                }
                changed = standing.changed() => {
                    let refused = match changed {
                        Ok(()) => self.refuse_channels(),
                        Err(denied) => {
                            self.standing = None;
                            Some(refused(None, &denied.to_string()))
                        }
                    };
                    if refused.is_some() {
                        return refused;
                    }
                }
                () = &mut pause => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }

    /// Leaves the channels that may not be heard any more, and says so.
    fn refuse_channels(&mut self) -> Option<Bytes> {
        let caller = self.standing.as_ref()?.caller();
        let (kept, left): (Vec<Channel>, Vec<Channel>) =
            self.channels.drain(..).partition(|channel| caller.may_hear(channel));
        self.channels = kept;
        for channel in &left {
            self.client.unsubscribe(channel);
        }
        if self.channels.is_empty() {
            self.standing = None;
        }
        let events: Vec<Bytes> = left.iter().map(|channel| refused(Some(channel), &not_heard(channel))).collect();
        (!events.is_empty()).then(|| events.concat().into())
    }
}

fn refused(channel: Option<&Channel>, reason: &str) -> Bytes {
    let channel = channel.map(ToString::to_string);
    event("refused", &json!({"channel": channel, "reason": reason}).to_string())
}

/// The event of a frame, made once for all its clients.
fn encoded(frame: &Frame) -> Bytes {
    frame.event.get_or_init(|| encode(&frame.channel, &frame.body)).clone()
}

fn encode(channel: &Arc<str>, body: &Body) -> Bytes {
    match body {
        Body::Message(message) => {
            let text = String::from_utf8_lossy(message);
            event("message", &json!({"channel": **channel, "message": text}).to_string())
        }
        Body::Live(rows) => {
            let rows = std::str::from_utf8(rows).expect("rows are JSON");
            event("live", &format!(r#"{{"channel":{},"rows":{rows}}}"#, json!(**channel)))
        }
        Body::Closed { row, position } => {
            let row = std::str::from_utf8(row).expect("rows are JSON");
            let row = row.strip_prefix('[').and_then(|row| row.strip_suffix(']')).expect("an array of one");
            let data = format!(r#"{{"channel":{},"row":{row}}}"#, json!(**channel));
            [format!("id: {position}\n").as_bytes(), &event("closed", &data)].concat().into()
        }
        Body::Silence { source, since, so_long, back } => {
            let data = json!({"channel": **channel, "source": **source, "since": timestamp::format(*since), "for_ms": so_long});
            event(if *back { "back" } else { "silent" }, &data.to_string())
        }
        Body::Recovered(all) => event("recovered", &json!({"channel": **channel, "recovered": all}).to_string()),
        Body::Gap(missed) => {
            let missed = (*missed > 0).then_some(*missed);
            event("gap", &json!({"channel": **channel, "missed": missed}).to_string())
        }
    }
}

/// `data` is JSON, which has no line breaks.
fn event(name: &str, data: &str) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// The answer to a client that cannot listen or speak.
pub(super) fn failed(error: &LiveError) -> Problem {
    match error {
        LiveError::TooMany | LiveError::TooManyPatterns | LiveError::NoSilence => refuse("channel", &error.to_string()),
        LiveError::NoSink => Problem::new(Kind::NoSink, error.to_string()),
        LiveError::Store(_) => Problem::new(Kind::Unavailable, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_made_of_lines() {
        let check = |body: Body, expected: &str| {
            let event = encode(&"a\"b".into(), &body);
            assert_eq!(std::str::from_utf8(&event).unwrap(), expected);
        };
        let message = |bytes: &'static [u8]| Body::Message(Bytes::from_static(bytes));
        check(message(b"two\nlines"), "event: message\ndata: {\"channel\":\"a\\\"b\",\"message\":\"two\\nlines\"}\n\n");
        check(message(b"\xff"), "event: message\ndata: {\"channel\":\"a\\\"b\",\"message\":\"\u{fffd}\"}\n\n");
        check(Body::Live(Bytes::from_static(b"[]")), "event: live\ndata: {\"channel\":\"a\\\"b\",\"rows\":[]}\n\n");
        check(Body::Gap(3), "event: gap\ndata: {\"channel\":\"a\\\"b\",\"missed\":3}\n\n");
        check(Body::Gap(0), "event: gap\ndata: {\"channel\":\"a\\\"b\",\"missed\":null}\n\n");
    }
}
