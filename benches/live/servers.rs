//! What is measured: Redis, instances of the service and the peer, each kept to its core.
//!
//! Used by every section. The measured server has the first core for itself, so that it is one core that a figure
//! speaks of; Redis and the clients share the second one. Ports stay over a restart, because clients come back to them.

use crate::processes::{Process, directory, free_port};
use crate::resp::{Pipeline, Resp};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";
/// Our part of the peer, and where npm puts the rest.
const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/live/peer");
const PEER_BUILT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/live-peer");
/// More connections than any section opens.
const MAX_CONNECTIONS: [&str; 4] = ["--max-connections", "40000", "--max-connections-per-address", "0"];

/// A Redis, and a directory for those that use it. Dropped from top to bottom.
pub(crate) struct World {
    redis: Process,
    redis_port: u16,
    sync: &'static str,
    dir: TempDir,
}

/// One server under measurement.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl World {
    /// `sync`: when Redis brings to the disk what it has confirmed.
    pub(crate) fn start(sync: &'static str) -> Result<Self> {
        let (dir, redis_port) = (directory()?, free_port()?);
        let redis = start_redis(dir.path(), redis_port, sync)?;
        Ok(Self { redis, redis_port, sync, dir })
    }

    pub(crate) fn redis(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.redis_port).into()
    }

    /// Kills Redis as a crash would and starts it on what it has left.
    pub(crate) fn restart_redis(&mut self) -> Result<()> {
        self.redis.kill();
        self.redis = start_redis(self.dir.path(), self.redis_port, self.sync)?;
        Ok(())
    }

    /// An instance on `port`, with `flags` added; with a sink, unless they give it a role.
    pub(crate) fn service(&self, binary: &Path, port: u16, flags: &[&str]) -> Result<Server> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = on_core(SERVER_CORE, binary);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(self.dir.path());
        command.args(["serve", "--listen", &address.to_string(), "--store", &format!("redis://{}", self.redis())]);
        // Files belong to one instance; what others close, it writes.
        if !flags.contains(&"--role") {
            command.args(["--sink", &format!("csv:{}", self.dir.path().join("csv").display())]);
        }
        command.args(MAX_CONNECTIONS).args(flags);
        let mut process = Process::start(&mut command, self.dir.path().join(format!("service-{port}.log")))?;
        let ready = |process: &Process| process.said().contains("listening on http://").then_some(());
        process.wait(ready).context("the service does not come up")?;
        Ok(Server { process, address })
    }

    /// The Socket.IO server of its authors with their adapter for Redis; `npm` fetches them once.
    pub(crate) fn peer(&self) -> Result<Server> {
        let built = Path::new(PEER_BUILT);
        fs::create_dir_all(built)?;
        for file in ["package.json", "server.js"] {
            fs::copy(Path::new(PEER).join(file), built.join(file))?;
        }
        let install = Command::new("npm").args(["install", "--no-audit", "--no-fund"]).current_dir(built).output();
        let install = install.context("npm, is it installed?")?;
        ensure!(install.status.success(), "npm install: {}", String::from_utf8_lossy(&install.stderr));
        let port = free_port()?;
        let mut command = on_core(SERVER_CORE, Path::new("node"));
        command.arg(built.join("server.js")).args([port.to_string(), format!("redis://{}", self.redis())]);
        command.env("NODE_ENV", "production");
        let mut process = Process::start(&mut command, self.dir.path().join("peer.log"))?;
        let ready = |process: &Process| process.said().contains("ready").then_some(());
        process.wait(ready).context("the peer does not come up")?;
        Ok(Server { process, address: (Ipv4Addr::LOCALHOST, port).into() })
    }

    /// How many channels somebody listens to in Redis.
    pub(crate) fn channels(&self) -> Result<usize> {
        let mut stream = TcpStream::connect(self.redis())?;
        stream.write_all(b"PUBSUB CHANNELS\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim().strip_prefix('*').context("PUBSUB CHANNELS is not an array")?.parse()?)
    }
}

impl Server {
    /// Memory of this process, with its part of what it shares, in KiB.
    pub(crate) fn memory_kib(&self) -> Result<f64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id()))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Clients over a WebSocket, as the service counts them.
    pub(crate) fn clients(&self) -> Result<usize> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let line =
            answer.lines().find_map(|line| line.strip_prefix(r#"meanwhile_live_clients{transport="websocket"} "#));
        Ok(line.context("no clients among the metrics")?.trim().parse()?)
    }
}

/// Sends messages to channels from outside, as any program may.
pub(crate) struct Publisher(Resp);

impl Publisher {
    pub(crate) fn connect(world: &World) -> Result<Self> {
        Ok(Self(Resp::connect(world.redis())?))
    }

    pub(crate) fn publish(&mut self, channel: &str, message: &str) -> Result<()> {
        let mut pipeline = Pipeline::default();
        pipeline.integer(&["PUBLISH", channel, message]);
        self.0.run(&pipeline)
    }
}

fn start_redis(dir: &Path, port: u16, sync: &str) -> Result<Process> {
    let mut command = on_core(CLIENT_CORE, Path::new("redis-server"));
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(dir);
    command.args(["--appendonly", "yes", "--appendfsync", sync, "--save", ""]);
    let mut process = Process::start(&mut command, dir.join("redis.log")).context("Redis")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    process.wait(|_| Resp::connect(address).ok()?.ping().ok()).context("Redis does not come up")?;
    Ok(process)
}

fn on_core(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

/// Keeps this process and all its threads off the measured core, and lets it open as many files as it may. What it
/// starts from here on inherits both.
pub(crate) fn settle() -> Result<()> {
    let own = std::process::id().to_string();
    let limits = fs::read_to_string("/proc/self/limits")?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit on files")?;
    let most = files.split_ascii_whitespace().nth(1).context("no hard limit on files")?;
    let most = format!("--nofile={most}:{most}");
    let steps = [("prlimit", vec!["--pid", &own, &most]), ("taskset", vec!["-a", "-c", "-p", CLIENT_CORE, &own])];
    for (program, arguments) in steps {
        let done =
            Command::new(program).args(&arguments).output().with_context(|| format!("{program}, is it installed?"))?;
        ensure!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
