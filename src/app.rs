//! Wires the parts together: what starts in which order, and what stops in which.
//!
//! Called by `cli/serve.rs` and by tests, with a bound listener and any future as the stop signal.
//! Start: sink (its lock first), store, its other instances, committer, rollover, HTTP. Stop: no new connections, what is
//! in flight is answered, the running tick ends, the committer runs dry. What is not done within
//! [`STOP_DEADLINE`] is left to the store and the next start: nothing acknowledged is lost by it.

mod node;
mod rules;

use crate::auth::Auth;
use crate::clock::{self, Clock};
use crate::config::{Acks, Config, SinkUrl, StoreUrl, warn_if_open};
use crate::errorlog::ErrorLog;
use crate::http::server::{Entrance, Limits, Tls, listen, serve};
use crate::http::{self, Guard, Instance, Redirect, Service};
use crate::incidents;
use crate::ingest::commit::Committer;
use crate::live::{Expected, Hub};
use crate::nodes::{NodeError, Nodes};
use crate::query::Query;
use crate::rollover::{Progress, Rollover};
use crate::sink::csv::CsvSink;
use crate::sink::postgres::PostgresSink;
use crate::sink::{Sink, SinkError};
use crate::stats::calendar::Calendar;
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;
use crate::store::errors::ErrorLog as KeptErrors;
use crate::store::redis::RedisStore;
use crate::store::redis::bus::Bus;
use crate::telemetry;
use anyhow::{Context, bail};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout_at;

/// Time for what is in flight at the stop signal; shorter than the 90 s of a service manager.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Connections at once of those who are only sent on to https: each is there for one answer.
const REDIRECTED_CONNECTIONS: usize = 512;

/// Runs the service until `shutdown`.
///
/// # Errors
/// If something cannot be started, or if a part that must not end has ended: then nothing goes on
/// serving over a dead core.
pub async fn run(config: Config, listener: TcpListener, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let calendar = Arc::new(config.calendar.clone());
    let tls = open_tls(&config)?;
    let (sink, prepared) = if config.role.has_sink() {
        let (sink, prepared) = open_sink(&config, &calendar).await?;
        (Some(sink), prepared)
    } else {
        (None, Ok(()))
    };
    let (store, kept_errors) = open_store(&config).await?;
    let address = listener.local_addr().context("the listener has no address")?;
    let instance = Instance::random();
    let errors = ErrorLog::new(kept_errors, instance.to_string());
    let _noting = AbortOnDrop(incidents::spawn("error log", Arc::clone(&errors).run()));
    let me = node::node(instance.to_string(), &config, sink.as_deref(), address);
    let mut shutdown = std::pin::pin!(shutdown);
    let nodes = tokio::select! {
        joined = Nodes::join(Arc::clone(&store), me) => joined?,
        () = &mut shutdown => return Ok(()),
    };
    note_periods(&*store, &calendar).await?;
    let wake = Arc::new(Notify::new());
    let (committer, committing) =
        Committer::start(Arc::clone(&store), Arc::clone(&calendar), Arc::clone(&wake), Clock::System)
            .await
            .with_context(|| format!("cannot use the store {}", store.name()))?;
    let _rules = follow_rules(&config, &committer).await?;
    let (stop, stopped) = watch::channel(false);
    let (mut progress, mut orders) = (Arc::<Progress>::default(), None);
    let rolling = if let Some(sink) = &sink {
        let rollover = Rollover::new(Arc::clone(&store), Arc::clone(sink), Arc::clone(&calendar), config.hold)
            .retaining(config.retain.clone(), Clock::System)
            .after(&prepared);
        (progress, orders) = (rollover.progress(), Some(rollover.orders()));
        incidents::spawn("rollover", rollover.run(wake, until_stopped(stopped.clone())))
    } else {
        incidents::spawn("rollover", until_stopped(stopped.clone()))
    };
    let query = Arc::new(Query::new(Arc::clone(&store), sink.clone(), Arc::clone(&calendar)));
    let expected = Expected { after: config.silent_after };
    let hub = Hub::new(Arc::clone(&store), Arc::clone(&query), open_bus(&config)?, http::live_rows, expected);
    let auth = open_auth(&config)?;
    let service = Service {
        guard: Guard::new(auth.clone(), config.rate_per_address, config.live_idle(), Clock::System),
        query,
        hub: Arc::clone(&hub),
        calendar,
        committer: Arc::new(committer),
        store: Arc::clone(&store),
        progress,
        orders,
        nodes: Arc::clone(&nodes),
        errors: Arc::clone(&errors),
        role: config.role,
        web: config.web.clone(),
        instance,
        demo: config.demo,
        clock: Clock::System,
    };
    tracing::info!("this is instance {}, which every answer names in X-Instance", service.instance);
    let limits = Limits {
        connections: config.max_connections,
        per_address: config.max_connections_per_address,
        ..Limits::default()
    };
    let redirecting = redirect(&config, tls.clone(), address, service.instance.clone(), stopped.clone())?;
    let _redirecting = AbortOnDrop(incidents::spawn("redirect", redirecting));
    let _certificate = tls.clone().map(keep_up).transpose()?;
    let entrance = Entrance::new(config.trusted_proxies.clone(), config.proxy_protocol).with_tls(tls);
    let serving = serve(listener, http::router(service), limits, entrance, until_stopped(stopped));
    let serving = incidents::spawn("http", serving);
    let live = Arc::clone(&hub);
    let live = incidents::spawn_kept_alive("live", move || Arc::clone(&live).run(|| Clock::System.now()));
    let _live = AbortOnDrop(live);
    let auth = auth.map(|auth| incidents::spawn_kept_alive("tokens", move || Arc::clone(&auth).run()));
    let _auth = auth.map(AbortOnDrop);
    let _upkeep = AbortOnDrop(incidents::spawn_kept_alive("metrics", telemetry::metrics::upkeep));
    say_where(&config, &*store, address);
    telemetry::manager::ready(&format!("listening on {}", origin(&config, address)));

    let staying = incidents::spawn("nodes", Arc::clone(&nodes).stay());
    let mut core = Core { serving, rolling, committing, staying };
    tokio::select! {
        () = shutdown => {}
        dead = core.ended_early() => {
            errors.finish().await;
            return dead;
        }
    }
    tracing::info!("stopping: what is in flight is finished first");
    telemetry::manager::stopping();
    stop.send_replace(true);
    // Streams have no end of their own.
    hub.end();
    let stopped = core.stop().await;
    nodes.leave().await;
    errors.finish().await;
    stopped
}

