//! `GET /openapi.json`: what the routes take and answer, for programs.
//!
//! Put together from what stands at the handlers and, for problems, from the table in `problem.rs`:
//! [`PROBLEMS`] says which kinds a route may answer with. A test keeps the routes of `mod.rs` and the
//! document equal, another holds real answers against the schemas.

use super::problem::Kind;
use super::{
    compare, drain, errors, nodes, operations, page, publish, readings, rules, sources, state, stats, stream, summary,
};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::LazyLock;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr, Required};
use utoipa::{OpenApi, ToSchema};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "meanwhile",
        description = "Exact statistics per source and time bucket. Every answer has X-Request-Id and X-Instance; every \
                       answer that is not a success, but for /readyz, is a problem document (RFC 9457). \
                       /socket.io/ is Socket.IO, a protocol of its own.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        readings::post,
        stats::stats,
        summary::summary,
        compare::compared,
        sources::sources,
        sources::forget,
        state::state,
        stream::stream,
        publish::publish,
        drain::post,
        drain::get,
        operations::healthz,
        operations::readyz,
        operations::metrics,
        nodes::nodes,
        errors::errors,
        rules::get,
        rules::post,
        rules::explain,
        serve,
        page::html,
        page::style,
        page::script,
        page::chart,
        page::live_state,
        page::errors
    ),
    components(schemas(Problem, LineError, Reading))
)]
struct Document;

/// One observation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "readings are decoded without it, see ingest/decode/reading.rs")]
pub(super) struct Reading {
    /// 1 to 256 bytes of UTF-8 without control characters.
    #[schema(example = "kitchen", min_length = 1, max_length = 256)]
    source: String,
    /// Finite, at most 1e140 in magnitude; or a vector, 2 to 64 such numbers.
    #[schema(schema_with = value_schema)]
    value: f64,
    /// RFC 3339, a date, a local time, or a number in the unit of `precision`; absent: now.
    timestamp: Option<Timestamp>,
}

fn value_schema() -> Schema {
    let number = || ObjectBuilder::new().schema_type(Type::Number).minimum(Some(-1e140)).maximum(Some(1e140));
    let vector = ArrayBuilder::new().items(number()).min_items(Some(2)).max_items(Some(64));
    OneOfBuilder::new().item(number()).item(vector).examples([json!(21.5)]).build().into()
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "as above")]
enum Timestamp {
    Number(f64),
    Text(String),
}

/// What a JSON body holds.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "as above")]
pub(super) enum Readings {
    One(Reading),
    Many(Vec<Reading>),
}

/// A problem document (RFC 9457); further members depend on the type.
#[derive(ToSchema)]
#[expect(dead_code, reason = "written by problem.rs")]
struct Problem {
    /// Stable, for programs.
    #[schema(rename = "type")]
    r#type: String,
    title: String,
    status: u16,
    /// What is wrong here and what to do about it, for people.
    detail: String,
    /// Bad lines of a batch, the first 100.
    errors: Option<Vec<LineError>>,
    error_count: Option<usize>,
    /// Where JSON ends to be JSON.
    line: Option<usize>,
    column: Option<usize>,
    /// Of rules that are wrong: which of the two texts.
    file: Option<String>,
    /// The parameter that was refused.
    parameter: Option<String>,
    /// The source that is not known.
    source: Option<String>,
    /// Of an unexpected error: its row in the error log.
    error_id: Option<String>,
    /// Of an instance that can do it.
    address: Option<String>,
    /// Known sources whose ids are near an unknown one.
    near: Option<Vec<String>>,
}

/// What is wrong with a line, or an element of an array, of a batch.
#[derive(ToSchema)]
#[expect(dead_code, reason = "written by problem.rs")]
pub(super) struct LineError {
    line: usize,
    field: Option<String>,
    reason: String,
}

/// The kinds that any request may be answered with, whatever its route.
const ANYWHERE: [Kind; 5] =
    [Kind::UnreadableHead, Kind::HeadTimeout, Kind::HeadTooLarge, Kind::Internal, Kind::TooManyConnections];

/// Paths that ask nobody who he is.
const OPEN: [&str; 9] =
    ["/", "/page.css", "/page.js", "/chart.js", "/service.js", "/errors.js", "/healthz", "/readyz", "/openapi.json"];

/// The kinds that all others may answer with.
const GUARDED: [Kind; 3] = [Kind::Unauthorized, Kind::Forbidden, Kind::TooFast];

