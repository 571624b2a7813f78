//! A Redis with its files, which can be killed and started again, and robbed of what it wrote last.
//!
//! Used by `world.rs`, which starts it, and by `site.rs` and `losses.rs`, which break it.

use crate::processes::{free_port, signal};
use anyhow::{Context, Result, ensure};
use meanwhile::clock;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Nothing of this size takes longer to load what it has written.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
/// Seconds for an answer: all else stands still meanwhile.
const ANSWER_TIMEOUT: &str = "0.5";
/// Answers that are waited for until a replica has become a primary.
const PROMOTE_ATTEMPTS: usize = 20;
/// A file larger than this is written anew, so that each start has little to read.
const REWRITE_FROM: &str = "16mb";

pub(crate) struct Redis {
    pub(crate) port: u16,
    dir: PathBuf,
    /// What it keeps and when it syncs.
    settings: &'static [&'static str],
    /// What it finds in its environment besides.
    variables: Vec<(&'static str, PathBuf)>,
    /// The port of the primary that it is the replica of.
    primary: Option<u16>,
    child: Option<Child>,
}

impl Redis {
    pub(crate) fn start(
        dir: &Path,
        settings: &'static [&'static str],
        variables: Vec<(&'static str, PathBuf)>,
    ) -> Result<Self> {
        let mut redis = Self::new(dir, settings, variables)?;
        redis.start_again()?;
        Ok(redis)
    }

    /// One that does not run yet.
    pub(crate) fn new(
        dir: &Path,
        settings: &'static [&'static str],
        variables: Vec<(&'static str, PathBuf)>,
    ) -> Result<Self> {
        Ok(Self { port: free_port()?, dir: dir.to_owned(), settings, variables, primary: None, child: None })
    }

    /// Starts it without anything that it had, as a primary or as the replica of one.
    pub(crate) fn start_empty(&mut self, primary: Option<u16>) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(&self.dir)?;
        self.primary = primary;
        self.start_again()
    }

    /// Makes it a primary; whether it has heard.
    pub(crate) fn promote(&mut self) -> bool {
        self.primary = None;
        // It may be waiting for its disk.
        (0..PROMOTE_ATTEMPTS).any(|_| self.cli(&["REPLICAOF", "NO", "ONE"]).is_some())
    }

    /// Starts it and waits until it has read its file.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--dir"]).arg(&self.dir);
        command.args(self.settings).args(["--auto-aof-rewrite-min-size", REWRITE_FROM]);
        if let Some(primary) = self.primary {
            command.args(["--replicaof", "127.0.0.1", &primary.to_string()]);
        }
        // A replica is served at once, not after waiting for others.
        command.args(["--repl-diskless-sync-delay", "0"]);
        command.args(["--logfile", "redis.log"]).stdin(Stdio::null()).stdout(Stdio::null());
        command.envs(self.variables.iter().cloned());
        let child = command.spawn().context("redis-server is needed for this: is it installed?")?;
        let child = self.child.insert(child);
        let started = clock::instant();
        while redis_cli(self.port, &["PING"]).is_none_or(|answer| answer.trim() != "PONG") {
            ensure!(child.try_wait()?.is_none(), "redis-server has ended; see {}/redis.log", self.dir.display());
            ensure!(started.elapsed() < START_TIMEOUT, "redis-server does not answer");
            sleep(POLL);
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        self.child.as_ref().map_or(Ok(()), |child| signal(name, child))
    }

    /// What `redis-cli` prints for a command, one element a line; `None` if the server does not answer.
    pub(crate) fn cli(&self, words: &[&str]) -> Option<String> {
        redis_cli(self.port, words)
    }

    /// A number out of `INFO`; `None` if the server does not answer.
    pub(crate) fn info(&self, section: &str, name: &str) -> Option<String> {
        let said = self.cli(&["INFO", section])?;
        Some(said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().to_owned())
    }

    /// Sees to it that its file is not written anew until its next start; whether that is so by now.
    pub(crate) fn keeps_its_file(&self) -> bool {
        let set = self.cli(&["CONFIG", "SET", "auto-aof-rewrite-percentage", "0"]);
        let busy = |name| self.info("persistence", name).is_none_or(|said| said != "0");
        set.is_some() && !busy("aof_rewrite_in_progress") && !busy("aof_rewrite_scheduled")
    }

    /// Cuts off what a power cut has left of the end of its file, with Redis' own tool, as its log asks for.
    pub(crate) fn mend(&self) -> Result<()> {
        let mut command = Command::new("redis-check-aof");
        command.args(["--fix", "appendonly.aof.manifest"]).current_dir(self.dir.join("appendonlydir"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("redis-check-aof")?;
        child.stdin.take().context("piped")?.write_all(b"y\n")?;
        let status = child.wait()?;
        ensure!(status.success(), "redis-check-aof cannot mend the file");
        Ok(())
    }

    /// The length of the append-only file.
    pub(crate) fn written(&self) -> Result<u64> {
        Ok(fs::metadata(self.log_file()?)?.len())
    }

    /// Takes from a killed server what it wrote after its file was so long, as a power cut does with
    /// what was not synced.
    pub(crate) fn forget_after(&self, length: u64) -> Result<()> {
        Ok(File::options().write(true).open(self.log_file()?)?.set_len(length)?)
    }

    /// The file that is appended to: of several increments the last.
    fn log_file(&self) -> Result<PathBuf> {
        let folder = self.dir.join("appendonlydir");
        let files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let last = files.into_iter().filter_map(|path| Some((increment(&path)?, path))).max();
        Ok(last.with_context(|| format!("no append-only file in {}", folder.display()))?.1)
    }
}

/// Which increment of the append-only file this is, if it is one.
fn increment(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".incr.aof")?;
    name.rsplit('.').next()?.parse().ok()
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn redis_cli(port: u16, words: &[&str]) -> Option<String> {
    // redis-cli waits for ever for a server that does not accept, or is stopped.
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    let mut command = Command::new("timeout");
    command.args([ANSWER_TIMEOUT, "redis-cli", "-e", "-p", &port.to_string()]).args(words);
    let said = command.output().ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
}
