//! Receives a batch of readings: query, headers, body, up to the parts that can be committed.
//!
//! Called by `readings.rs`; decodes with `ingest/decode/` and knows neither committer nor store. It
//! guarantees that decoding never holds a runtime thread for long: lines and rows are decoded piece
//! by piece, a large array on a thread of its own. What bounds a body is in `body.rs`.

use super::allowed::too_fast;
use super::auth::Caller;
use super::body::{Arriving, BODY_TIMEOUT, drain, refuse_by_headers, within};
use super::encoding::encoding;
use super::idempotency::Fingerprint;
use super::parameters::{Parameters, refuse};
use super::problem::{Kind, Problem};
use super::server::Held;
use crate::auth::Identity;
use crate::clock;
use crate::failpoint;
use crate::incidents;
use crate::ingest::commit::RequestKey;
use crate::ingest::decode::columns::{Shape, Wide};
use crate::ingest::decode::csv::Csv;
use crate::ingest::decode::ndjson::Ndjson;
use crate::ingest::decode::time::{Precision, Times};
use crate::ingest::decode::{Batch, DecodeError, Decoded, json};
use crate::stats::Millis;
use crate::stats::calendar::Calendar;
use crate::store::{Late, Policy};
use crate::telemetry::metrics;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::RawQuery;
use axum::http::{HeaderMap, Uri, header};
use std::sync::Arc;

/// The last three describe a table.
pub(super) const PARAMETERS: [&str; 5] = ["precision", "on_error", "time", "source", "values"];
/// Lines are decoded in pieces of this size, each less than a millisecond, with other tasks between.
const PIECE_BYTES: usize = 64 * 1024;
/// An array larger than this is decoded on a thread for blocking work; a smaller one takes about as
/// long as changing threads is worth.
const INLINE_JSON_BYTES: usize = 256 * 1024;

/// Blanks that are passed over to see the first character of a body without a type: more than stand
/// before any text.
const MOST_BLANKS: usize = 64 * 1024;

const TYPES: &str = "send application/json, application/x-ndjson or text/csv";

/// What the query string asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    precision: Precision,
    skip_bad_lines: bool,
    /// Of a table; the default for everything else.
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Ndjson,
    Csv,
}

/// A decoder that takes a body as it arrives.
enum Lines<'c> {
    Ndjson(Box<Ndjson<'c>>),
    Csv(Box<Csv<'c>>),
}

impl<'c> Lines<'c> {
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        match self {
            Self::Ndjson(lines) => lines.feed(piece),
            Self::Csv(rows) => rows.feed(piece),
        }
    }

    fn finish(self) -> Result<Batch<'c>, DecodeError> {
        match self {
            Self::Ndjson(lines) => lines.finish(),
            Self::Csv(rows) => rows.finish(),
        }
    }
}

/// A request that has arrived and is fit to be committed.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) decoded: Decoded,
    pub(super) key: Option<RequestKey>,
    pub(super) skip_bad_lines: bool,
}

/// A request without its body.
#[derive(Clone, Copy)]
pub(super) struct Sent<'r> {
    pub(super) caller: &'r Caller,
    pub(super) uri: &'r Uri,
    pub(super) headers: &'r HeaderMap,
    pub(super) held: Option<&'r Arc<Held>>,
}

/// Everything that comes before the store.
pub(super) async fn receive(
    calendar: &Arc<Calendar>,
    policy: Policy,
    now: Millis,
    sent: Sent<'_>,
    body: Body,
) -> Result<Received, Problem> {
    let mut body = body.into_data_stream();
    let received = read(calendar, policy, now, sent, &mut body).await;
    if received.is_err() {
        drain(sent.headers, &mut body).await;
    }
    received
}

