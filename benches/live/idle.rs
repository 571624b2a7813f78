//! What a client costs that listens and hears nothing: memory of the server per connection.
//!
//! The clients have a WebSocket each and are subscribed to one of a hundred channels on which nobody speaks; the peer
//! gets the same ones.

use crate::Run;
use crate::crowd::Crowd;
use crate::processes::free_port;
use crate::report::Goal;
use crate::servers::{Server, World};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

const CLIENTS: usize = 10_000;
const CHANNELS: usize = 100;
/// Shown on the way, to see whether it is a straight line.
const STEPS: usize = 4;
/// What was only needed to let them in is given back.
const SETTLES: Duration = Duration::from_secs(2);
const GOAL_KIB: f64 = 16.0;

/// Prints the memory per client and returns the goal.
pub(crate) async fn measure(run: &Run) -> Result<Vec<Goal>> {
    let clients = run.of(CLIENTS);
    println!("\nIdle: {clients} clients over WebSockets on {CHANNELS} channels, KiB of the server for each");
    println!("{:10}{:>12}{:>12}", "", "clients", "KiB each");
    let world = World::start("everysec")?;
    let service = world.service(&run.service, free_port()?, &[])?;
    let each = fill("service", &service, clients).await?;
    drop(service);
    if run.peer {
        fill("peer", &world.peer()?, clients).await?;
    }
    Ok(vec![Goal::new("idle: KiB of memory per client", each, GOAL_KIB, run.counts)])
}

async fn fill(name: &str, server: &Server, clients: usize) -> Result<f64> {
    let channel = |n: usize| json!(format!("idle-{}", n % CHANNELS));
    // Warm: every path was gone once. They stay, so that nothing of theirs is used again.
    let warm = Crowd::gather(server.address, 0..CHANNELS, channel, |_, _| {}).await?;
    sleep(SETTLES).await;
    let before = server.memory_kib()?;
    let (mut crowds, mut each) = (vec![warm], 0.0);
    for step in 0..STEPS {
        let next = clients * step / STEPS..clients * (step + 1) / STEPS;
        let sofar = next.end;
        crowds.push(Crowd::gather(server.address, next, channel, |_, _| {}).await?);
        sleep(SETTLES).await;
        each = (server.memory_kib()? - before) / sofar as f64;
        println!("{name:10}{sofar:12}{each:12.2}");
    }
    let lost: usize = crowds.iter().map(Crowd::lost).sum();
    ensure!(lost == 0, "{lost} clients have lost their connection");
    Ok(each)
}
