//! A service in this process that nobody listens to: all routes over the oracle and a sink in a directory.
//!
//! Used by `requests.rs`. Whatever it is asked, an answer that is no success is a problem document.

use crate::oracle::Oracle;
use crate::servers::temporary;
use crate::world::{POLICY, T0, calendar};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderName, HeaderValue, Request};
use meanwhile::clock::Clock;
use meanwhile::config::{Role, Web};
use meanwhile::errorlog::ErrorLog;
use meanwhile::http::{Guard, Instance, Service, live_rows, router};
use meanwhile::incidents::Incident;
use meanwhile::ingest::commit::Committer;
use meanwhile::live::{Expected, Hub};
use meanwhile::nodes::Nodes;
use meanwhile::query::Query;
use meanwhile::rollover::Rollover;
use meanwhile::sink::Sink;
use meanwhile::sink::csv::CsvSink;
use meanwhile::store::errors;
use meanwhile::store::nodes::Node;
use meanwhile::store::{Store, StoreError};
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tower::ServiceExt;

/// What is counted makes the oracle slower: after so many requests it begins anew.
const REQUESTS: usize = 500;

/// An error log that stays empty.
struct NoErrors;

#[async_trait::async_trait]
impl errors::ErrorLog for NoErrors {
    async fn note_errors(&self, _: &[Incident]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn errors(&self) -> Result<Vec<Incident>, StoreError> {
        Ok(Vec::new())
    }
}

/// A service that nobody listens to.
pub(super) struct Inside {
    runtime: Runtime,
    router: Router,
    _sink: TempDir,
}

impl Inside {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sink_files = temporary();
        let router = runtime.block_on(async {
            let clock = Clock::manual(T0);
            let store: Arc<dyn Store> = Arc::new(Oracle::new(POLICY, clock.clone()));
            store.found(0).await.unwrap();
            let calendar = Arc::new(calendar("1m,1h,1d"));
            let sink: Arc<dyn Sink> = Arc::new(CsvSink::open(sink_files.path(), calendar.zone().clone()).unwrap());
            let rollover = Rollover::new(Arc::clone(&store), Arc::clone(&sink), Arc::clone(&calendar), None);
            let wake = Arc::new(Notify::new());
            let (committer, _) =
                Committer::start(Arc::clone(&store), Arc::clone(&calendar), wake, Clock::System).await.unwrap();
            let me = Node {
                id: "inside".to_owned(),
                role: Role::All.to_string(),
                address: "http://inside".to_owned(),
                version: String::new(),
                sink: None,
                settings: BTreeMap::new(),
            };
            let nodes = Nodes::join(Arc::clone(&store), me).await.unwrap();
            let query = Arc::new(Query::new(Arc::clone(&store), Some(sink), Arc::clone(&calendar)));
            router(Service {
                hub: Hub::new(Arc::clone(&store), Arc::clone(&query), None, live_rows, Expected::default()),
                query,
                calendar,
                committer: Arc::new(committer),
                store,
                progress: rollover.progress(),
                orders: Some(rollover.orders()),
                nodes,
                errors: ErrorLog::new(Arc::new(NoErrors), "inside".to_owned()),
                role: Role::All,
                web: Web::default(),
                instance: Instance::random(),
                guard: Guard::new(None, 0, None, clock.clone()),
                demo: false,
                clock,
            })
        });
        let inside = Self { runtime, router, _sink: sink_files };
        let (status, _) =
            inside.ask("POST", "/v1/readings", &[], vec![br#"[{"source":"a","value":1},{"source":"b","value":2}]"#]);
        assert_eq!(status, 200);
        inside
    }

    /// Status and body of the answer, which is JSON where it is a problem.
    pub(super) fn ask(&self, method: &str, uri: &str, headers: &[(&str, &[u8])], body: Vec<&[u8]>) -> (u16, String) {
        let chunks: Vec<_> = body.into_iter().map(|chunk| Ok::<_, Infallible>(Bytes::copy_from_slice(chunk))).collect();
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        let mut request = Request::builder().method(method).uri(uri).body(body).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        let answer = async {
            let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
            (head, to_bytes(body, usize::MAX).await.unwrap())
        };
        let (head, body) = self.runtime.block_on(answer);
        let body = String::from_utf8(body.to_vec()).unwrap();
        let status = head.status.as_u16();
        if status != 200 {
            assert_eq!(head.headers["content-type"], "application/problem+json", "{status}: {body}");
            let document: Value = serde_json::from_str(&body).unwrap();
            let (detail, kind) = (document["detail"].as_str().unwrap(), document["type"].as_str().unwrap());
            assert!(!detail.is_empty() && kind.starts_with("/problems/") && document["status"] == status, "{body}");
        }
        (status, body)
    }
}

/// A service that is begun anew now and then.
pub(super) struct Services(Cell<(Option<Inside>, usize)>);

impl Services {
    pub(super) fn new() -> Self {
        Self(Cell::new((None, 0)))
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&Inside) -> T) -> T {
        let (inside, used) = self.0.take();
        let inside = inside.filter(|_| used % REQUESTS != 0).unwrap_or_else(Inside::new);
        let result = work(&inside);
        self.0.set((Some(inside), used + 1));
        result
    }
}