/// Notes which periods are stored from now on: of one that is new, older rows are incomplete.
async fn note_periods(store: &dyn Store, calendar: &Calendar) -> anyhow::Result<()> {
    let unusable = || format!("cannot use the store {}", store.name());
    let mut complete = store.complete().await.with_context(unusable)?;
    if complete.store(calendar, Clock::System.now()) {
        store.keep_complete(&complete).await.with_context(unusable)?;
    }
    Ok(())
}

fn open_auth(config: &Config) -> anyhow::Result<Option<Arc<Auth>>> {
    let Some(path) = &config.auth_file else {
        if !config.listen.ip().to_canonical().is_loopback() {
            tracing::warn!(
                "everybody who reaches {} may read, write and forget everything (--insecure)",
                config.listen
            );
        }
        return Ok(None);
    };
    let opened = Auth::open(path).context("--auth-file: `meanwhile token create` makes one")?;
    tracing::info!("{} says who may do what", path.display());
    Ok(Some(opened))
}

/// A sink that is away does not keep the service from taking readings: they wait in the store. It comes with why.
async fn open_sink(config: &Config, calendar: &Calendar) -> anyhow::Result<(Arc<dyn Sink>, Result<(), SinkError>)> {
    let url = match &config.sink {
        SinkUrl::Csv(directory) => {
            let sink = CsvSink::open(directory, calendar.zone().clone());
            return Ok((Arc::new(sink.with_context(|| format!("--sink {}", config.sink))?), Ok(())));
        }
        SinkUrl::Postgres(url) => url,
    };
    let unusable = || format!("cannot use the sink {}", config.sink);
    let sink = PostgresSink::new(url.reveal(), config.sink.to_string()).with_context(unusable)?;
    let prepared = sink.prepare().await;
    match prepared {
        Err(SinkError::Unavailable(ref reason)) => {
            tracing::error!("the sink {} is away, finished buckets wait in the store: {reason}", config.sink);
            Ok((Arc::new(sink), prepared))
        }
        prepared => Ok((Arc::new(sink), Ok(prepared.with_context(unusable)?))),
    }
}

/// The store, and the error log in it.
async fn open_store(config: &Config) -> anyhow::Result<(Arc<dyn Store>, Arc<dyn KeptErrors>)> {
    Ok(match &config.store {
        StoreUrl::Embedded(directory) => {
            let store = Arc::new(EmbeddedStore::open(directory, config.policy, Clock::System)?);
            (Arc::<EmbeddedStore>::clone(&store), store)
        }
        StoreUrl::Redis(url) => {
            let store = RedisStore::connect(url.reveal(), config.policy, None).await;
            let store = store.with_context(|| format!("cannot use the store {}", config.store))?;
            let store = store.acknowledging(config.acks);
            if let (Acks::Replica, Err(error)) = (config.acks, store.barrier(0).await) {
                tracing::warn!("nothing is acknowledged before a replica confirms it (--acks replica): {error}");
            }
            let store = Arc::new(store);
            (Arc::<RedisStore>::clone(&store), store)
        }
    })
}

/// Messages travel through the Redis that is the store.
fn open_bus(config: &Config) -> anyhow::Result<Option<Arc<Bus>>> {
    match &config.store {
        StoreUrl::Embedded(_) => Ok(None),
        StoreUrl::Redis(url) => Ok(Some(Bus::new(url.reveal())?)),
    }
}