/// The kinds of problems a route may answer with, beside those.
const PROBLEMS: [(&str, &[Kind]); 15] = [
    (
        "/v1/readings",
        &[
            Kind::UnreadableBody,
            Kind::InvalidReadings,
            Kind::InvalidParameter,
            Kind::InvalidHeader,
            Kind::BodyTimeout,
            Kind::BodyTooLarge,
            Kind::TooManyReadings,
            Kind::UnsupportedContentType,
            Kind::UnsupportedContentEncoding,
            Kind::KeyReused,
            Kind::TooManySources,
            Kind::OtherLength,
            Kind::Busy,
            Kind::NotApplied,
            Kind::NoIngest,
            Kind::OutcomeUnknown,
        ],
    ),
    ("/v1/stats", &[Kind::InvalidParameter, Kind::UnknownSource, Kind::Unavailable, Kind::NoSink]),
    ("/v1/summary", &[Kind::InvalidParameter, Kind::UnknownSource, Kind::Unavailable, Kind::NoSink]),
    ("/v1/compare", &[Kind::InvalidParameter, Kind::UnknownSource, Kind::Unavailable, Kind::NoSink]),
    ("/v1/sources", &[Kind::InvalidParameter, Kind::Unavailable, Kind::NoSink]),
    ("/v1/state", &[Kind::InvalidParameter, Kind::UnknownSource, Kind::Unavailable]),
    ("/v1/stream", &[Kind::InvalidParameter, Kind::Unavailable, Kind::NoSink]),
    (
        "/v1/publish",
        &[Kind::InvalidParameter, Kind::UnreadableBody, Kind::BodyTimeout, Kind::BodyTooLarge, Kind::Unavailable],
    ),
    ("/v1/sources/{id}", &[Kind::InvalidParameter, Kind::UnknownSource, Kind::Unavailable, Kind::NoSink]),
    ("/v1/drain", &[Kind::InvalidParameter, Kind::Unavailable, Kind::NoSink]),
    ("/v1/nodes", &[Kind::InvalidParameter]),
    ("/v1/errors", &[Kind::InvalidParameter]),
    (
        "/v1/rules",
        &[
            Kind::InvalidParameter,
            Kind::InvalidRules,
            Kind::UnreadableBody,
            Kind::BodyTimeout,
            Kind::BodyTooLarge,
            Kind::Unavailable,
        ],
    ),
    ("/v1/rules/explain", &[Kind::InvalidParameter, Kind::Unavailable]),
    ("/readyz", &[Kind::InvalidParameter]),
];

/// The words that some parameters take.
const WORDS: [(&str, &[&str]); 5] = [
    ("Content-Encoding", &["identity", "gzip", "zstd"]),
    ("precision", &["s", "ms", "us", "ns"]),
    ("on_error", &["refuse", "skip"]),
    ("format", &["json", "ndjson", "csv", "text"]),
    ("exclude", &["sink"]),
];

