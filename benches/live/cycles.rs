//! Clients that come and go: a hundred thousand times connected, subscribed, gone; and nothing of them is left.

use crate::Run;
use crate::processes::free_port;
use crate::report::Goal;
use crate::servers::World;
use crate::socketio::Client;
use anyhow::{Result, ensure};
use meanwhile::clock;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

const CYCLES: usize = 100_000;
/// So many are under way at once; with a tenth of all cycles the service has taken what memory it takes for them.
const AT_ONCE: usize = 200;
const CHANNELS: usize = 100;
const PATIENCE: Duration = Duration::from_mins(1);
const SETTLES: Duration = Duration::from_secs(3);
const GOAL_TIMES: f64 = 1.05;

/// Prints memory and channels and returns the goals.
pub(crate) async fn measure(run: &Run) -> Result<Vec<Goal>> {
    let cycles = run.of(CYCLES);
    println!("\nCycles: {cycles} times connected, subscribed and gone, {AT_ONCE} at once");
    let world = World::start("everysec")?;
    let service = world.service(&run.service, free_port()?, &[])?;
    let fresh = service.memory_kib()?;
    come_and_go(service.address, cycles / 10).await?;
    sleep(SETTLES).await;
    let before = service.memory_kib()?;
    let (began, worked) = (clock::instant(), service.process.cpu_seconds()?);
    come_and_go(service.address, cycles).await?;
    let (took, worked) = (began.elapsed().as_secs_f64(), service.process.cpu_seconds()? - worked);
    let left = clock::instant();
    while service.clients()? > 0 || world.channels()? > 0 {
        let (clients, channels) = (service.clients()?, world.channels()?);
        ensure!(left.elapsed() < PATIENCE, "{clients} clients and {channels} channels are left");
        sleep(Duration::from_millis(200)).await;
    }
    sleep(SETTLES).await;
    let after = service.memory_kib()?;
    let micros = worked * 1e6 / cycles as f64;
    println!("memory KiB: {fresh:.0} fresh, {before:.0} after a tenth of them, {after:.0} in the end");
    println!(
        "{:.0} cycles a second, {micros:.0} us of CPU each; no client and no channel is left",
        cycles as f64 / took
    );
    Ok(vec![Goal::new("cycles: memory, times that before", after / before, GOAL_TIMES, run.counts)])
}

async fn come_and_go(server: SocketAddr, cycles: usize) -> Result<()> {
    let mut under_way = JoinSet::<Result<()>>::new();
    for n in 0..cycles {
        if under_way.len() == AT_ONCE
            && let Some(done) = under_way.join_next().await
        {
            done??;
        }
        under_way.spawn(async move {
            let mut client = Client::connect(server, n, None).await?;
            client.subscribe(&json!(format!("cycle-{}", n % CHANNELS)), &mut |_| {}).await
        });
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}
