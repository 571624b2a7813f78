//! The machine that loses its power: the disk, and the processes whose files are on it.
//!
//! Made by `power.rs`, worked with by `round.rs`.

use super::Found;
use super::image::Image;
use crate::processes::{Ended, Node};
use crate::redis::Redis;
use anyhow::{Context, Result, bail, ensure};
use meanwhile::clock;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// A start takes up what the cut has left; nothing of this size takes longer.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a named step is waited for: not each comes in every round.
const STEP_PATIENCE: Duration = Duration::from_millis(1_200);
const POLL: Duration = Duration::from_millis(2);

/// What stands on the disk, and the disk.
pub(super) struct Machine {
    pub(super) image: Image,
    pub(super) redis: Option<Redis>,
    pub(super) node: Node,
}

impl Machine {
    /// Starts all processes; the service ends itself at the failpoint. A Redis that does not start, because the
    /// end of its file is zeros, is started once its own tool has cut them off.
    pub(super) fn start(&mut self, failpoint: Option<(&str, u64)>, found: &mut Found) -> Result<()> {
        if let Some(redis) = &mut self.redis
            && redis.start_again().is_err()
        {
            redis.mend()?;
            redis.start_again().context("Redis after a power cut")?;
            found.mended += 1;
        }
        self.node.start_until(failpoint.map(|(name, passes)| format!("{name}:{passes}")))
    }

    /// Waits until the service takes requests; `false` if it has ended at its failpoint before.
    pub(super) fn ready(&mut self) -> Result<bool> {
        let started = clock::instant();
        while !self.node.is_ready() {
            if self.ended_at_step()? {
                return Ok(false);
            }
            ensure!(started.elapsed() < START_PATIENCE, "the service does not start after a power cut");
            sleep(POLL);
        }
        Ok(true)
    }

    /// Whether it ends itself at its failpoint, waited for as long as a round may take.
    pub(super) fn ends_at_step(&mut self) -> Result<bool> {
        let started = clock::instant();
        while started.elapsed() < STEP_PATIENCE {
            if self.ended_at_step()? {
                return Ok(true);
            }
            sleep(POLL);
        }
        Ok(false)
    }

    fn ended_at_step(&mut self) -> Result<bool> {
        match self.node.ended()? {
            None => Ok(false),
            Some(Ended::AtFailpoint) => Ok(true),
            Some(how) => {
                let log = self.node.whole_log();
                bail!("the service has ended by itself, {how:?}: {}", log.lines().last().unwrap_or_default())
            }
        }
    }

    /// Stops all processes where they are. Of what the disk does at the cut nobody may hear: ext4 reports some
    /// syncs as done that are under way while it is shut down, and loses them.
    pub(super) fn freeze(&self) -> Result<()> {
        self.node.signal("STOP")?;
        self.redis.as_ref().map_or(Ok(()), |redis| redis.signal("STOP"))
    }

    /// Has the service write and close everything.
    pub(super) fn drain(&self) -> Result<Child> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meanwhile"));
        command.env_clear().args(["drain", "--url", &format!("http://127.0.0.1:{}", self.node.port)]);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }
}
