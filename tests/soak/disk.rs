//! A small disk for the files of the sink, which can be full.
//!
//! Used by `world.rs`. It is a file system in memory that only root can mount; without it a run goes on
//! without this fault, and says so.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Room for the rows of some hours.
const SIZE: &str = "size=64m";
const ROOM: usize = 64 << 20;

pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).ok()?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }

    /// Takes all the space there is.
    pub(crate) fn fill(&self) -> Result<()> {
        ensure!(fs::write(self.0.join("filler"), vec![0; ROOM]).is_err(), "a disk that takes everything");
        Ok(())
    }

    pub(crate) fn free(&self) -> Result<()> {
        fs::remove_file(self.0.join("filler")).context("the disk was full")
    }

    /// Brings its files to a place where they stay.
    pub(crate) fn save(&self, to: &Path) -> Result<()> {
        let copied = Command::new("cp").arg("-a").arg(&self.0).arg(to).status()?;
        ensure!(copied.success(), "the files of the sink could not be copied");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, should a run that broke off still have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
