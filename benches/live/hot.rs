//! One source that everybody watches: what the watching costs beside the ingest, and whether the last value arrives.
//!
//! 50,000 readings a second come into one source, in batches; first nobody watches it, then a thousand clients do. The
//! live part of the CPU is the difference.

use crate::Run;
use crate::client::{Client, post_readings};
use crate::crowd::Crowd;
use crate::processes::free_port;
use crate::report::Goal;
use crate::servers::{Server, World};
use anyhow::{Result, ensure};
use meanwhile::clock;
use serde_json::json;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tokio::time::sleep;

const CLIENTS: usize = 1_000;
const BATCH: usize = 1_000;
const BATCHES_PER_SECOND: u32 = 50;
const BATCHES: usize = 500;
/// One bucket holds all readings of the run, unless the hour ends in it.
const FLAGS: [&str; 2] = ["--periods", "1h"];
const CONNECTIONS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(10);
const GOAL_PER_SECOND: f64 = 4.2;
const GOAL_MS: f64 = 500.0;
const GOAL_CORES: f64 = 0.25;

/// What a client has heard.
#[derive(Default)]
struct Heard {
    packets: AtomicU64,
    /// Readings in the bucket, of the last one.
    count: AtomicU64,
}

/// Prints what was seen and returns the goals.
pub(crate) async fn measure(run: &Run) -> Result<Vec<Goal>> {
    let (clients, batches) = (run.of(CLIENTS), run.of(BATCHES));
    println!(
        "\nHot: {} readings a second of one source, {clients} clients watch it",
        BATCH * BATCHES_PER_SECOND as usize
    );
    let world = World::start("everysec")?;
    let service = world.service(&run.service, free_port()?, &FLAGS)?;
    // Warm, and the state has its size.
    ingest(&service, 10).await?;
    let (alone, _) = ingest(&service, batches).await?;

    let heard: Arc<Vec<Heard>> = Arc::new((0..clients).map(|_| Heard::default()).collect());
    let telling = Arc::clone(&heard);
    let hear = move |n: usize, packet: &[u8]| telling[n].take(packet);
    let crowd = Crowd::gather(service.address, 0..clients, |_| json!("live:hot"), hear).await?;
    let before: Vec<u64> = heard.iter().map(|heard| heard.packets.load(Ordering::Relaxed)).collect();
    let (watched, took) = ingest(&service, batches).await?;
    let ended = clock::instant();
    let all = ((10 + 2 * batches) * BATCH) as u64;
    while heard.iter().any(|heard| heard.count.load(Ordering::Relaxed) != all) {
        let right = heard.iter().filter(|heard| heard.count.load(Ordering::Relaxed) == all).count();
        ensure!(ended.elapsed() < PATIENCE, "only {right} of {clients} clients have heard of all {all} readings");
        sleep(Duration::from_millis(5)).await;
    }
    let late = ended.elapsed().as_secs_f64() * 1e3;
    ensure!(crowd.lost() == 0, "{} clients have lost their connection", crowd.lost());
    let packets = heard.iter().zip(before).map(|(heard, before)| heard.packets.load(Ordering::Relaxed) - before);
    let most = packets.max().unwrap_or_default() as f64 / (took + late / 1e3);
    let cores = watched - alone;
    println!("CPU of the service, cores: {alone:.3} alone, {watched:.3} watched");
    println!("messages a second, of the client with the most: {most:.2}; all have the last value after {late:.0} ms");
    Ok(vec![
        Goal::new("hot: messages a second to one client", most, GOAL_PER_SECOND, run.counts),
        Goal::new("hot: until all have the last value, ms", late, GOAL_MS, run.counts),
        Goal::new("hot: cores for the watching", cores, GOAL_CORES, run.counts),
    ])
}

impl Heard {
    fn take(&self, packet: &[u8]) {
        const COUNT: &[u8] = br#""count":"#;
        if !packet.starts_with(br#"42["live""#) {
            return;
        }
        self.packets.fetch_add(1, Ordering::Relaxed);
        let digits = packet.windows(COUNT.len()).position(|bytes| bytes == COUNT).map(|at| &packet[at + COUNT.len()..]);
        let digits = digits.unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
        let count = digits.fold(0, |count, digit| 10 * count + u64::from(digit - b'0'));
        self.count.store(count, Ordering::Relaxed);
    }
}

/// Posts batches at an even pace over a few connections; how many cores the service was busy with, and the seconds it
/// took.
async fn ingest(service: &Server, batches: usize) -> Result<(f64, f64)> {
    let (before, began) = (service.process.cpu_seconds()?, clock::instant());
    let address = service.address;
    let posting = tokio::task::spawn_blocking(move || {
        thread::scope(|scope| {
            let turns: Vec<_> = (0..CONNECTIONS)
                .map(|turn| scope.spawn(move || post(address, (turn..batches).step_by(CONNECTIONS))))
                .collect();
            turns.into_iter().try_for_each(|turn| turn.join().expect("it returns its errors"))
        })
    });
    posting.await??;
    let took = began.elapsed().as_secs_f64();
    Ok(((service.process.cpu_seconds()? - before) / took, took))
}

/// The batches of one connection, each at its time.
fn post(address: SocketAddr, turns: impl Iterator<Item = usize>) -> Result<()> {
    let mut lines = String::new();
    for n in 0..BATCH {
        writeln!(lines, r#"{{"source":"hot","value":{}.25}}"#, 20 + n % 10)?;
    }
    let (request, began) = (post_readings(lines.as_bytes()), clock::instant());
    let mut client = Client::connect(address)?;
    for turn in turns {
        let due = began + Duration::from_secs(1) / BATCHES_PER_SECOND * turn as u32;
        thread::sleep(due.saturating_duration_since(clock::instant()));
        client.deliver(&request, BATCH)?;
    }
    Ok(())
}