/// `GET /openapi.json`: this document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses(
    (status = 200, description = "OpenAPI 3.1", body = Value, content_type = "application/json"),
))]
pub(super) async fn serve() -> Response {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

fn document() -> Value {
    let mut document = Document::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    for (path, item) in &mut document.paths.paths {
        let kinds = PROBLEMS.iter().find(|(route, _)| route == path).map_or(&[][..], |(_, kinds)| kinds);
        let guarded: &[Kind] = if OPEN.contains(&path.as_str()) { &[] } else { &GUARDED };
        for operation in operations(item) {
            operation.parameters.get_or_insert_default().push(request_id().into());
            add_problems(operation, &[guarded, kinds].concat());
            if guarded.is_empty() {
                operation.security = Some(Vec::new());
            }
        }
    }
    let mut document = serde_json::to_value(document).expect("a document is JSON");
    document["components"]["securitySchemes"] = json!({
        "token": {"type": "http", "scheme": "bearer", "description": "A token as `meanwhile token create` prints it, where the service has --auth-file; also `Authorization: Token ...`"},
        "user": {"type": "http", "scheme": "basic", "description": "A user and a password, or anything and a token"},
    });
    // Where the service asks nobody, nothing is needed.
    document["security"] = json!([{"token": []}, {"user": []}, {}]);
    let types: Vec<String> = Kind::ALL.iter().map(|kind| kind.type_uri()).collect();
    document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"] = json!(types);
    let routes = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let operations = routes.filter_map(Value::as_object_mut).flat_map(|route| route.values_mut());
    for parameter in operations.filter_map(|operation| operation["parameters"].as_array_mut()).flatten() {
        let own = !parameter["schema"]["enum"].is_null() || !parameter["schema"]["pattern"].is_null();
        if let Some((_, words)) = WORDS.iter().find(|(name, _)| !own && parameter["name"] == *name) {
            parameter["schema"] = json!({"type": "string", "enum": words});
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.delete].into_iter().filter_map(Option::as_mut)
}

fn request_id() -> Parameter {
    ParameterBuilder::new()
        .name("X-Request-Id")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Comes back in the answer and stands in the log; up to 128 visible ASCII characters"))
        .schema(Some(utoipa::openapi::Object::with_type(utoipa::openapi::Type::String)))
        .build()
}

/// One response per status; its description lists the types.
fn add_problems(operation: &mut Operation, kinds: &[Kind]) {
    let mut by_status: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for kind in kinds.iter().chain(&ANYWHERE) {
        let (status, name, title) = kind.row();
        by_status.entry(status.as_u16()).or_default().push(format!("{name}: {title}"));
    }
    for (status, types) in by_status {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let types = types.join("; ");
        match operation.responses.responses.entry(status.to_string()) {
            // An answer of the route's own has this status too.
            Entry::Occupied(mut own) => {
                if let RefOr::T(own) = own.get_mut() {
                    own.description = format!("{}; or {types}", own.description);
                    own.content.insert("application/problem+json".to_owned(), problem.into());
                }
            }
            Entry::Vacant(free) => {
                let response = ResponseBuilder::new().description(types).content("application/problem+json", problem);
                free.insert(response.build().into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::receive;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_of_the_table_is_in_it() {
        let table = include_str!("mod.rs").split("#[cfg(test)]").next().unwrap();
        let routes: BTreeSet<String> = table
            .split(".route(\"")
            .skip(1)
            .map(|route| {
                let (path, rest) = route.split_once('"').unwrap();
                let method = rest.trim_start_matches([',', ' ']).split('(').next().unwrap();
                // A rest of the path, slashes included, is a parameter like others to those who read.
                format!("{method} {}", path.replace("{*", "{"))
            })
            .collect();
        let document = document();
        let methods = |(path, item): (&String, &Value)| -> Vec<String> {
            item.as_object().unwrap().keys().map(|method| format!("{method} {path}")).collect()
        };
        let documented = document["paths"].as_object().unwrap().iter().flat_map(methods).collect();
        assert_eq!(routes, documented, "give the handler a #[utoipa::path] and name it in Document");
    }

    #[test]
    fn open_paths_are_those_of_the_table() {
        let table = include_str!("mod.rs").split("#[cfg(test)]").next().unwrap();
        let open =
            table.split(".route(\"").skip(1).filter(|route| route.split('\n').next().unwrap().contains("Anyone)"));
        let open: Vec<&str> = open.map(|route| route.split('"').next().unwrap()).collect();
        assert_eq!(open, OPEN, "as the route table has them");
    }

    #[test]
    fn every_parameter_is_named() {
        let document = document();
        let check = |method: &str, path: &str, parameters: &[&str]| {
            let documented = document["paths"][path][method]["parameters"].as_array().unwrap();
            let documented = documented.iter().filter(|parameter| parameter["in"] == "query");
            let names: BTreeSet<&str> = documented.map(|parameter| parameter["name"].as_str().unwrap()).collect();
            assert_eq!(names, parameters.iter().copied().collect(), "{method} {path}");
        };
        check("post", "/v1/readings", &receive::PARAMETERS);
        check("get", "/v1/stats", &stats::PARAMETERS);
        check("get", "/v1/summary", &summary::PARAMETERS);
        check("get", "/v1/compare", &compare::PARAMETERS);
        check("get", "/v1/sources", &sources::PARAMETERS);
        check("get", "/v1/state", &["source"]);
        check("get", "/v1/stream", &stream::PARAMETERS);
        check("post", "/v1/publish", &["channel"]);
        check("post", "/v1/drain", &["wait"]);
        check("get", "/readyz", &["exclude"]);
    }

    #[test]
    fn every_kind_of_problem_is_named() {
        let no_route = [Kind::NotFound, Kind::MethodNotAllowed];
        for kind in Kind::ALL {
            let listed = ANYWHERE.contains(&kind)
                || GUARDED.contains(&kind)
                || PROBLEMS.iter().any(|(_, kinds)| kinds.contains(&kind));
            assert_eq!(listed, !no_route.contains(&kind), "{kind:?} in PROBLEMS");
        }
        let document = document();
        let response = &document["paths"]["/v1/readings"]["post"]["responses"]["503"];
        assert_eq!(response["content"]["application/problem+json"]["schema"]["$ref"], "#/components/schemas/Problem");
        assert!(response["description"].as_str().unwrap().starts_with("busy: "), "{response}");
    }

    #[test]
    fn references_lead_somewhere() {
        fn walk(value: &Value, whole: &Value) {
            if let Some(reference) = value["$ref"].as_str() {
                assert!(whole.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
            match value {
                Value::Object(members) => members.values().for_each(|member| walk(member, whole)),
                Value::Array(elements) => elements.iter().for_each(|element| walk(element, whole)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }
}
