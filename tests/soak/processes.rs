//! The service as processes that are killed: each instance on a fixed port, with files that stay.
//!
//! Used by `breaking.rs` and `site.rs`, which end it, and by `world.rs` to start and end a run. A start does not
//! wait: whether something answers is for its clients to find out, as it would be anywhere else.

use anyhow::{Result, ensure};
use meanwhile::clock;
use meanwhile::stats::Millis;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// What the service writes once it takes requests.
const READY: &str = "listening on http://";
/// What it writes when its store has lost something; the span of time follows.
const LOSS: &str = "what it confirmed between the two may be lost";
const EVERYTHING: &str = "the store has lost its contents";
/// An instance that could not start is started again after this.
const START_AGAIN: Duration = Duration::from_millis(200);
/// The number of the signal, the same on every Linux.
const SIGABRT: i32 = 6;

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Sends a signal by its short name.
pub(crate) fn signal(name: &str, child: &Child) -> Result<()> {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status()?;
    ensure!(sent.success(), "SIG{name} to {}", child.id());
    Ok(())
}

/// What the service says to be lost of what it had confirmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    pub(crate) from: Millis,
    pub(crate) to: Millis,
    /// All that was open, whoever had brought it and when.
    pub(crate) everything: bool,
}

/// How a process of the service ended that nobody had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It ended itself where it was told to.
    AtFailpoint,
    /// It could not start, because its store was away.
    NotStarted,
    /// It was asked to.
    AsAsked,
    /// Any other end is an error of the service.
    Unexpected(ExitStatus),
}

/// One instance of the service.
pub(crate) struct Node {
    pub(crate) port: u16,
    flags: Vec<String>,
    /// What it finds in its environment.
    variables: Vec<(&'static str, PathBuf)>,
    log: PathBuf,
    /// Bytes of the log that belong to earlier starts.
    log_before: u64,
    child: Option<Child>,
    failpoint: Option<String>,
    stopping: bool,
    /// When the present process was, or the last one.
    pub(crate) started: Instant,
}

impl Node {
    /// `flags` follow `serve --listen`; its log is added to the file `log`.
    pub(crate) fn new(flags: Vec<String>, variables: Vec<(&'static str, PathBuf)>, log: PathBuf) -> Result<Self> {
        let (port, started) = (free_port()?, clock::instant());
        Ok(Self { port, flags, variables, log, log_before: 0, child: None, failpoint: None, stopping: false, started })
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        self.start_until(None)
    }

    /// Starts it; with a failpoint, `name:n`, it ends itself on its n-th pass there.
    pub(crate) fn start_until(&mut self, failpoint: Option<String>) -> Result<()> {
        self.log_before = fs::metadata(&self.log).map_or(0, |log| log.len());
        (self.started, self.stopping) = (clock::instant(), false);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_meanwhile"));
        command.env_clear().args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)]).args(&self.flags);
        command.envs(self.variables.iter().cloned());
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
        self.ask_to_stop()?;
        let ready = self.is_ready();
        if let Some(mut child) = self.child.take() {
            let status = child.wait()?;
            ensure!(status.success() || !ready, "a service that was asked to stop ended with {status}");
        }
        Ok(())
    }

    /// The same, and does not wait.
    pub(crate) fn ask_to_stop(&mut self) -> Result<()> {
        self.stopping = true;
        self.signal("TERM")
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
        } else if self.stopping && (status.success() || !self.is_ready()) {
            Ended::AsAsked
        } else if status.code() == Some(1) && !self.is_ready() {
            Ended::NotStarted
        } else {
            Ended::Unexpected(status)
        }))
    }

    pub(crate) fn is_down(&self) -> bool {
        self.child.is_none()
    }

    /// Whether it is not just now that it was started.
    pub(crate) fn may_start(&self) -> bool {
        self.started.elapsed() > START_AGAIN
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether it is to end itself somewhere.
    pub(crate) fn has_failpoint(&self) -> bool {
        self.failpoint.is_some()
    }

    /// What the log says that the store has lost.
    pub(crate) fn losses(&self) -> Vec<Announced> {
        let time = |line: &str, name: &str| -> Option<Millis> {
            let text = line.split(' ').find_map(|word| word.strip_prefix(name))?;
            Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis())
        };
        let log = self.whole_log();
        let lines = log.lines().filter(|line| line.contains(LOSS));
        let announced = |line: &str| {
            Some(Announced {
                from: time(line, "from=")?,
                to: time(line, "to=")?,
                everything: line.contains(EVERYTHING),
            })
        };
        lines.filter_map(announced).collect()
    }

    /// Whether the present process takes requests.
    pub(crate) fn is_ready(&self) -> bool {
        let log = || -> std::io::Result<Vec<u8>> {
            let (mut log, mut text) = (File::open(&self.log)?, Vec::new());
            log.seek(SeekFrom::Start(self.log_before))?;
            log.read_to_end(&mut text)?;
            Ok(text)
        };
        self.child.is_some() && log().is_ok_and(|log| String::from_utf8_lossy(&log).contains(READY))
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
