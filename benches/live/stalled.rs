//! Clients that stop reading: what they do to others, what they cost, and when they are gone.
//!
//! 5,000 clients hear one channel, four messages a second. A tenth of them stops reading, and is sent more than the
//! system buffers for it. The others' p99 is looked at before and meanwhile; then the service has to let go of the
//! stalled ones, which keep their sockets open.

use crate::Run;
use crate::crowd::{Crowd, Times};
use crate::deliver::publish;
use crate::processes::free_port;
use crate::report::Goal;
use crate::servers::{Server, World};
use crate::socketio::Client;
use anyhow::{Result, ensure};
use meanwhile::clock;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

const CLIENTS: usize = 5_000;
const STALLED: usize = 500;
const BYTES: usize = 200;
const PER_SECOND: u32 = 4;
const MESSAGES: usize = 60;
/// What only the stalled ones are sent, so that they soon have more than anything buffers for them.
const FLOOD_BYTES: usize = 8 * 1024;
const FLOODS: usize = 80;
const FLOODS_PER_SECOND: u32 = 10;
/// What the system may buffer for a stalled client on its own side.
const RECEIVE_BYTES: u32 = 4 * 1024;
const PATIENCE: Duration = Duration::from_mins(2);
const SETTLES: Duration = Duration::from_secs(2);
const GOAL_TIMES: f64 = 1.2;
const GOAL_SECONDS: f64 = 30.0;
const GOAL_KIB: f64 = 256.0;

/// Prints what was seen and returns the goals.
pub(crate) async fn measure(run: &Run) -> Result<Vec<Goal>> {
    let (all, stalled) = (run.of(CLIENTS), run.of(STALLED));
    println!("\nStalled: {stalled} of {all} clients stop reading, {PER_SECOND} messages a second to the others");
    let world = World::start("everysec")?;
    let service = world.service(&run.service, free_port()?, &[])?;
    let times = Times::new();
    let counted = times.clone();
    let readers = all - stalled;
    let hear = move |_: usize, packet: &[u8]| counted.count(packet);
    let crowd = Crowd::gather(service.address, 0..readers, |_| json!("news"), hear).await?;
    let mut silent = Vec::new();
    for n in 0..stalled {
        let mut client = Client::connect(service.address, n, Some(RECEIVE_BYTES)).await?;
        client.subscribe(&json!(["news", "flood"]), &mut |_| {}).await?;
        // From here on it is never read.
        silent.push(client);
    }
    publish(&world, "news", PER_SECOND as usize, PER_SECOND, BYTES).await?;
    sleep(SETTLES).await;
    times.take();
    publish(&world, "news", MESSAGES, PER_SECOND, BYTES).await?;
    let (heard, before) = times.take();

    let memory = service.memory_kib()?;
    let (flooded, news, released) = tokio::join!(
        publish(&world, "flood", FLOODS, FLOODS_PER_SECOND, FLOOD_BYTES),
        publish(&world, "news", MESSAGES, PER_SECOND, BYTES),
        release(&service, all, readers),
    );
    let ((), (), (gone, most)) = (flooded?, news?, released?);
    let (heard_meanwhile, meanwhile) = times.take();
    let expected = (MESSAGES * readers) as u64;
    ensure!(heard_meanwhile >= expected && crowd.lost() == 0, "{heard_meanwhile} of {expected} messages were heard");
    let each = (most - memory) / stalled as f64;
    println!("p99 ms: {before:.1} before, {meanwhile:.1} meanwhile ({heard} and {heard_meanwhile} messages)");
    let gone = gone.as_secs_f64();
    println!("all stalled ones were released {gone:.1} s after they were sent too much; {each:.1} KiB each");
    // Their sockets were open until here.
    drop(silent);
    Ok(vec![
        Goal::new("stalled: p99 of the others, times that before", meanwhile / before, GOAL_TIMES, run.counts),
        Goal::new("stalled: until they are released, s", gone, GOAL_SECONDS, run.counts),
        Goal::new("stalled: KiB of memory each", each, GOAL_KIB, run.counts),
    ])
}

/// Waits until only so many clients are left; how long that took, and the most memory meanwhile.
async fn release(service: &Server, all: usize, left: usize) -> Result<(Duration, f64)> {
    let (began, mut most) = (clock::instant(), 0.0_f64);
    ensure!(service.clients()? == all, "{} of {all} clients are there", service.clients()?);
    loop {
        most = most.max(service.memory_kib()?);
        let clients = service.clients()?;
        if clients == left {
            return Ok((began.elapsed(), most));
        }
        ensure!(began.elapsed() < PATIENCE, "{clients} clients are there, not {left}");
        sleep(Duration::from_millis(200)).await;
    }
}