async fn read(
    calendar: &Arc<Calendar>,
    policy: Policy,
    now: Millis,
    sent: Sent<'_>,
    body: &mut BodyDataStream,
) -> Result<Received, Problem> {
    let Sent { caller, uri, headers, held } = sent;
    let sender = caller.identity();
    if let Some(sender) = sender {
        // Before all the work.
        sender.allowance.take(0, clock::instant()).map_err(too_fast)?;
    }
    let options = options(uri)?;
    let query = uri.query().unwrap_or_default();
    let mut fingerprint = Fingerprint::begin(headers, caller.key_scope(), query, policy.idempotency_ttl)?;
    let encoding = encoding(headers)?;
    refuse_by_headers(headers)?;
    let keep_lines = policy.late == Late::Refuse;
    let decoding = async {
        let mut arriving = Arriving::new(body, held, encoding, fingerprint.as_mut());
        let first = beginning(headers, &mut arriving).await?;
        let format = format(headers, &first)?;
        if format != Format::Csv && options.shape != Shape::default() {
            let name = if options.shape.wide.is_some() { "source" } else { "time" };
            return Err(refuse(name, "it describes a table: send it as Content-Type: text/csv"));
        }
        let batch = || batch(calendar, now, options.precision, keep_lines).from(sender.map(|sender| &**sender));
        match format {
            Format::Ndjson => decode_lines(Lines::Ndjson(Box::new(Ndjson::new(batch()))), first, arriving).await,
            Format::Csv => {
                let rows = Csv::new(batch(), options.shape.clone());
                decode_lines(Lines::Csv(Box::new(rows)), first, arriving).await
            }
            Format::Json => {
                let body = arriving.collect(first).await?;
                let times = (now, options.precision);
                decode_json(Arc::clone(calendar), times, keep_lines, sender.cloned(), body).await
            }
        }
    };
    let decoded = within(BODY_TIMEOUT, decoding).await?;
    metrics::readings_refused(decoded.error_count);
    if decoded.error_count > 0 && !options.skip_bad_lines {
        return Err(Problem::invalid_readings(&decoded.errors, decoded.error_count));
    }
    Ok(Received { decoded, key: fingerprint.map(Fingerprint::finish), skip_bad_lines: options.skip_bad_lines })
}

fn batch(calendar: &Calendar, now: Millis, precision: Precision, keep_lines: bool) -> Batch<'_> {
    Batch::new(calendar, Times { zone: calendar.zone(), now, precision }, keep_lines)
}

fn options(uri: &Uri) -> Result<Options, Problem> {
    let parameters = Parameters::read(&RawQuery(uri.query().map(str::to_owned)), &PARAMETERS, "")?;
    let precision = parameters.one("precision").map(str::parse).transpose();
    let skip_bad_lines = match parameters.one("on_error") {
        None | Some("refuse") => false,
        Some("skip") => true,
        Some(other) => return Err(refuse("on_error", &format!("\"{other}\" is not known: write skip or refuse"))),
    };
    let precision = precision.map_err(|reason: String| refuse("precision", &reason))?.unwrap_or_default();
    let source = parameters.one("source").map(str::parse).transpose();
    let wide = match (source.map_err(|reason: String| refuse("source", &reason))?, parameters.one("values")) {
        (Some(source), Some(values)) => Some(Wide { source, values: values.split(',').map(str::to_owned).collect() }),
        (None, None) => None,
        (None, _) => return Err(refuse("source", "it is missing: a wide table needs source=TEMPLATE beside values")),
        (_, None) => return Err(refuse("values", "it is missing: a wide table needs values=COLUMNS beside source")),
    };
    let time = parameters.one("time").map(str::to_owned);
    Ok(Options { precision, skip_bad_lines, shape: Shape { time, wide } })
}

/// The first chunk of a body; where the first character has to tell the format, as much as it takes to
/// see it.
async fn beginning(headers: &HeaderMap, arriving: &mut Arriving<'_>) -> Result<Bytes, Problem> {
    let first = arriving.next().await?.unwrap_or_default();
    let is_blank = |chunk: &[u8]| chunk.trim_ascii_start().is_empty();
    if !is_blank(&first) || format(headers, b"{").ok() == format(headers, b"").ok() {
        return Ok(first);
    }
    let mut held = Vec::from(first);
    while held.len() <= MOST_BLANKS {
        let Some(chunk) = arriving.next().await? else { break };
        held.extend_from_slice(&chunk);
        if !is_blank(&chunk) {
            break;
        }
    }
    Ok(held.into())
}

/// The format by Content-Type; where a client names none, as `curl -d` does, by the first character.
fn format(headers: &HeaderMap, first: &[u8]) -> Result<Format, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let essence = content_type.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let looks_like_json = matches!(first.trim_ascii_start().first(), Some(b'{' | b'['));
    match essence.as_deref() {
        Some("application/json") => Ok(Format::Json),
        Some("application/x-ndjson") => Ok(Format::Ndjson),
        Some("text/csv") => Ok(Format::Csv),
        None | Some("application/x-www-form-urlencoded") if looks_like_json => Ok(Format::Json),
        None => {
            let detail = format!("the request has no Content-Type and its body is no JSON: {TYPES}");
            Err(Problem::new(Kind::UnsupportedContentType, detail))
        }
        Some(other) => {
            Err(Problem::new(Kind::UnsupportedContentType, format!("\"{other}\" is not supported: {TYPES}")))
        }
    }
}

