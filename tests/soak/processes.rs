//! The processes that are killed: the service and its Redis, on fixed ports, with files that stay.
//!
//! Used by `faults.rs`, which owns them, and by `world.rs` to start and end a run. A start does not wait:
//! whether something answers is for its clients to find out, as it would be anywhere else.

use anyhow::{Context, Result, ensure};
use meanwhile::clock;
use meanwhile::stats::Millis;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// What the service writes once it takes requests.
const READY: &str = "listening on http://";
/// What it writes when its store has lost something; the span of time follows.
const LOSS: &str = "what it confirmed between the two may be lost";
/// Nothing of this size takes longer to load what it has written.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// The number of the signal, the same on every Linux.
const SIGABRT: i32 = 6;

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Sends a signal by its short name.
fn signal(name: &str, child: &Child) -> Result<()> {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status()?;
    ensure!(sent.success(), "SIG{name} to {}", child.id());
    Ok(())
}

/// How a process of the service ended that nobody had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It ended itself where it was told to.
    AtFailpoint,
    /// It could not start, because its store was away.
    NotStarted,
    /// Any other end is an error of the service.
    Unexpected(ExitStatus),
}

/// One instance of the service.
pub(crate) struct Node {
    pub(crate) port: u16,
    flags: Vec<String>,
    log: PathBuf,
    /// Bytes of the log that belong to earlier starts.
    log_before: usize,
    child: Option<Child>,
    failpoint: Option<String>,
}

impl Node {
    /// `flags` follow `serve --listen`; its log is added to the file `log`.
    pub(crate) fn new(flags: Vec<String>, log: PathBuf) -> Result<Self> {
        Ok(Self { port: free_port()?, flags, log, log_before: 0, child: None, failpoint: None })
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        self.start_until(None)
    }

    /// Starts it; with a failpoint, `name:n`, it ends itself on its n-th pass there.
    pub(crate) fn start_until(&mut self, failpoint: Option<String>) -> Result<()> {
        self.log_before = self.whole_log().len();
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_meanwhile"));
        command.env_clear().args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)]).args(&self.flags);
        if let Some(failpoint) = &failpoint {
            command.env("MEANWHILE_FAILPOINT", failpoint);
        }
        self.failpoint = failpoint;
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to stop, and waits until it has; not well if it ends with anything but 0, unless it was
    /// starting and could not listen for signals yet.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let ready = self.is_ready();
        if let Some(mut child) = self.child.take() {
            signal("TERM", &child)?;
            let status = child.wait()?;
            ensure!(status.success() || !ready, "a service that was asked to stop ended with {status}");
        }
        Ok(())
    }

    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        self.child.as_ref().map_or(Ok(()), |child| signal(name, child))
    }

    /// Whether it has ended by itself, and how; then it is to be started again.
    pub(crate) fn ended(&mut self) -> Result<Option<Ended>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        self.child = None;
        Ok(Some(if status.signal() == Some(SIGABRT) && self.failpoint.is_some() {
            Ended::AtFailpoint
        } else if status.code() == Some(1) && !self.is_ready() {
            Ended::NotStarted
        } else {
            Ended::Unexpected(status)
        }))
    }

    /// Whether it is to end itself somewhere.
    pub(crate) fn has_failpoint(&self) -> bool {
        self.failpoint.is_some()
    }

    /// The spans of time of which the log says that the store has lost what it confirmed in them.
    pub(crate) fn losses(&self) -> Vec<(Millis, Millis)> {
        let time = |line: &str, name: &str| -> Option<Millis> {
            let text = line.split(' ').find_map(|word| word.strip_prefix(name))?;
            Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis())
        };
        let log = self.whole_log();
        let lines = log.lines().filter(|line| line.contains(LOSS));
        lines.filter_map(|line| Some((time(line, "from=")?, time(line, "to=")?))).collect()
    }

    /// Whether the present process takes requests.
    pub(crate) fn is_ready(&self) -> bool {
        self.whole_log()[self.log_before..].contains(READY)
    }

    /// Everything that all its processes have logged.
    pub(crate) fn whole_log(&self) -> String {
        fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // At the end of a run that broke off there is nothing better to do.
        let _ = self.kill();
    }
}

/// A Redis with an append-only file.
pub(crate) struct Redis {
    pub(crate) port: u16,
    dir: PathBuf,
    fsync: &'static str,
    child: Option<Child>,
}

impl Redis {
    /// `fsync`: when its file is brought to the disk, `always` or `everysec`.
    pub(crate) fn start(dir: &Path, fsync: &'static str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut redis = Self { port: free_port()?, dir: dir.to_owned(), fsync, child: None };
        redis.start_again()?;
        Ok(redis)
    }

    /// Starts it and waits until it has read its file.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--dir"]).arg(&self.dir);
        command.args(["--appendonly", "yes", "--appendfsync", self.fsync, "--auto-aof-rewrite-percentage", "0"]);
        command.args(["--logfile", "redis.log"]).stdin(Stdio::null()).stdout(Stdio::null());
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

    /// The length of the append-only file.
    pub(crate) fn written(&self) -> Result<u64> {
        Ok(fs::metadata(self.log_file()?)?.len())
    }

    /// Takes from a killed server what it wrote after its file was so long, as a power cut does with
    /// what was not synced.
    pub(crate) fn forget_after(&self, length: u64) -> Result<()> {
        Ok(File::options().write(true).open(self.log_file()?)?.set_len(length)?)
    }

    fn log_file(&self) -> Result<PathBuf> {
        let folder = self.dir.join("appendonlydir");
        let files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let log = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "aof") && is_increment(path));
        log.with_context(|| format!("no append-only file in {}", folder.display()))
    }
}

fn is_increment(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".incr.aof")
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn redis_cli(port: u16, words: &[&str]) -> Option<String> {
    // redis-cli waits for ever for a server that does not accept.
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    let said = Command::new("redis-cli").args(["-e", "-p", &port.to_string()]).args(words).output().ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
}
