//! Real servers for the tests: a `redis-server` on a free port with its files in a directory of its
//! own, ended with `SIGKILL` when dropped.
//!
//! Used by `world.rs` and by everything that needs Redis. Nothing of the machine's own servers is
//! touched. A start takes some 30 ms, so a test may have its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

/// Another process may take a port between our look and the server's; then the next one is tried.
const START_ATTEMPTS: usize = 5;
/// A start that takes longer than 10 s has failed.
const READY_POLLS: usize = 1_000;
const READY_PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct RedisServer {
    child: Option<Child>,
    port: u16,
    dir: TempDir,
    options: Vec<String>,
}

impl RedisServer {
    /// A server that keeps everything in memory.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--appendonly", "no"])
    }

    /// A server that has every confirmed write on disk, so that [`Self::restart`] finds it again.
    pub(crate) fn start_durable() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn start_with(options: &[&str]) -> Self {
        let dir = temporary();
        let options = options.iter().map(|&o| o.to_owned()).collect();
        let mut server = Self { child: None, port: 0, dir, options };
        for _ in 0..START_ATTEMPTS {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server did not start; its log:\n{}", server.log());
    }

    /// A server that has every confirmed write on disk, and all that another has.
    pub(crate) fn start_replica_of(primary: &Self) -> Self {
        let port = primary.port.to_string();
        let replica = ["--replicaof", "127.0.0.1", &port, "--appendonly", "yes", "--appendfsync", "always"];
        let server = Self::start_with(&replica);
        server.attached_to(primary);
        server
    }

    /// Makes it a replica, and waits until it has everything.
    pub(crate) fn follow(&self, primary: &Self) {
        self.cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        self.attached_to(primary);
    }

    /// Waits until it has everything that its primary has by now.
    pub(crate) fn attached_to(&self, primary: &Self) {
        let number = |server: &Self, name: &str| -> u64 {
            let info = server.ask(&["INFO", "replication"]);
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map_or(0, |number| number.trim().parse().expect("a number"))
        };
        let written = number(primary, "master_repl_offset");
        crate::service::eventually("the replica has everything", || {
            let up = self.ask(&["INFO", "replication"]).contains("master_link_status:up");
            (up && number(primary, "connected_slaves") > 0 && number(self, "slave_repl_offset") >= written)
                .then_some(())
        });
    }

    /// Makes a replica a primary, whose contents are its own from then on.
    pub(crate) fn promote(&self) {
        self.cli(&["REPLICAOF", "NO", "ONE"]);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends the server at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server is ours to end");
            child.wait().expect("the server has ended");
        }
    }

    /// Starts it again on the same port and directory.
    pub(crate) fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "redis-server did not start again; its log:\n{}", self.log());
    }

    /// Sends the running server a signal, by its short name.
    pub(crate) fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("the server runs");
        crate::service::signal(name, child.id());
    }

    /// Says something to the server with `redis-cli`.
    pub(crate) fn cli(&self, words: &[&str]) {
        self.ask(words);
    }

    /// The same, and returns what it answers.
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        let said = Command::new("redis-cli").args(["-e", "-p", &self.port.to_string()]).args(words).output();
        let said = said.expect("redis-cli comes with redis-server");
        assert!(said.status.success(), "redis-cli {words:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// Whether the server answers; not if its port was taken.
    fn launch(&mut self) -> bool {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            // A replica is served at once, not after waiting for others.
            .args(["--repl-diskless-sync-delay", "0", "--logfile", "redis.log", "--dir"])
            .arg(self.dir.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("redis-server is needed for the tests with Redis; install it: {e}"));
        let child = self.child.insert(child);
        for _ in 0..READY_POLLS {
            if child.try_wait().expect("the server is our child").is_some() {
                self.child = None;
                return false;
            }
            if answers_ping(self.port) {
                return true;
            }
            sleep(READY_PAUSE);
        }
        false
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory in memory where the machine has such a place: durable stores wait for the disk at every
/// write, and what a test shows does not depend on it.
pub(crate) fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a temporary directory")
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

/// `+PONG` only once the server has read its files.
fn answers_ping(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG\r\n")
    };
    ask().unwrap_or(false)
}