async fn decode_lines(mut decoder: Lines<'_>, first: Bytes, mut arriving: Arriving<'_>) -> Result<Decoded, Problem> {
    let mut next = Some(first);
    let mut since_yield = 0;
    while let Some(chunk) = next {
        for piece in chunk.chunks(PIECE_BYTES) {
            decoder.feed(piece)?;
            since_yield += piece.len();
            if since_yield >= PIECE_BYTES {
                since_yield = 0;
                tokio::task::yield_now().await;
            }
        }
        next = arriving.next().await?;
    }
    Ok(decoder.finish()?.finish())
}

async fn decode_json(
    calendar: Arc<Calendar>,
    (now, precision): (Millis, Precision),
    keep_lines: bool,
    sender: Option<Arc<Identity>>,
    body: Bytes,
) -> Result<Decoded, Problem> {
    let large = body.len() > INLINE_JSON_BYTES;
    let decode = move || {
        failpoint::trip("body-decoding");
        let mut batch = batch(&calendar, now, precision, keep_lines).from(sender.as_deref());
        json::decode(&body, &mut batch).map(|()| batch.finish())
    };
    if !large {
        return Ok(decode()?);
    }
    let stopping = |_| Problem::new(Kind::NotApplied, "the program is stopping; nothing was counted, try again");
    Ok(incidents::blocking(decode).await.map_err(stopping)??)
}

#[cfg(test)]
mod tests {
    use super::super::body::MAX_BODY_BYTES;
    use super::*;
    use crate::stats::calendar::{Period, Zone};
    use axum::http::{HeaderName, HeaderValue, StatusCode};
    use axum::response::IntoResponse;
    use futures_util::{StreamExt, stream};
    use std::convert::Infallible;

    const READING: &str = r#"{"source":"a","value":1}"#;

