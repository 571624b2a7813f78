//! What a crash of everything takes from clients that come back with a cursor: nothing.
//!
//! 10,000 sources have readings in one minute, and a thousand clients are subscribed to the closing of ten each. Each
//! has heard of a row of an earlier minute, so it has a cursor. While the rows are written, the service and Redis are
//! killed and started again; the clients come back with the id of the last event they have heard. Each row has to
//! come, and none twice.

use crate::Run;
use crate::client::{Client as Http, post_readings};
use crate::processes::free_port;
use crate::report::Goal;
use crate::servers::World;
use crate::socketio::Client;
use anyhow::{Result, ensure};
use meanwhile::clock::{self, Clock};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const CLIENTS: usize = 1_000;
const EACH: usize = 10;
const BATCH: usize = 1_000;
const MINUTE: i64 = 60_000;
/// Due ten seconds after the last reading, and then written in one go.
const FLAGS: [&str; 8] = ["--periods", "1m,1h", "--grace", "10s", "--lateness", "1m", "--hold", "0s"];
/// Everything is killed when so much of all was heard: one part in so many.
const KILL_AT: usize = 10;
const COME_BACK: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_mins(2);
/// What would come twice has come by then.
const SETTLES: Duration = Duration::from_secs(3);

/// What one client has heard: how often it was told of each row, and the id of the last event.
#[derive(Default)]
struct Heard {
    rows: BTreeMap<String, usize>,
    last: Option<String>,
    recovered: bool,
}

struct Told {
    clients: Vec<Mutex<Heard>>,
    /// Rows that somebody has heard of.
    rows: AtomicUsize,
    subscribed: AtomicUsize,
    enough: AtomicBool,
}

/// Prints what was lost and what came twice, and returns the goals.
pub(crate) async fn measure(run: &Run) -> Result<Vec<Goal>> {
    let clients = run.of(CLIENTS);
    let all = clients * EACH;
    // One of each client for its cursor.
    let rows = clients + all;
    println!("\nCursors: {all} rows are closed, {clients} clients hear of {EACH} each, and everything is killed");
    let mut world = World::start("always")?;
    let port = free_port()?;
    let mut service = world.service(&run.service, port, &FLAGS)?;
    let told = Arc::new(Told {
        clients: (0..clients).map(|_| Mutex::default()).collect(),
        rows: AtomicUsize::new(0),
        subscribed: AtomicUsize::new(0),
        enough: AtomicBool::new(false),
    });
    let tasks: Vec<JoinHandle<()>> =
        (0..clients).map(|n| tokio::spawn(Arc::clone(&told).listen(service.address, n))).collect();
    told.wait("clients are subscribed", |told| told.subscribed.load(Ordering::Relaxed), clients).await?;
    fill(service.address, 5, (0..all).step_by(EACH))?;
    told.wait("clients have a cursor", |told| told.rows.load(Ordering::Relaxed), clients).await?;
    fill(service.address, 3, 0..all)?;
    told.wait("rows were heard of", |told| told.rows.load(Ordering::Relaxed), clients + all / KILL_AT).await?;
    service.process.kill();
    let before = told.rows.load(Ordering::Relaxed);
    world.restart_redis()?;
    drop(service);
    let _service = world.service(&run.service, port, &FLAGS)?;
    told.wait("rows were heard of", |told| told.rows.load(Ordering::Relaxed), rows).await.or_else(|error| {
        eprintln!("bench: {error:#}");
        anyhow::Ok(())
    })?;
    sleep(SETTLES).await;
    told.enough.store(true, Ordering::Relaxed);
    tasks.iter().for_each(JoinHandle::abort);
    let (mut heard, mut twice, mut parts) = (0, 0, 0);
    for client in &told.clients {
        let client = client.lock().expect("no panic");
        heard += client.rows.len();
        twice += client.rows.values().map(|times| times - 1).sum::<usize>();
        parts += usize::from(!client.recovered);
    }
    println!(
        "{before} rows were heard of before, {heard} of {rows} in the end, {twice} twice; {parts} clients were told that something is missing"
    );
    Ok(vec![
        Goal::new("cursors: rows nobody told of", (rows - heard) as f64, 0.0, run.counts),
        Goal::new("cursors: rows told of twice", twice as f64, 0.0, run.counts),
    ])
}

impl Told {
    async fn wait(&self, what: &str, of: impl Fn(&Self) -> usize, enough: usize) -> Result<()> {
        let began = clock::instant();
        while of(self) < enough {
            ensure!(began.elapsed() < PATIENCE, "{} of {enough} {what}", of(self));
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// One client, which comes back whenever it has lost its connection.
    async fn listen(self: Arc<Self>, server: SocketAddr, n: usize) {
        let sources: Vec<String> = (0..EACH).map(|i| format!("closed:{}", source(n * EACH + i))).collect();
        let mut first = true;
        while !self.enough.load(Ordering::Relaxed) {
            let since = self.clients[n].lock().expect("no panic").last.clone();
            let connected = async {
                let mut client = Client::connect(server, n, None).await?;
                let to = json!({"channel": sources, "since": since});
                client.subscribe(&to, &mut |packet| self.hear(n, packet)).await?;
                anyhow::Ok(client)
            };
            if let Ok(mut client) = connected.await {
                self.subscribed.fetch_add(usize::from(std::mem::take(&mut first)), Ordering::Relaxed);
                while client.hear(&mut |packet| self.hear(n, packet)).await.is_ok() {}
            }
            sleep(COME_BACK).await;
        }
    }

    fn hear(&self, n: usize, packet: &[u8]) {
        let Some(Ok(event)) = packet.strip_prefix(b"42").map(serde_json::from_slice::<Json>) else { return };
        let mut heard = self.clients[n].lock().expect("no panic");
        match event[0].as_str() {
            Some("closed") => {
                let (row, id) = (&event[1]["row"], &event[1]["id"]);
                let row = format!("{} {} {} {}", row["source"], row["start"], row["generation"], row["revision"]);
                *heard.rows.entry(row).or_default() += 1;
                heard.last = id.as_str().map(str::to_owned);
                self.rows.fetch_add(1, Ordering::Relaxed);
            }
            Some("recovered") => heard.recovered = event[1]["recovered"] == true,
            _ => {}
        }
    }
}

fn source(n: usize) -> String {
    format!("station-{n:05}")
}

/// A reading of each of these sources in one minute, so many minutes ago, which is past its lateness.
fn fill(server: SocketAddr, minutes: i64, sources: impl Iterator<Item = usize>) -> Result<()> {
    let minute = (Clock::System.now() / MINUTE - minutes) * MINUTE;
    let mut client = Http::connect(server)?;
    let sources: Vec<usize> = sources.collect();
    for batch in sources.chunks(BATCH) {
        let mut lines = String::new();
        for n in batch {
            writeln!(lines, r#"{{"source":"{}","value":{}.5,"timestamp":{minute}}}"#, source(*n), n % 40)?;
        }
        client.deliver(&post_readings(lines.as_bytes()), batch.len())?;
    }
    Ok(())
}
