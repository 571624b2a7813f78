//! Problem documents (RFC 9457): what every answer looks like that is not a success.
//!
//! Used by all handlers. This is the one place that maps errors to status codes; `type` is stable
//! and meant for programs, `detail` for people. A problem is not logged here: what went wrong inside
//! is logged where it is handled, the answer itself in `observe.rs`.

use crate::ingest::commit::CommitError;
use crate::ingest::decode::columns::ColumnError;
use crate::ingest::decode::{DecodeError, LineError};
use axum::extract::OriginalUri;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::time::Duration;

const CONTENT_TYPE: &str = "application/problem+json";
/// Seconds until a client may repeat what was certainly not counted: most stores are back by then.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// How to say who one is; browsers ask their users where they see the second.
const CHALLENGES: [HeaderValue; 2] = [
    HeaderValue::from_static("Bearer realm=\"meanwhile\""),
    HeaderValue::from_static("Basic realm=\"meanwhile\", charset=\"UTF-8\""),
];

/// What kind of problem it is; the order is that of the status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The body is not what its Content-Type says, or was not sent completely.
    UnreadableBody,
    /// The request line or a header is not HTTP.
    UnreadableHead,
    /// Lines of the body break a rule; `errors` names them.
    InvalidReadings,
    /// A file of rules or its table; `file` and `line` say where.
    InvalidRules,
    InvalidParameter,
    InvalidHeader,
    /// Nobody has said who he is, or nobody is known by what he presents.
    Unauthorized,
    Forbidden,
    NotFound,
    UnknownSource,
    MethodNotAllowed,
    BodyTimeout,
    HeadTimeout,
    BodyTooLarge,
    TooManyReadings,
    UnsupportedContentType,
    UnsupportedContentEncoding,
    KeyReused,
    /// Certainly not counted.
    TooFast,
    /// Certainly not counted.
    TooManySources,
    /// Readings of another length than their source has in the same time.
    OtherLength,
    HeadTooLarge,
    /// A handler has panicked.
    Internal,
    /// Certainly not counted.
    TooManyConnections,
    /// Certainly not counted.
    Busy,
    /// Certainly not counted.
    NotApplied,
    /// A question cannot be answered now.
    Unavailable,
    /// A question that only an instance with a sink can answer.
    NoSink,
    /// Readings where none are taken: certainly not counted.
    NoIngest,
    OutcomeUnknown,
}

impl Kind {
    /// Every kind there is.
    pub(super) const ALL: [Self; 30] = [
        Self::UnreadableBody,
        Self::UnreadableHead,
        Self::InvalidReadings,
        Self::InvalidRules,
        Self::InvalidParameter,
        Self::InvalidHeader,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::UnknownSource,
        Self::MethodNotAllowed,
        Self::BodyTimeout,
        Self::HeadTimeout,
        Self::BodyTooLarge,
        Self::TooManyReadings,
        Self::UnsupportedContentType,
        Self::UnsupportedContentEncoding,
        Self::KeyReused,
        Self::TooFast,
        Self::TooManySources,
        Self::OtherLength,
        Self::HeadTooLarge,
        Self::Internal,
        Self::TooManyConnections,
        Self::Busy,
        Self::NotApplied,
        Self::Unavailable,
        Self::NoSink,
        Self::NoIngest,
        Self::OutcomeUnknown,
    ];

    /// Status, last part of the `type`, title.
    pub(super) fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::UnreadableBody => (StatusCode::BAD_REQUEST, "unreadable-body", "The body cannot be read"),
            Self::UnreadableHead => {
                (StatusCode::BAD_REQUEST, "unreadable-request", "The request line or a header cannot be read")
            }
            Self::InvalidReadings => (StatusCode::BAD_REQUEST, "invalid-readings", "Some readings are invalid"),
            Self::InvalidRules => (StatusCode::BAD_REQUEST, "invalid-rules", "The rules are invalid"),
            Self::InvalidParameter => (StatusCode::BAD_REQUEST, "invalid-parameter", "A query parameter is invalid"),
            Self::InvalidHeader => (StatusCode::BAD_REQUEST, "invalid-header", "A header is invalid"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "It is not known who asks"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "This is not allowed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is nothing at this path"),
            Self::UnknownSource => (StatusCode::NOT_FOUND, "unknown-source", "There is no such source"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not take this method")
            }
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body came too slowly"),
            Self::HeadTimeout => (StatusCode::REQUEST_TIMEOUT, "headers-timeout", "The headers came too slowly"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::TooManyReadings => (StatusCode::PAYLOAD_TOO_LARGE, "too-many-readings", "Too many readings"),
            Self::UnsupportedContentType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-content-type", "The content type is not supported")
            }
            Self::UnsupportedContentEncoding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-content-encoding",
                "The content encoding is not supported",
            ),
            Self::KeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "The Idempotency-Key belongs to another body")
            }
            Self::TooFast => (StatusCode::TOO_MANY_REQUESTS, "too-fast", "This comes too fast"),
            Self::TooManySources => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-sources", "There are too many new sources")
            }
            Self::OtherLength => {
                (StatusCode::UNPROCESSABLE_ENTITY, "other-length", "The readings are of another length than before")
            }
            Self::HeadTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "The headers are too large")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service has failed"),
            Self::TooManyConnections => {
                (StatusCode::SERVICE_UNAVAILABLE, "too-many-connections", "There are too many connections")
            }
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Too much is under way"),
            Self::NotApplied => (StatusCode::SERVICE_UNAVAILABLE, "not-applied", "The store cannot be reached"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The answer cannot be given now"),
            Self::NoSink => (StatusCode::SERVICE_UNAVAILABLE, "no-sink", "The rows are elsewhere"),
            Self::NoIngest => (StatusCode::SERVICE_UNAVAILABLE, "no-ingest", "Readings are taken elsewhere"),
            Self::OutcomeUnknown => {
                (StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", "The store has not answered in time")
            }
        }
    }

    /// The stable `type` of its documents.
    pub(super) fn type_uri(self) -> String {
        format!("/problems/{}", self.row().1)
    }
}

