//! One connection to Redis: opened when needed, dropped at the first doubt, never re-sending.
//!
//! Called by `redis.rs` alone. A call whose answer did not come is reported as unknown and the
//! connection is thrown away, so that an answer can never belong to another call; who called
//! decides whether to repeat it. Scripts are loaded when the server does not know them, which is
//! safe because it then has not run them.

use super::mutants::mutated;
use crate::store::{Durability, StoreError};
use crate::telemetry::metrics;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, RedisError, TlsCertificates, Value,
};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// A server that is there accepts at once, even when it is busy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any script runs and than the kernel needs for one lost packet.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Milliseconds for a replica to confirm a write: it does so within one when it keeps up. Shorter than
/// [`RESPONSE_TIMEOUT`], since it is the server that waits.
const REPLICA_TIMEOUT: u64 = 1_000;

/// How often a script is loaded for one call: it may be flushed again before it is run.
const LOAD_ATTEMPTS: usize = 5;

/// Replies with which the server says that it did not run the call, and may run it later.
const TRY_LATER: [&str; 12] = [
    "LOADING",
    "MASTERDOWN",
    "BUSY",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
];

/// A Lua script and its name; the SHA-1 by which the server knows it is computed once.
pub(super) struct Script {
    name: &'static str,
    source: String,
    sha: String,
}

impl Script {
    pub(super) fn new(name: &'static str, parts: &[&str]) -> Self {
        let source = mutated(name, parts.concat());
        let sha = redis::Script::new(&source).get_hash().to_owned();
        Self { name, source, sha }
    }

    /// `EVALSHA` with these keys; arguments are added by the caller.
    pub(super) fn call(&self, keys: &[String]) -> Call<'_> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha).arg(keys.len()).arg(keys);
        Call { script: self, command }
    }
}

/// A script with its keys and arguments, ready to be sent, also more than once.
pub(super) struct Call<'s> {
    script: &'s Script,
    pub(super) command: Cmd,
}

impl Call<'_> {
    pub(super) fn arg<T: redis::ToRedisArgs>(&mut self, value: T) -> &mut Self {
        self.command.arg(value);
        self
    }
}

pub(super) struct Link {
    client: Client,
    /// The shard's scripts run one after another in Redis anyway, so calls share one connection.
    connection: Mutex<Option<MultiplexedConnection>>,
    /// Counts connections.
    renewed: AtomicU64,
}

