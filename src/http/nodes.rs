//! `GET /v1/nodes`: the instances that share the store, and which of them does what this one does not.
//!
//! Called by the route table, and by the handlers of what only an instance with another role can
//! answer. Says what this instance last found out and asks nobody.

use super::Service;
use super::parameters::Parameters;
use super::problem::{Kind, Problem};
use crate::config::Role;
use crate::nodes::Nodes;
use crate::rollover::Orders;
use crate::store::nodes::{Node, Registered};
use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Who shares the store.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodesBody {
    /// Those that came first first.
    nodes: Vec<NodeBody>,
}

#[derive(Debug, Serialize, ToSchema)]
struct NodeBody {
    /// As in X-Instance.
    instance: String,
    /// Whether it is the one that answers.
    this: bool,
    #[schema(example = "all")]
    role: String,
    #[schema(example = "http://10.0.0.5:8080")]
    address: String,
    version: String,
    sink: Option<SinkBody>,
    /// By the store's clock; after 15 s it is off the list.
    heard_seconds_ago: f64,
    /// What must be the same on all of them.
    #[schema(value_type = Object)]
    settings: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct SinkBody {
    #[schema(example = "csv:./meanwhile-data/csv")]
    name: String,
    /// Whether only one instance may have it.
    exclusive: bool,
}

#[utoipa::path(get, path = "/v1/nodes", tag = "operations", responses(
    (status = 200, description = "The instances that share the store", body = NodesBody),
))]
pub(super) async fn nodes(State(service): State<Service>, raw: RawQuery) -> Result<Json<NodesBody>, Problem> {
    Parameters::read(&raw, &[], "")?;
    let me = service.nodes.me().id.clone();
    let body = |Registered { node, heard, .. }: Registered| NodeBody {
        this: node.id == me,
        instance: node.id,
        role: node.role,
        address: node.address,
        version: node.version,
        sink: node.sink.map(|sink| SinkBody { name: sink.name, exclusive: sink.exclusive }),
        heard_seconds_ago: heard as f64 / 1_000.0,
        settings: node.settings,
    };
    Ok(Json(NodesBody { nodes: service.nodes.list().into_iter().map(body).collect() }))
}

/// Names the instance to ask, where this one cannot answer because it has no sink.
pub(super) fn with_the_sink(problem: Problem, nodes: &Nodes) -> Problem {
    if problem.kind() != Kind::NoSink {
        return problem;
    }
    let list = nodes.list();
    let holder = list.iter().map(|entry| &entry.node).find_map(|node| Some((node, node.sink.as_ref()?)));
    let detail = problem.detail();
    let Some((node, sink)) = holder else {
        let remedy = "none of those that share its store has one: start one with --role rollover";
        return Problem::new(Kind::NoSink, format!("{detail}, and {remedy}"));
    };
    let detail = format!("{detail}: ask {}, which has {}", node.address, sink.name);
    Problem::new(Kind::NoSink, detail).with("address", node.address.clone().into())
}

/// To ask the rollover, where there is one.
pub(super) fn orders(service: &Service) -> Result<&Orders, Problem> {
    let elsewhere = || Problem::new(Kind::NoSink, "this instance has no sink (--role ingest)");
    service.orders.as_ref().ok_or_else(|| with_the_sink(elsewhere(), &service.nodes))
}

/// The answer to readings where none are taken.
pub(super) fn no_ingest(nodes: &Nodes) -> Problem {
    const DETAIL: &str = "this instance takes no readings (--role rollover); nothing was counted";
    let list = nodes.list();
    let takes = |node: &&Node| node.role.parse().is_ok_and(Role::takes_readings);
    match list.iter().map(|entry| &entry.node).find(takes) {
        Some(node) => Problem::new(Kind::NoIngest, format!("{DETAIL}: send them to {}", node.address))
            .with("address", node.address.clone().into()),
        None => Problem::new(Kind::NoIngest, format!("{DETAIL}: start an instance with --role ingest")),
    }
}
