//! `GET /v1/stats`: rows of one source or several.
//!
//! Called by the route table; calls `Query::stats`. Reads the parameters, answers in the format
//! asked for, and maps what a query can fail with to status codes, for the other routes that read
//! as well. What rows look like is in `format.rs`.

use super::Service;
use super::auth::Caller;
use super::filled;
use super::format::{Format, RowsBody};
use super::nodes::with_the_sink;
use super::parameters::{Parameters, refuse};
use super::problem::{Kind, Problem};
use crate::query::{MAX_SOURCES, PAGE_ROWS, Query, QueryError, StatsQuery, StatsRow};
use crate::stats::calendar::Period;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::sync::Arc;

pub(super) const PARAMETERS: [&str; 8] = ["source", "period", "from", "to", "limit", "cursor", "format", "fill"];
/// Where a body has no place for it: rows of the store or of the sink alone.
pub(super) const PARTIAL: HeaderName = HeaderName::from_static("meanwhile-partial");

#[utoipa::path(get, path = "/v1/stats", tag = "statistics",
    params(
        ("source" = Vec<String>, Query, example = json!(["kitchen"]), description = "Up to 100, repeated"),
        ("period" = Option<String>, Query, pattern = "^[1-9][0-9]{0,5}(s|m|h|d|w|mo|y)$", example = "1h", description = "1m, 1h, 1d, ...; default: the finest stored one. One that is not stored is merged"),
        ("from" = Option<String>, Query, example = "2026-11-20T05:00:00Z", description = "First start of a bucket: RFC 3339, a date, a local time, or milliseconds"),
        ("to" = Option<String>, Query, example = "2026-11-21", description = "The start of a bucket before which the rows end"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 10_000, description = "Rows of a page, default 10000"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
        ("format" = Option<String>, Query, description = "json (default), ndjson, csv or text; else by Accept"),
        ("fill" = Option<String>, Query, pattern = "^(none|null|previous)$", description = "Rows also for empty buckets between the first and the last of the answer: none (default), null, or with what the row before had"),
    ),
    responses((status = 200, description = "Rows, oldest first", content(
        (RowsBody<'static> = "application/json"),
        (String = "application/x-ndjson"),
        (String = "text/csv"),
        (String = "text/plain"),
    ))),
)]
pub(super) async fn stats(
    State(service): State<Service>,
    caller: Caller,
    raw: RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let rules = service.committer.rules().current();
    let expected = |row: &StatsRow| rules.expected(&row.source, &row.bucket);
    answer(&service.query, &caller, raw, &headers, &expected)
        .await
        .map_err(|problem| with_the_sink(problem, &service.nodes))
}

/// `expected`: how many readings a row should have, where a rule says so.
async fn answer(
    query: &Query,
    caller: &Caller,
    raw: RawQuery,
    headers: &HeaderMap,
    expected: &(dyn Fn(&StatsRow) -> Option<f64> + Sync),
) -> Result<Response, Problem> {
    let parameters = Parameters::read(&raw, &PARAMETERS, "source")?;
    let format = format(&parameters, headers)?;
    let asked = asked(&parameters, query)?;
    caller.needs_sources(&asked.sources)?;
    let (body, next, partial) = match fill(&parameters)? {
        None => {
            let page = query.stats(&asked).await.map_err(|error| failed_for(caller, error))?;
            (format.page(&page.rows, page.next.as_deref(), page.partial, expected), page.next, page.partial)
        }
        Some(previous) => {
            let page = query.filled(&asked, previous).await.map_err(|error| failed_for(caller, error))?;
            (filled::page(format, &page, expected), page.next, page.partial)
        }
    };
    let mut response = ([(header::CONTENT_TYPE, format.content_type())], body).into_response();
    if format != Format::Json {
        let headers = response.headers_mut();
        if let Some(link) = next.and_then(|next| next_link(&raw, &next).parse().ok()) {
            headers.insert(header::LINK, link);
        }
        if partial {
            headers.insert(PARTIAL, header::HeaderValue::from_static("true"));
        }
    }
    // The format follows from Accept: a cache must not give one client the other's.
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept"));
    Ok(response)
}

fn format(parameters: &Parameters, headers: &HeaderMap) -> Result<Format, Problem> {
    let Some(name) = parameters.one("format") else {
        // Several Accept headers are one list.
        let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        return Ok(Format::accepted(&accept.collect::<Vec<_>>().join(",")));
    };
    let unknown = || refuse("format", &format!("\"{name}\" is not a format: write json, ndjson, csv or text"));
    Format::named(name).ok_or_else(unknown)
}