    async fn receive_in(
        late: Late,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Result<Received, Problem> {
        let calendar = Arc::new(Calendar::new(vec![Period::Seconds(60)], Zone::utc()).unwrap());
        let policy = Policy { grace: 5_000, lateness: 60_000, late, idempotency_ttl: 3_600_000 };
        let header =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        let headers = headers.iter().map(header).collect();
        let now = 1_795_150_800_000;
        let (caller, uri) = (&Caller::Everybody, &uri.parse().unwrap());
        receive(&calendar, policy, now, Sent { caller, uri, headers: &headers, held: None }, body.into()).await
    }

    /// Readings and bad lines of a received request, or status and detail of the problem.
    async fn outcome(
        uri: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> Result<(usize, usize), (StatusCode, String)> {
        let headers: &[(&str, &str)] = if content_type.is_empty() { &[] } else { &[("content-type", content_type)] };
        match receive_in(Late::Reopen, uri, headers, body).await {
            Ok(received) => Ok((received.decoded.readings, received.decoded.error_count)),
            Err(problem) => Err((problem.clone().into_response().status(), problem.detail().to_owned())),
        }
    }

    async fn check(uri: &str, content_type: &str, body: &str, expected: (usize, usize)) {
        assert_eq!(outcome(uri, content_type, body.to_owned()).await, Ok(expected), "{uri} {content_type} {body}");
    }

    async fn check_refused(uri: &str, content_type: &str, body: impl Into<Body>, status: u16, detail: &str) {
        let (got, text) = outcome(uri, content_type, body).await.unwrap_err();
        assert_eq!((got.as_u16(), text.as_str()), (status, detail), "{uri} {content_type}");
    }

    #[tokio::test]
    async fn the_format_follows_the_content_type() {
        let (array, lines) = (format!("[{READING},{READING}]"), format!("{READING}\n{READING}\n"));
        check("/", "application/json", &array, (2, 0)).await;
        check("/", "Application/JSON; charset=utf-8", READING, (1, 0)).await;
        check("/", "application/x-ndjson", &lines, (2, 0)).await;
        check("/", "application/x-www-form-urlencoded", &array, (2, 0)).await;
        check("/", "", &format!("\n {READING}"), (1, 0)).await;
        check("/", "application/json", "[]", (0, 0)).await;
        check("/", "application/x-ndjson", "", (0, 0)).await;
        let known = TYPES;
        check_refused("/", "text/plain", READING, 415, &format!("\"text/plain\" is not supported: {known}")).await;
        let form = format!("\"application/x-www-form-urlencoded\" is not supported: {known}");
        check_refused("/", "application/x-www-form-urlencoded", "source=a", 415, &form).await;
        let none = format!("the request has no Content-Type and its body is no JSON: {TYPES}");
        check_refused("/", "", "source,value", 415, &none).await;
        check_refused("/", "", "", 415, &none).await;
    }

    #[tokio::test]
    async fn an_empty_chunk_says_nothing_about_the_format() {
        let chunks = ["", READING].map(|chunk| Ok::<_, Infallible>(Bytes::from_static(chunk.as_bytes())));
        assert_eq!(outcome("/", "", Body::from_stream(stream::iter(chunks))).await, Ok((1, 0)));
    }

    #[tokio::test]
    async fn blanks_before_the_first_character_may_come_by_themselves() {
        let check = async |blanks: usize, content_type: &str, expected: Result<(usize, usize), u16>| {
            let chunks = std::iter::repeat_n("\n", blanks).chain([READING]);
            let chunks = chunks.map(|chunk| Ok::<_, Infallible>(Bytes::from_static(chunk.as_bytes())));
            let got = outcome("/", content_type, Body::from_stream(stream::iter(chunks.collect::<Vec<_>>()))).await;
            assert_eq!(got.map_err(|(status, _)| status.as_u16()), expected, "{blanks} {content_type}");
        };
        check(3, "", Ok((1, 0))).await;
        check(3, "application/x-www-form-urlencoded", Ok((1, 0))).await;
        check(3, "text/plain", Err(415)).await;
        check(MOST_BLANKS, "", Ok((1, 0))).await;
        check(MOST_BLANKS + 1, "", Err(415)).await;
        check(MOST_BLANKS + 1, "application/x-ndjson", Ok((1, 0))).await;
    }

    #[tokio::test]
    async fn one_bad_line_refuses_the_batch_unless_skipped() {
        let lines = format!("{READING}\nx\n{READING}\n");
        check("/?on_error=skip", "application/x-ndjson", &lines, (2, 1)).await;
        let refused = "1 line is invalid, nothing was counted; ?on_error=skip counts the others";
        check_refused("/", "application/x-ndjson", lines, 400, refused).await;
        let array = format!("[5,{READING},5]");
        check("/?on_error=skip", "application/json", &array, (1, 2)).await;
        let refused = "2 lines are invalid, nothing was counted; ?on_error=skip counts the others";
        check_refused("/?on_error=refuse", "application/json", array, 400, refused).await;
    }

    #[tokio::test]
    async fn tables() {
        check("/", "text/csv", "source,value\na,1\nb,2\n", (2, 0)).await;
        check(
            "/?on_error=skip&precision=s",
            "Text/CSV; header=present",
            "source,value,timestamp\na,1,1795150800\nb,x,1\n",
            (1, 1),
        )
        .await;
        check("/?time=t&source={p}.{column}&values=v,w", "text/csv", "t,p,v,w\n2026-11-20,a,1,\n", (1, 0)).await;
        check("/?source=%7Bp%7D.%7Bcolumn%7D&values=v%2Cw&time=now", "text/csv", "p,v,w\na,1,2\n", (2, 0)).await;
        check("/", "text/csv", "", (0, 0)).await;
        let detail = "a table has the columns source,value[,timestamp], separated by commas; this one has p, v; \
                      describe another table with ?source=TEMPLATE&values=COLUMNS&time=COLUMN";
        check_refused("/?on_error=skip", "text/csv", "p,v\n", 400, detail).await;
        let detail = "it is not said which column holds the time: the header has p, v; \
                      add time=COLUMN, or time=now if all its readings are of now";
        check_refused("/?source=x&values=v", "text/csv", "p,v\na,1\n", 400, detail).await;
        let detail = "there is no column \"w\": the header has p, v";
        check_refused("/?source=x&values=v,w", "text/csv", "p,v\n", 400, detail).await;
        let detail = "source: \"{\" at byte 0 of \"{p\" belongs to no {column}: write {name}, or {{ and }} for braces";
        check_refused("/?source=%7Bp&values=v", "text/csv", "p,v\n", 400, detail).await;
        let refused = "1 line is invalid, nothing was counted; ?on_error=skip counts the others";
        check_refused("/", "text/csv", "source,value\na,1\nb,x\n", 400, refused).await;
    }

    #[tokio::test]
    async fn what_is_not_json_is_refused_in_any_case() {
        let detail = "the body is not valid JSON: expected value at line 1, column 2";
        check_refused("/?on_error=skip", "application/json", "[x]", 400, detail).await;
        let detail = "the body is not valid JSON: trailing characters at line 2, column 1; \
                      send one reading per line as Content-Type: application/x-ndjson";
        check_refused("/", "", format!("{READING}\n{READING}"), 400, detail).await;
    }

    #[tokio::test]
    async fn parameters() {
        let seconds = r#"{"source":"a","value":1,"timestamp":1795150800}"#;
        check("/?precision=s", "", seconds, (1, 0)).await;
        check_refused(
            "/",
            "",
            seconds,
            400,
            "1 line is invalid, nothing was counted; ?on_error=skip counts the others",
        )
        .await;
        for (query, detail) in [
            ("precision=m", "precision: \"m\" is not a precision: write s, ms, us or ns"),
            ("precision=s&precision=s", "precision: it is given more than once"),
            ("on_error=ignore", "on_error: \"ignore\" is not known: write skip or refuse"),
            ("precison=s", "precison: there is no such parameter here: use precision, on_error, time, source, values"),
            ("source=a", "values: it is missing: a wide table needs values=COLUMNS beside source"),
            ("values=a", "source: it is missing: a wide table needs source=TEMPLATE beside values"),
            ("time=t", "time: it describes a table: send it as Content-Type: text/csv"),
        ] {
            check_refused(&format!("/?{query}"), "", READING, 400, detail).await;
        }
    }

    #[tokio::test]
    async fn the_body_is_bounded_with_and_without_a_length() {
        let too_large = "the body has more than 16 MiB: send it in several requests";
        let chunked = |bytes: usize| {
            let piece = Bytes::from(vec![b'\n'; 1 << 20]);
            let mut pieces = vec![piece.clone(); bytes >> 20];
            pieces.push(piece.slice(..bytes % (1 << 20)));
            Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
        };
        assert_eq!(outcome("/", "application/x-ndjson", chunked(MAX_BODY_BYTES)).await, Ok((0, 0)));
        check_refused("/", "application/x-ndjson", chunked(MAX_BODY_BYTES + 1), 413, too_large).await;
        check_refused("/", "application/json", chunked(MAX_BODY_BYTES + 1), 413, too_large).await;
        let length = (MAX_BODY_BYTES + 1).to_string();
        let announced = receive_in(Late::Reopen, "/", &[("content-length", &length)], READING).await;
        assert_eq!(announced.unwrap_err().kind(), Kind::BodyTooLarge);
        let encoded = receive_in(Late::Reopen, "/", &[("content-encoding", "br")], READING).await;
        assert_eq!(encoded.unwrap_err().kind(), Kind::UnsupportedContentEncoding);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_counts_nothing() {
        let start = || stream::iter([Ok(Bytes::from(format!("{READING}\n")))]);
        let cut = stream::iter([Err(std::io::Error::other("reset"))]);
        let broken = Body::from_stream(start().chain(cut));
        check_refused("/", "application/x-ndjson", broken, 400, "the body broke off: reset").await;
    }

    #[tokio::test]
    async fn a_large_array_is_decoded_off_the_runtime() {
        let body = format!("[{READING}{}]", format!(",{READING}").repeat(INLINE_JSON_BYTES / READING.len()));
        assert!(body.len() > INLINE_JSON_BYTES);
        check("/", "application/json", &body, (INLINE_JSON_BYTES / READING.len() + 1, 0)).await;
    }

    #[tokio::test]
    async fn the_key_covers_body_and_query_but_not_the_chunks() {
        let key = async |uri: &str, chunks: &[&'static str]| {
            let chunks: Vec<_> = chunks.iter().map(|c| Ok::<_, Infallible>(Bytes::from_static(c.as_bytes()))).collect();
            let body = Body::from_stream(stream::iter(chunks));
            let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", "k")];
            receive_in(Late::Reopen, uri, &headers, body).await.unwrap().key.unwrap()
        };
        let one = key("/", &[READING]).await;
        assert_eq!(key("/", &["", "{\"source\":\"a\"", ",\"value\":1}"]).await, one);
        assert_ne!(key("/", &[READING, "\n"]).await.fingerprint, one.fingerprint);
        assert_ne!(key("/?precision=ms", &[READING]).await.fingerprint, one.fingerprint);
        assert!(receive_in(Late::Reopen, "/", &[], READING).await.unwrap().key.is_none());
    }

    #[tokio::test]
    async fn lines_are_kept_only_where_readings_can_be_too_late() {
        for (late, kept) in [(Late::Reopen, false), (Late::Refuse, true)] {
            let received = receive_in(late, "/", &[], READING).await.unwrap();
            assert_eq!(received.decoded.lines.is_some(), kept);
        }
    }
}
