//! Several instances behind the real nginx, HAProxy and stunnel, with the files of `deploy/` as they are shipped.
//!
//! `front.rs` starts a proxy with one of the files, in which only ports, paths and users are those of the test
//! (`machine.rs`); each test may change a line to see what it is for. Instances share a Redis and a table of PostgreSQL, so that each can do
//! everything. What is asked for by path and name is in `paths.rs`, who stays where in `stickiness.rs`, the ways to connect
//! in `modes.rs`, silence in `silence.rs`, the addresses of clients in `peers.rs`; `crowd.rs` has many clients, which
//! `balance.rs` counts, and over whose heads `dying.rs` kills instances.

mod balance;
mod crowd;
mod dying;
mod files;
mod front;
mod machine;
mod modes;
mod paths;
mod peers;
mod posts;
mod silence;
mod stickiness;

use crate::postgres_server::Database;
use crate::servers::RedisServer;
use crate::service::Service;

/// Instances on one Redis and one table.
struct Site {
    nodes: Vec<Service>,
    _redis: RedisServer,
}

/// Buckets close while the tests look on.
const SHORT: [&str; 6] = ["--periods", "1s,1m", "--grace", "100ms", "--lateness", "500ms"];

impl Site {
    fn start(instances: usize) -> Self {
        Self::start_with(instances, &[])
    }

    fn start_with(instances: usize, others: &[&str]) -> Self {
        let (redis, database) = (RedisServer::start_durable(), Database::new());
        let (store, sink) = (redis.url(), database.url());
        let flags = [&["--store", &store, "--sink", &sink][..], &SHORT, others].concat();
        let nodes = (0..instances).map(|_| Service::start_beside(&flags, &[])).collect();
        Self { nodes, _redis: redis }
    }

    /// The ports of the instances.
    fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.url().rsplit_once(':').unwrap().1.parse().unwrap()).collect()
    }

    /// The name of each instance, as long as it is not started again.
    fn instances(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client().get("/healthz").headers["x-instance"].clone()).collect()
    }
}