/// Whether gaps are filled, and then whether with what the row before had.
fn fill(parameters: &Parameters) -> Result<Option<bool>, Problem> {
    match parameters.one("fill") {
        None | Some("none") => Ok(None),
        Some("null") => Ok(Some(false)),
        Some("previous") => Ok(Some(true)),
        Some(other) => {
            Err(refuse("fill", &format!("\"{other}\" is not a way to fill gaps: write none, null or previous")))
        }
    }
}

fn asked(parameters: &Parameters, query: &Query) -> Result<StatsQuery, Problem> {
    parameters.source()?;
    let sources: Vec<Arc<str>> = parameters.all("source").into_iter().map(Arc::from).collect();
    if sources.len() > MAX_SOURCES {
        let reason = format!("{} are given, at most {MAX_SOURCES} are allowed in one request", sources.len());
        return Err(refuse("source", &reason));
    }
    let period = parameters.one("period").map(str::parse::<Period>).transpose();
    let zone = query.calendar().zone();
    let (from, to) = (parameters.time("from", zone)?, parameters.time("to", zone)?);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(refuse("from", "it is after to: the range is [from, to)"));
    }
    Ok(StatsQuery {
        sources,
        period: period.map_err(|error| refuse("period", &error.to_string()))?,
        from,
        to,
        limit: parameters.limit(PAGE_ROWS)?,
        cursor: parameters.one("cursor").map(str::to_owned),
    })
}

/// The same request with another cursor, relative to its own address: it holds behind any proxy.
fn next_link(raw: &RawQuery, cursor: &str) -> String {
    let query = raw.0.as_deref().unwrap_or_default();
    let mut pairs: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor=")).collect();
    let cursor = format!("cursor={cursor}");
    pairs.push(&cursor);
    // What a URL should have encoded, but a client may send as it is, would end the link.
    let query = pairs.join("&").replace('<', "%3C").replace('>', "%3E");
    format!("<?{query}>; rel=\"next\"")
}

/// The same, without sources that are not the caller's.
pub(super) fn failed_for(caller: &Caller, mut error: QueryError) -> Problem {
    if let QueryError::UnknownSource { near, .. } = &mut error {
        near.retain(|source| caller.has_source(source));
    }
    failed(error)
}

