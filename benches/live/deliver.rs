//! What a delivered message costs: CPU of the server, and the time from publish to receive.
//!
//! A thousand clients hear one channel; messages of 200 bytes are published to it in Redis, twenty a second: 20,000
//! deliveries. The peer gets the same ones.

use crate::Run;
use crate::crowd::{Crowd, Times, stamped};
use crate::processes::free_port;
use crate::report::Goal;
use crate::servers::{Publisher, Server, World};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

const CLIENTS: usize = 1_000;
const BYTES: usize = 200;
const PER_SECOND: u32 = 20;
const MESSAGES: usize = 600;
const WARM: usize = 20;
/// The last message is heard by then.
const SETTLES: Duration = Duration::from_secs(2);
const CHANNEL: &str = "news";
/// No more than the peer needs, on the same machine at the same time.
const GOAL_OF_PEER: f64 = 1.0;
const GOAL_MS: f64 = 25.0;

/// Prints both and returns the goals.
pub(crate) async fn measure(run: &Run) -> Result<Vec<Goal>> {
    let messages = run.of(MESSAGES);
    println!("\nDeliver: {messages} messages of {BYTES} bytes to {CLIENTS} clients, {PER_SECOND} a second");
    println!("{:10}{:>16}{:>12}", "", "CPU us each", "p99 ms");
    let world = World::start("everysec")?;
    let service = world.service(&run.service, free_port()?, &[])?;
    let (micros, p99) = deliver("service", &world, &service, messages).await?;
    drop(service);
    let mut goals = vec![Goal::new("deliver: p99 from publish to receive, ms", p99, GOAL_MS, run.counts)];
    if run.peer {
        let (of_peer, _) = deliver("peer", &world, &world.peer()?, messages).await?;
        goals.push(Goal::new(
            "deliver: CPU of a message, times the peer's",
            micros / of_peer,
            GOAL_OF_PEER,
            run.counts,
        ));
    }
    Ok(goals)
}

async fn deliver(name: &str, world: &World, server: &Server, messages: usize) -> Result<(f64, f64)> {
    let times = Times::new();
    let counted = times.clone();
    let crowd =
        Crowd::gather(server.address, 0..CLIENTS, |_| json!(CHANNEL), move |_, packet| counted.count(packet)).await?;
    publish(world, CHANNEL, WARM, PER_SECOND, BYTES).await?;
    sleep(SETTLES).await;
    times.take();
    let before = server.process.cpu_seconds()?;
    publish(world, CHANNEL, messages, PER_SECOND, BYTES).await?;
    sleep(SETTLES).await;
    let spent = server.process.cpu_seconds()? - before;
    let (heard, p99) = times.take();
    let expected = (messages * CLIENTS) as u64;
    ensure!(heard == expected && crowd.lost() == 0, "{heard} of {expected} messages were heard");
    let micros = spent * 1e6 / heard as f64;
    println!("{name:10}{micros:16.2}{p99:12.1}");
    Ok((micros, p99))
}

/// Publishes so many messages at an even pace; each says when it was sent.
pub(crate) async fn publish(world: &World, channel: &str, count: usize, per_second: u32, bytes: usize) -> Result<()> {
    let mut publisher = Publisher::connect(world)?;
    let mut pace = interval(Duration::from_secs(1) / per_second);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..count {
        pace.tick().await;
        publisher.publish(channel, &stamped(bytes))?;
    }
    Ok(())
}