/// Travels with the answer to a failed request, for the log and the metrics; see `observe.rs`.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Last part of the `type`.
    pub(super) name: &'static str,
    pub(super) detail: String,
    /// For the error log; a panic is there already.
    pub(super) is_unexpected: bool,
}

/// An answer that is not a success.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    kind: Kind,
    /// What is wrong here and what to do about it.
    detail: String,
    /// Extension members.
    members: Map<String, Value>,
    /// Seconds to wait, where that is known.
    retry_after: Option<u64>,
}

impl Problem {
    /// `detail` says what is wrong here and what to do about it.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), members: Map::new(), retry_after: None }
    }

    /// What comes too fast, and how long to wait.
    #[must_use]
    pub fn too_fast(detail: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let detail = format!("{detail}: wait {seconds} s");
        Self { retry_after: Some(seconds), ..Self::new(Kind::TooFast, detail) }
    }

    /// Adds an extension member.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// A batch with bad lines, of which the first are listed.
    #[must_use]
    pub fn invalid_readings(errors: &[LineError], count: usize) -> Self {
        let lines = if count == 1 { "1 line is".to_owned() } else { format!("{count} lines are") };
        let detail = format!("{lines} invalid, nothing was counted; ?on_error=skip counts the others");
        Self::new(Kind::InvalidReadings, detail).with("errors", line_errors(errors)).with("error_count", count.into())
    }

    /// What decides status, type and title.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// As it was given to [`Self::new`].
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Status and document.
    fn document(self) -> (StatusCode, String) {
        let (status, _, title) = self.kind.row();
        let mut document = Map::from_iter([
            ("type".to_owned(), self.kind.type_uri().into()),
            ("title".to_owned(), title.into()),
            ("status".to_owned(), status.as_u16().into()),
            ("detail".to_owned(), self.detail.into()),
        ]);
        document.extend(self.members);
        (status, Value::Object(document).to_string())
    }

    /// The bytes of a whole answer, the last of its connection: for a client that has made no request
    /// which a handler could answer.
    pub(super) fn into_closing_answer(self) -> Vec<u8> {
        let (status, body) = self.document();
        let retry = if status == StatusCode::SERVICE_UNAVAILABLE {
            format!("retry-after: {}\r\n", RETRY_AFTER.to_str().unwrap_or_default())
        } else {
            String::new()
        };
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {length}\r\n{retry}connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Bad lines as they stand in problem documents and in the answer to `on_error=skip`.
pub(super) fn line_errors(errors: &[LineError]) -> Value {
    errors.iter().map(|e| json!({"line": e.line, "field": e.field, "reason": e.reason})).collect()
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        match &error {
            &DecodeError::Syntax { line, column, ref reason } => {
                // What curl sends when a file of lines is posted without saying so.
                let hint = if line > 1 && reason == "trailing characters" {
                    "; send one reading per line as Content-Type: application/x-ndjson"
                } else {
                    ""
                };
                Self::new(Kind::UnreadableBody, format!("the body is not valid JSON: {error}{hint}"))
                    .with("line", line.into())
                    .with("column", column.into())
            }
            DecodeError::Forbidden { line, id } => Self::new(Kind::Forbidden, format!("{error}; nothing was counted"))
                .with("line", (*line).into())
                .with("source", id.as_str().into()),
            DecodeError::TooManyReadings | DecodeError::TooManyVectors { .. } => {
                Self::new(Kind::TooManyReadings, error.to_string())
            }
            DecodeError::Columns(columns) => {
                let hint = match columns {
                    ColumnError::NoTime(_) => "; add time=COLUMN, or time=now if all its readings are of now",
                    _ if columns.lacks_description() => {
                        "; describe another table with ?source=TEMPLATE&values=COLUMNS&time=COLUMN"
                    }
                    _ => "",
                };
                Self::new(Kind::UnreadableBody, format!("{error}{hint}")).with("line", 1.into())
            }
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Busy => Self::new(Kind::Busy, format!("{error}; nothing was counted, try again")),
            CommitError::NotApplied(_) => {
                Self::new(Kind::NotApplied, format!("{error}; nothing was counted, try again"))
            }
            CommitError::Unknown(_) => {
                let detail =
                    format!("{error}; the readings may have been counted: repeat with the same Idempotency-Key");
                Self::new(Kind::OutcomeUnknown, detail)
            }
            CommitError::KeyReused => Self::new(Kind::KeyReused, format!("{error}; nothing was counted")),
            CommitError::Unlike { ref source_id, held, given, partly } => {
                let counted = if partly {
                    "the part of the request with them was not counted, others were"
                } else {
                    "nothing was counted"
                };
                Self::new(Kind::OtherLength, format!("{error}; {counted}"))
                    .with("source", (**source_id).into())
                    .with("length", held.into())
                    .with("length_sent", given.into())
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let kind = self.kind;
        let is_unexpected = matches!(kind, Kind::NotApplied | Kind::Unavailable | Kind::OutcomeUnknown);
        let failure = Failure { name: kind.row().1, detail: self.detail.clone(), is_unexpected };
        let retry_after = self.retry_after;
        let (status, body) = self.document();
        let content_type = HeaderValue::from_static(CONTENT_TYPE);
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        response.extensions_mut().insert(failure);
        if kind == Kind::UnsupportedContentEncoding {
            response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if kind == Kind::Unauthorized {
            for challenge in CHALLENGES {
                response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }
}

/// The answer where no route is.
pub(super) fn no_route(uri: &Uri) -> Problem {
    Problem::new(Kind::NotFound, format!("{} does not exist", uri.path()))
}

/// The answer where a route is but takes other methods; axum adds them as `Allow`.
pub(super) async fn no_method(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(Kind::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(problem: Problem, status: u16, retry_after: Option<&str>, expected: &str) {
        let (head, body) = problem.into_response().into_parts();
        assert_eq!(head.status.as_u16(), status);
        assert_eq!(head.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(head.headers.get(header::RETRY_AFTER).map(|v| v.to_str().unwrap()), retry_after);
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let (got, expected): (Value, Value) =
            (serde_json::from_slice(&body).unwrap(), serde_json::from_str(expected).unwrap());
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn failed_commits() {
        check(
            CommitError::Busy.into(),
            503,
            Some("1"),
            r#"{"type": "/problems/busy", "title": "Too much is under way", "status": 503,
                "detail": "too many readings are waiting for the store; nothing was counted, try again"}"#,
        )
        .await;
        check(
            CommitError::NotApplied("the store is unavailable: refused".to_owned()).into(),
            503,
            Some("1"),
            r#"{"type": "/problems/not-applied", "title": "The store cannot be reached", "status": 503,
                "detail": "the store is unavailable: refused; nothing was counted, try again"}"#,
        )
        .await;
        check(
            CommitError::Unknown("no answer within 30 s".to_owned()).into(),
            504,
            None,
            r#"{"type": "/problems/outcome-unknown", "title": "The store has not answered in time", "status": 504,
                "detail": "no answer within 30 s; the readings may have been counted: repeat with the same Idempotency-Key"}"#,
        )
        .await;
        check(
            CommitError::KeyReused.into(),
            422,
            None,
            r#"{"type": "/problems/key-reused", "title": "The Idempotency-Key belongs to another body", "status": 422,
                "detail": "the idempotency key was used with another body; nothing was counted"}"#,
        )
        .await;
    }

    #[tokio::test]
    async fn undecodable_bodies_and_bad_lines() {
        check(
            DecodeError::TooManyReadings.into(),
            413,
            None,
            r#"{"type": "/problems/too-many-readings", "title": "Too many readings", "status": 413,
                "detail": "the request has more than 200000 readings: send it in several"}"#,
        )
        .await;
        check(
            DecodeError::Syntax { line: 3, column: 7, reason: "expected value".to_owned() }.into(),
            400,
            None,
            r#"{"type": "/problems/unreadable-body", "title": "The body cannot be read", "status": 400, "line": 3,
                "column": 7, "detail": "the body is not valid JSON: expected value at line 3, column 7"}"#,
        )
        .await;
        let errors = [LineError { line: 2, field: None, reason: "the line is not UTF-8".to_owned() }];
        check(
            Problem::invalid_readings(&errors, 7),
            400,
            None,
            r#"{"type": "/problems/invalid-readings", "title": "Some readings are invalid", "status": 400,
                "detail": "7 lines are invalid, nothing was counted; ?on_error=skip counts the others",
                "errors": [{"line": 2, "field": null, "reason": "the line is not UTF-8"}], "error_count": 7}"#,
        )
        .await;
    }
}
