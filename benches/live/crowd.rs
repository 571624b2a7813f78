//! Clients by the thousand: opened a few at a time, held, counted.
//!
//! Used by every section; each client is a task of one thread. What they hear goes to a function of the section.

use crate::socketio::Client;
use anyhow::{Context, Result};
use meanwhile::clock;
use serde_json::Value as Json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Clients that are connecting at once.
const AT_ONCE: usize = 200;

/// Clients that are connected and subscribed. Those that are left end with it.
pub(crate) struct Crowd {
    members: Vec<JoinHandle<()>>,
    lost: Arc<AtomicUsize>,
}

impl Crowd {
    /// Connects `members` to a server; the `n`th subscribes to `to(n)`, and `hear(n, packet)` is called for what it
    /// hears. A client that loses its connection is counted and does not come back.
    pub(crate) async fn gather(
        server: SocketAddr,
        members: impl IntoIterator<Item = usize>,
        to: impl Fn(usize) -> Json,
        hear: impl Fn(usize, &[u8]) + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        let (mut connecting, lost) = (JoinSet::<Result<(usize, Client)>>::new(), Arc::new(AtomicUsize::new(0)));
        let (mut waiting, mut members) = (members.into_iter(), Vec::new());
        loop {
            while connecting.len() < AT_ONCE
                && let Some(n) = waiting.next()
            {
                let (to, hear) = (to(n), hear.clone());
                connecting.spawn(async move {
                    let mut client = Client::connect(server, n, None).await?;
                    client.subscribe(&to, &mut |packet| hear(n, packet)).await?;
                    Ok((n, client))
                });
            }
            let Some(connected) = connecting.join_next().await else { break };
            let (n, client) = connected?.with_context(|| format!("after {} clients", members.len()))?;
            let (hear, lost) = (hear.clone(), Arc::clone(&lost));
            members.push(tokio::spawn(listen(client, move |packet| hear(n, packet), lost)));
        }
        Ok(Self { members, lost })
    }

    /// How many have lost their connection.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.members.iter().for_each(JoinHandle::abort);
    }
}

async fn listen(mut client: Client, mut hear: impl FnMut(&[u8]), lost: Arc<AtomicUsize>) {
    while client.hear(&mut hear).await.is_ok() {}
    lost.fetch_add(1, Ordering::Relaxed);
}

/// What all times of a run count from.
static BEGAN: LazyLock<Instant> = LazyLock::new(clock::instant);

/// Digits of a time in a message.
const DIGITS: usize = 20;
/// What stands before the message in a packet.
const EVENT: &[u8] = br#"42["message",""#;

/// A message of so many bytes that says when it was sent.
pub(crate) fn stamped(bytes: usize) -> String {
    format!("{:0DIGITS$}{:.<2$}", BEGAN.elapsed().as_micros(), "", bytes - DIGITS)
}

/// When a message of [`stamped`] was sent, in microseconds; `None` if the packet is something else.
fn sent(packet: &[u8]) -> Option<u64> {
    std::str::from_utf8(packet.strip_prefix(EVENT)?.get(..DIGITS)?).ok()?.parse().ok()
}

/// How long messages were under way, in steps of 0.1 ms.
pub(crate) struct Times(Vec<AtomicU32>);

impl Times {
    const STEP_MICROS: u64 = 100;
    /// Ten seconds; what takes longer counts as that.
    const STEPS: usize = 100_000;

    pub(crate) fn new() -> Arc<Self> {
        LazyLock::force(&BEGAN);
        Arc::new(Self((0..Self::STEPS).map(|_| AtomicU32::new(0)).collect()))
    }

    /// Counts a packet, if it is a message.
    pub(crate) fn count(&self, packet: &[u8]) {
        if let Some(sent) = sent(packet) {
            let micros = (BEGAN.elapsed().as_micros() as u64).saturating_sub(sent);
            let step = (micros / Self::STEP_MICROS) as usize;
            self.0[step.min(Self::STEPS - 1)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Messages since the last call, and the time in milliseconds that 99 of 100 of them did not exceed.
    pub(crate) fn take(&self) -> (u64, f64) {
        let steps: Vec<u64> = self.0.iter().map(|step| u64::from(step.swap(0, Ordering::Relaxed))).collect();
        let all: u64 = steps.iter().sum();
        let mut below = 0;
        let at = steps.iter().position(|step| {
            below += step;
            below * 100 >= all * 99
        });
        (all, (at.unwrap_or_default() + 1) as f64 * Self::STEP_MICROS as f64 / 1e3)
    }
}