/// The answer to a query that failed.
pub(super) fn failed(error: QueryError) -> Problem {
    let detail = error.to_string();
    match error {
        QueryError::UnknownSource { id, near } => {
            let near: Vec<&str> = near.iter().map(|id| &**id).collect();
            let remedy = match near.first() {
                None => "GET /v1/sources lists those that are".to_owned(),
                Some(_) => format!("did you mean {}?", near.join(", ")),
            };
            Problem::new(Kind::UnknownSource, format!("{detail}: {remedy}"))
                .with("source", Value::from(&*id))
                .with("near", Value::from(near))
        }
        QueryError::Period { .. } | QueryError::Unlike { .. } => refuse("period", &detail),
        QueryError::Refused { parameter, .. } => refuse(parameter, &detail),
        QueryError::Cursor => refuse("cursor", &detail),
        QueryError::NoSink => Problem::new(Kind::NoSink, detail),
        QueryError::Moving | QueryError::Crowded | QueryError::Unavailable(_) => {
            Problem::new(Kind::Unavailable, detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::tests::query;
    use crate::query::tests::world::World;

    const MINUTE: i64 = 60_000;

    /// Two minutes of `kitchen`, the first one closed.
    fn world() -> Arc<World> {
        let world = World::new("1m,1h", "UTC");
        let minute = world.bucket("1m", 0);
        world.lock().read("kitchen", 0, 1.0);
        world.lock().close(minute);
        world.lock().read("kitchen", MINUTE, 3.0);
        world
    }

    async fn get(world: &Arc<World>, raw: &str, accept: Option<&str>) -> (u16, HeaderMap, String) {
        let mut headers = HeaderMap::new();
        accept.map(|accept| headers.insert(header::ACCEPT, accept.parse().unwrap()));
        let answer =
            answer(&query(world), &Caller::Everybody, RawQuery(Some(raw.to_owned())), &headers, &|_| None).await;
        let response = answer.unwrap_or_else(IntoResponse::into_response);
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// `parts`: what the body has to contain.
    async fn check(raw: &str, status: u16, parts: &[&str]) {
        let (got, _, body) = get(&world(), raw, None).await;
        assert_eq!(got, status, "{raw}: {body}");
        for part in parts {
            assert!(body.contains(part), "{raw}: {body} lacks {part}");
        }
    }

    #[tokio::test]
    async fn rows_of_a_source() {
        check("source=kitchen", 200, &[r#""period":"1m""#, r#""count":1"#, r#""state":"closed""#, r#""next":null"#])
            .await;
        check("source=kitchen&source=kitchen&period=1h", 200, &[r#""count":2"#]).await;
        check("source=kitchen&period=1d&from=1970-01-01&to=1970-01-01T00:00:00.001Z", 200, &[r#""count":2"#]).await;
        check("source=kitchen&from=60000&to=60001&format=text", 200, &["kitchen, 3.0, 0.0\n"]).await;
        check("source=kitchen&from=2030-01-01&format=ndjson", 200, &[]).await;
    }

    #[tokio::test]
    async fn what_is_refused_and_by_what_name() {
        let refused = async |raw: &str, parameter: &str, hint: &str| {
            check(raw, 400, &["invalid-parameter", &format!(r#""parameter":"{parameter}""#), hint]).await;
        };
        refused("", "source", "missing").await;
        refused("source=", "source", "empty").await;
        refused("sources=kitchen", "sources", "source, period, from, to, limit, cursor, format, fill").await;
        refused("source=kitchen&period=1h&period=1m", "period", "more than once").await;
        refused("source=kitchen&period=7m", "period", "divide a day").await;
        refused("source=kitchen&period=1s", "period", "1m, 1h").await;
        refused("source=kitchen&from=soon", "from", "2026-11-20").await;
        refused("source=kitchen&to=soon", "to", "2026-11-20").await;
        refused("source=kitchen&from=2&to=1", "from", "after to").await;
        refused("source=kitchen&limit=10001", "limit", "1 to 10000").await;
        refused("source=kitchen&cursor=nonsense", "cursor", "leave it out").await;
        refused("source=kitchen&fill=linear", "fill", "none, null or previous").await;
        refused("source=kitchen&fill=null&cursor=00", "cursor", "leave it out").await;
        refused("source=kitchen&format=xml", "format", "json, ndjson, csv or text").await;
        refused(&"source=a&".repeat(101), "source", "at most 100").await;
    }

    #[tokio::test]
    async fn an_unknown_source_and_a_service_without_its_sides() {
        check("source=kichen", 404, &["unknown-source", r#""near":["kitchen"]"#, "did you mean kitchen?"]).await;
        check("source=x", 404, &[r#""near":[]"#, "/v1/sources"]).await;
        let world = world();
        world.lock().sink_down = true;
        let (status, headers, body) = get(&world, "source=kitchen", None).await;
        assert_eq!((status, headers.get(PARTIAL)), (200, None));
        assert!(body.ends_with(r#""next":null,"partial":true}"#), "{body}");
        let (_, headers, _) = get(&world, "source=kitchen", Some("text/csv")).await;
        assert_eq!(headers[PARTIAL], "true");
        world.lock().store_down = true;
        let (status, headers, _) = get(&world, "source=kitchen", None).await;
        assert_eq!((status, &headers[header::RETRY_AFTER]), (503, &header::HeaderValue::from_static("1")));
    }

    #[tokio::test]
    async fn the_next_page_is_a_link_where_the_body_has_no_place_for_it() {
        let world = world();
        let (_, headers, body) = get(&world, "source=kitchen&limit=1", None).await;
        assert_eq!(headers.get(header::LINK), None);
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        let cursor = json["next"].as_str().unwrap();
        let (_, headers, _) = get(&world, "source=kitchen&limit=1", Some("text/csv")).await;
        assert_eq!(headers[header::CONTENT_TYPE], "text/csv; charset=utf-8");
        assert_eq!(headers[header::LINK], format!("<?source=kitchen&limit=1&cursor={cursor}>; rel=\"next\""));
        let last = format!("cursor={cursor}&source=kitchen&limit=1&format=text");
        let (_, headers, body) = get(&world, &last, None).await;
        assert_eq!((headers.get(header::LINK), body.as_str()), (None, "kitchen, 3.0, 0.0\n"));
        assert_eq!(
            next_link(&RawQuery(Some("cursor=1&source=<>".into())), "2"),
            "<?source=%3C%3E&cursor=2>; rel=\"next\""
        );
    }
}