impl Link {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        let client = open(url)?;
        Ok(Self { client, connection: Mutex::new(None), renewed: AtomicU64::new(0) })
    }

    /// For connections of another kind to the same server.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) fn renewed(&self) -> u64 {
        self.renewed.load(Ordering::SeqCst)
    }

    /// Runs a script and returns its reply.
    pub(super) async fn run(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        let mut connection = self.connect().await?;
        self.run_on(&mut connection, call).await
    }

    /// Runs a script that writes, and returns its reply once a replica has all that was written by then.
    ///
    /// # Errors
    /// `Unknown` if none says so in time: the server has run it.
    pub(super) async fn run_on_replica(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        // The server remembers for each connection how far its writes go: on another one the wait would be
        // over at once. This one is never opened again, it only fails.
        let mut connection = self.connect().await?;
        let reply = self.run_on(&mut connection, call).await?;
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(REPLICA_TIMEOUT);
        let answer = self.judge("WAIT", wait.query_async::<Value>(&mut connection).await).await;
        match answer {
            Ok(Value::Int(replicas)) if replicas > 0 => Ok(reply),
            Ok(_) => Err(StoreError::Unknown(format!("no replica has confirmed it within {REPLICA_TIMEOUT} ms"))),
            // The script has run, whatever became of the wait.
            Err(error) => Err(StoreError::Unknown(error.to_string())),
        }
    }

    /// Whether a replica is attached; changes nothing.
    pub(super) async fn has_replica(&self) -> Result<bool, StoreError> {
        let mut wait = redis::cmd("WAIT");
        Ok(self.command::<u64>(wait.arg(1).arg(REPLICA_TIMEOUT)).await? > 0)
    }

    async fn run_on(&self, connection: &mut MultiplexedConnection, call: &Call<'_>) -> Result<Value, StoreError> {
        for _ in 0..LOAD_ATTEMPTS {
            match call.command.query_async::<Value>(connection).await {
                Err(e) if e.code() == Some("NOSCRIPT") => {
                    let mut load = redis::cmd("SCRIPT");
                    load.arg("LOAD").arg(&call.script.source);
                    self.judge(call.script.name, load.query_async::<Value>(connection).await).await?;
                }
                answer => return self.judge(call.script.name, answer).await,
            }
        }
        Err(StoreError::Unavailable(format!("Redis forgets the script {} again and again", call.script.name)))
    }

    /// Runs a plain command.
    pub(super) async fn command<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut connection = self.connect().await?;
        let answer = command.query_async::<Value>(&mut connection).await;
        let value = self.judge("a command", answer).await?;
        redis::from_redis_value(value).map_err(|e| StoreError::Refused(format!("unexpected reply from Redis: {e}")))
    }

    async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        // The library's own limit covers the TCP connect, not a server that accepts and stays silent.
        let connection = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) => return Err(StoreError::Unavailable(self.explained(Some(&e)))),
            Err(_) => return Err(StoreError::Unavailable(self.explained(None))),
        };
        if self.renewed.fetch_add(1, Ordering::SeqCst) > 0 {
            metrics::store_reconnected();
        }
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Why there is no connection, and what is probably behind it. `None`: nothing came back in time.
    fn explained(&self, error: Option<&RedisError>) -> String {
        let error = error.filter(|error| !error.is_timeout());
        let reason = error.map_or_else(|| "no connection within 2 s".to_owned(), ToString::to_string);
        let is_tls = matches!(self.client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
        let hint = match error {
            _ if reason.contains("certificate") => {
                "; ?ca=FILE behind the address says whom to trust, and the address has to name the server as its \
                 certificate does"
            }
            // Once there was one, it is something else.
            _ if self.renewed() > 0 => "",
            // Redis takes the begin of TLS for that of a long command, and waits for its end.
            None if is_tls => "; without TLS it is redis://",
            Some(error) if !is_tls && error.is_connection_dropped() => "; with TLS it is rediss://",
            _ => "",
        };
        reason + hint
    }

    /// Tells refusals from answers that never came; after the latter the connection is gone.
    async fn judge(&self, what: &str, answer: Result<Value, RedisError>) -> Result<Value, StoreError> {
        let error = match answer {
            Ok(Value::ServerError(e)) => RedisError::from(e),
            Ok(value) => return Ok(value),
            Err(e) => e,
        };
        match error.code() {
            Some(code) if TRY_LATER.contains(&code) => Err(StoreError::Unavailable(error.to_string())),
            Some(_) => Err(StoreError::Refused(format!("Redis refused {what}: {error}"))),
            None => {
                *self.connection.lock().await = None;
                Err(StoreError::Unknown(error.to_string()))
            }
        }
    }
}

/// The library's client. `?ca=FILE` in an address names the only ones to be trusted, in the place of those whom browsers
/// trust.
fn open(url: &str) -> Result<Client, StoreError> {
    let wrong = |e: RedisError| StoreError::Refused(format!("the store's address is not right: {e}"));
    let (address, ca) = url.split_once("?ca=").map_or((url, None), |(address, ca)| (address, Some(ca)));
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    let info = address.into_connection_info().map_err(wrong)?.set_tcp_settings(tcp);
    let Some(ca) = ca else { return Client::open(info).map_err(wrong) };
    let pem = fs::read(ca)
        .map_err(|e| StoreError::Refused(format!("cannot read {ca}, whom the store is to be trusted by: {e}")))?;
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem) }).map_err(wrong)
}

/// What a confirmation of this server is worth, from its settings.
///
/// # Errors
/// If it may evict keys: a lost key is a lost bucket or a reading counted twice.
pub(super) async fn durability(link: &Link) -> Result<Durability, StoreError> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("appendonly").arg("appendfsync").arg("maxmemory-policy").arg("no-appendfsync-on-rewrite");
    let settings: std::collections::HashMap<String, String> = match link.command(&command).await {
        Ok(settings) => settings,
        Err(StoreError::Refused(_)) => return Ok(Durability::Unknown),
        // A user without the right to CONFIG; managed servers rename or forbid it.
        // The library spells the code its own way.
        Err(StoreError::Unavailable(e)) if e.to_ascii_uppercase().contains("NOPERM") => return Ok(Durability::Unknown),
        Err(e) => return Err(e),
    };
    let setting = |name: &str| settings.get(name).map(String::as_str);
    match setting("maxmemory-policy") {
        None => return Ok(Durability::Unknown),
        Some("noeviction") => {}
        Some(policy) => {
            return Err(StoreError::Refused(format!(
                "Redis may evict keys (maxmemory-policy {policy}), which would lose readings: set it to noeviction"
            )));
        }
    }
    Ok(match (setting("appendonly"), setting("appendfsync")) {
        (Some("yes"), Some("always")) if setting("no-appendfsync-on-rewrite") != Some("yes") => Durability::Disk,
        (Some("yes"), Some("always" | "everysec")) => Durability::Seconds,
        _ => Durability::Memory,
    })
}
