//! The shim between a process and the system (`shim.c`): its clock can step, its disk can stall.
//!
//! Compiled by `world.rs` where a world needs it, with the C compiler that the toolchain links with; loaded
//! into Redis, or into the service where that is the store. A process that is started again finds the clock
//! as it was.

use anyhow::{Context, Result, ensure};
use meanwhile::stats::Millis;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/soak/shim.c");
/// Where its two numbers stand in the file.
const AHEAD: u64 = 0;
const STALLED: u64 = 8;

pub(crate) struct Shim {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl Shim {
    pub(crate) fn build(dir: &Path) -> Result<Self> {
        let (library, path) = (dir.join("shim.so"), dir.join("shim"));
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(SOURCE).status();
        ensure!(compiled.context("cc is needed for this: is it installed?")?.success(), "shim.c cannot be compiled");
        let shim = Self { library, file: File::create(&path)?, path };
        shim.step_clock(0)?;
        shim.stall(false)?;
        Ok(shim)
    }

    /// A process that is started like this has its clock and its disk from here.
    pub(crate) fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library.clone()), ("SOAK_SHIM", self.path.clone())]
    }

    /// Sets the wall clock so far ahead of the right time.
    pub(crate) fn step_clock(&self, ahead: Millis) -> Result<()> {
        Ok(self.file.write_all_at(&ahead.to_ne_bytes(), AHEAD)?)
    }

    /// No sync ends until this is over.
    pub(crate) fn stall(&self, stalled: bool) -> Result<()> {
        Ok(self.file.write_all_at(&i64::from(stalled).to_ne_bytes(), STALLED)?)
    }
}