/// The certificate, where there is one.
fn open_tls(config: &Config) -> anyhow::Result<Option<Arc<Tls>>> {
    let Some(encryption) = &config.encryption else { return Ok(None) };
    if let Some(warning) = warn_if_open(&encryption.files.key) {
        tracing::warn!("{warning}");
    }
    let tls = Tls::open(&encryption.files).map_err(|reason| anyhow::anyhow!("{reason} (--tls-cert, --tls-key)"))?;
    Ok(Some(tls))
}

/// Takes over a certificate that is renewed.
fn keep_up(tls: Arc<Tls>) -> anyhow::Result<AbortOnDrop> {
    let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    Ok(AbortOnDrop(incidents::spawn("certificate", tls.keep_up(hangup))))
}

/// The file of rules, where there is one.
async fn follow_rules(config: &Config, committer: &Committer) -> anyhow::Result<Option<AbortOnDrop>> {
    let Some(path) = &config.rules else { return Ok(None) };
    rules::begin(path, committer.rules()).await?;
    let following = rules::keep_up(path.clone(), Arc::clone(committer.rules()))?;
    Ok(Some(AbortOnDrop(incidents::spawn("rules", following))))
}

/// Sends plain HTTP on to https, if it is to.
fn redirect(
    config: &Config,
    tls: Option<Arc<Tls>>,
    address: SocketAddr,
    instance: Instance,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let encryption = config.encryption.as_ref();
    let listener = encryption.and_then(|encryption| encryption.redirect).map(|address| {
        listen(address)
            .with_context(|| format!("cannot listen on {address}; --redirect-listen chooses another address"))
    });
    let listener = listener.transpose()?;
    let public_url = encryption.and_then(|encryption| encryption.public_url.clone());
    let limits = Limits { connections: REDIRECTED_CONNECTIONS, ..Limits::default() };
    let entrance = Entrance::new(config.trusted_proxies.clone(), false);
    Ok(async move {
        let Some((listener, tls)) = listener.zip(tls) else { return };
        if let Ok(plain) = listener.local_addr() {
            telemetry::announce(&format!("sending on from http://{plain}"));
        }
        let routes = http::redirects(Redirect { public_url, tls, port: address.port() }, instance);
        serve(listener, routes, limits, entrance, until_stopped(stopped)).await;
    })
}

fn origin(config: &Config, address: SocketAddr) -> String {
    let scheme = if config.encryption.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// Where clients begin.
fn root(config: &Config, address: SocketAddr) -> String {
    origin(config, address) + config.web.base_path.as_deref().unwrap_or_default()
}

fn say_where(config: &Config, store: &dyn Store, address: SocketAddr) {
    let (origin, root) = (origin(config, address), root(config, address));
    let sink = if config.role.has_sink() { config.sink.to_string() } else { "none, role ingest".to_owned() };
    let acks = store.acks();
    tracing::info!("store {}, durability {}, acks {acks}; sink {sink}", store.name(), store.durability());
    // Read by people and by programs that start the service: the port may have been chosen by the system.
    telemetry::announce(&format!("listening on {origin}"));
    telemetry::announce(&format!("a page for people: {root}/"));
    telemetry::announce(&format!("post readings to {root}/v1/readings, for example:"));
    telemetry::announce(&format!("  curl {root}/v1/readings -d '{{\"source\": \"kitchen\", \"value\": 21.5}}'"));
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // The sender is dropped only after the stop.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// A task that has no end of its own.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The tasks that must not end before the stop.
struct Core {
    serving: JoinHandle<()>,
    rolling: JoinHandle<()>,
    committing: JoinHandle<()>,
    /// Has no end but to say that this instance must not go on.
    staying: JoinHandle<NodeError>,
}

impl Core {
    /// Returns only if one of them has ended, by a panic or a failing listener.
    async fn ended_early(&mut self) -> anyhow::Result<()> {
        let (what, why): (_, Result<(), JoinError>) = tokio::select! {
            ended = &mut self.serving => ("HTTP", ended),
            ended = &mut self.rolling => ("the rollover", ended),
            ended = &mut self.committing => ("the committer", ended),
            ended = &mut self.staying => match ended {
                Ok(reason) => bail!("another instance has taken this one's place, the process ends: {reason}"),
                Err(panic) => ("the list of instances", Err(panic)),
            },
        };
        match why {
            Err(panic) => bail!("{what} has failed, the process ends: {panic}"),
            Ok(()) => bail!("{what} has ended, the process ends"),
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.staying.abort();
        let deadline = clock::instant() + STOP_DEADLINE;
        let all = async {
            self.serving.await?;
            self.rolling.await?;
            self.committing.await?;
            anyhow::Ok(())
        };
        if let Ok(ended) = timeout_at(deadline, all).await {
            ended
        } else {
            tracing::warn!("stopped with requests in flight after {} s", STOP_DEADLINE.as_secs());
            Ok(())
        }
    }
}
