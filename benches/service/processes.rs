//! The measured processes: starts Redis and the service on free ports, asks the kernel what they
//! have cost, ends them when dropped.
//!
//! Used by every section. Each service gets a store and a directory of its own, so that no section
//! finds what another has left. The directories are under `target/`: on a real disk, where syncing
//! a file costs what it costs.

use crate::resp::Resp;
use anyhow::{Context, Result, bail};
use meanwhile::clock;
use std::fmt;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

/// Ticks per second in `/proc/PID/stat`: Linux reports 100 to user space whatever its own rate is.
const USER_HZ: f64 = 100.0;
/// A process that is not ready by then will not be.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a starting process is looked at; how long a start takes is known to this.
const START_POLL: Duration = Duration::from_millis(5);
/// What the service writes to its log when it takes requests; the address follows.
const READY: &str = "listening on http://";

/// A running process, killed when dropped. What it writes goes to a file beside its data.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let name = command.get_program().display().to_string();
        let child = command.spawn().with_context(|| format!("cannot start {name}: is it installed?"))?;
        Ok(Self { child, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// See [`cpu_seconds`].
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.id())
    }

    /// Memory in use now, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        self.status_kib("VmRSS:")
    }

    /// The most memory in use since the start or [`Process::forget_peak`], in KiB.
    pub(crate) fn peak_kib(&self) -> Result<u64> {
        self.status_kib("VmHWM:")
    }

    pub(crate) fn forget_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.id()), "5")?)
    }

    fn status_kib(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Asks until `ready` has something, the process ends or [`START_TIMEOUT`] is over.
    pub(crate) fn wait<T>(&mut self, ready: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let started = clock::instant();
        loop {
            if let Some(found) = ready(self) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status} and wrote: {}", self.said());
            }
            if started.elapsed() > START_TIMEOUT {
                bail!("it is not ready after {START_TIMEOUT:?} and wrote: {}", self.said());
            }
            sleep(START_POLL);
        }
    }

    pub(crate) fn kill(&mut self) {
        // Fails only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// CPU seconds of a process since its start, user and system, with those of children that have ended (Redis
/// rewrites its append-only file in one).
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is the name in parentheses and may hold anything; utime is the fourteenth.
    let after_name = stat.rsplit_once(')').context("/proc/PID/stat without a name")?.1;
    let ticks = after_name.split_ascii_whitespace().skip(11).take(4).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 / USER_HZ)
}

/// When a Redis brings what it has confirmed to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// It has no append-only file.
    Never,
    Everysec,
    Always,
}

/// A Redis with an append-only file or without; else as it comes, without snapshots.
pub(crate) struct Redis {
    pub(crate) process: Process,
    port: u16,
}

impl Redis {
    /// Starts one whose files are under `dir`.
    pub(crate) fn start(dir: &Path, sync: Sync) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(dir);
        let (file, sync) = match sync {
            Sync::Never => ("no", "no"),
            Sync::Everysec => ("yes", "everysec"),
            Sync::Always => ("yes", "always"),
        };
        command.args(["--appendonly", file, "--appendfsync", sync, "--save", ""]);
        let mut process = Process::start(&mut command, dir.join("redis.log")).context("Redis")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        process.wait(|_| Resp::connect(address).ok()?.ping().ok()).context("Redis does not come up")?;
        Ok(Self { process, port })
    }

    pub(crate) fn connect(&self) -> Result<Resp> {
        Resp::connect((Ipv4Addr::LOCALHOST, self.port).into())
    }
}

/// A directory for one section, removed when dropped.
pub(crate) fn directory() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The stores under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Redis,
    Embedded,
}

impl StoreKind {
    pub(crate) const ALL: [Self; 2] = [Self::Redis, Self::Embedded];
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Redis => "redis",
            Self::Embedded => "embedded",
        })
    }
}

/// A running service with an empty store of its own. The fields are dropped from top to bottom.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// `None` with the embedded store, which costs the service's own CPU seconds.
    pub(crate) redis: Option<Redis>,
    command: Command,
    dir: TempDir,
}

impl Service {
    /// Starts `binary` on `store`, a Redis that syncs every second; `flags` are added to the command line. Rows go into CSV files unless a flag says
    /// otherwise.
    pub(crate) fn start(binary: &Path, store: StoreKind, flags: &[&str]) -> Result<Self> {
        let dir = directory()?;
        let redis = match store {
            StoreKind::Redis => Some(Redis::start(dir.path(), Sync::Everysec)?),
            StoreKind::Embedded => None,
        };
        Self::start_on(binary, dir, redis, flags)
    }

    /// The same on a Redis that syncs as it is told.
    pub(crate) fn start_on_redis(binary: &Path, sync: Sync, flags: &[&str]) -> Result<Self> {
        let dir = directory()?;
        let redis = Redis::start(dir.path(), sync)?;
        Self::start_on(binary, dir, Some(redis), flags)
    }

    fn start_on(binary: &Path, dir: TempDir, redis: Option<Redis>, flags: &[&str]) -> Result<Self> {
        let at = |name: &str| dir.path().join(name).display().to_string();
        let url = match &redis {
            Some(redis) => format!("redis://127.0.0.1:{}", redis.port),
            None => format!("embedded:{}", at("store")),
        };
        let mut command = Command::new(binary);
        // Neither the caller's environment nor a file beside it may change what is measured.
        command.env_clear().current_dir(dir.path());
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", &url]).args(flags);
        if !flags.contains(&"--sink") {
            command.args(["--sink", &format!("csv:{}", at("csv"))]);
        }
        let (process, address) = start_service(&mut command, dir.path())?;
        Ok(Self { address, process, redis, command, dir })
    }

    /// Kills it as a crash would and starts it again on what it has left; the time from the start
    /// until it says that it takes requests.
    pub(crate) fn crash_and_restart(&mut self) -> Result<Duration> {
        self.process.kill();
        let started = clock::instant();
        (self.process, self.address) = start_service(&mut self.command, self.dir.path())?;
        Ok(started.elapsed())
    }
}

fn start_service(command: &mut Command, dir: &Path) -> Result<(Process, SocketAddr)> {
    let mut process = Process::start(command, dir.join("service.log"))?;
    let address = process.wait(|process| ready_address(&process.said())).context("the service does not come up")?;
    Ok((process, address))
}

/// The address in the line that says the service is ready, once that line is complete.
fn ready_address(log: &str) -> Option<SocketAddr> {
    let (address, _) = log.split_once(READY)?.1.split_once('\n')?;
    address.trim().parse().ok()
}
