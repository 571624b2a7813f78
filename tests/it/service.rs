//! The binary as a user runs it: `meanwhile serve` as a child process on a free port, and the other
//! commands against it.
//!
//! Used by every test from the outside. A service has a directory of its own for embedded store, CSV
//! files and log, lives beside its own Redis if it has one, and is ended with `SIGKILL` when dropped.
//! It can be killed, stopped and started again on the same port. What goes over HTTP is in `http.rs`,
//! the files of the sink are read in `sink_files.rs`.

use crate::http::Client;
use crate::servers::{RedisServer, temporary};
use meanwhile::clock;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

/// What takes longer than this has failed; no test needs a tenth of it on an idle machine.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(20);
/// The number of the signal, the same on every Linux.
const SIGABRT: i32 = 6;

const BINARY: &str = env!("CARGO_BIN_EXE_meanwhile");

/// Which store a service runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Embedded,
    /// A server of its own that has every confirmed write on disk.
    Redis,
}

pub(crate) struct Service {
    child: Option<Child>,
    /// 0 until the system has chosen one.
    port: u16,
    flags: Vec<String>,
    /// What `ulimit` is told before a start, if anything.
    ulimit: Vec<String>,
    /// Variables of its environment.
    variables: Vec<(String, String)>,
    /// Bytes of the log that belong to earlier starts.
    log_before: usize,
    redis: Option<RedisServer>,
    dir: TempDir,
}

impl Service {
    /// Starts a service with these flags beside `--listen` and, unless they are among them, `--store` and
    /// `--sink`.
    pub(crate) fn start(on: On, flags: &[&str]) -> Self {
        Self::start_under(&[], on, flags)
    }

    /// Starts a service with these variables in its environment.
    pub(crate) fn start_where(variables: &[(&str, &str)], on: On, flags: &[&str]) -> Self {
        let mut service = Self::prepared((on == On::Redis).then(RedisServer::start_durable), flags);
        service.set_variables(variables);
        service.start_again();
        service
    }

    /// Starts a service under a limit of the shell, such as `-n 150`.
    pub(crate) fn start_under(ulimit: &[&str], on: On, flags: &[&str]) -> Self {
        let redis = (on == On::Redis).then(RedisServer::start_durable);
        let mut service = Self::prepared(redis, flags);
        service.ulimit = ulimit.iter().map(|&word| word.to_owned()).collect();
        service.start_again();
        service
    }

    /// Starts a service on a store that it does not own: `--store` is one of the flags.
    pub(crate) fn start_beside(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut service = Self::prepared(None, flags);
        service.set_variables(variables);
        service.start_again();
        service
    }

    fn prepared(redis: Option<RedisServer>, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let (ulimit, variables) = (Vec::new(), Vec::new());
        Self { child: None, port: 0, flags, ulimit, variables, log_before: 0, redis, dir: temporary() }
    }

    fn set_variables(&mut self, variables: &[(&str, &str)]) {
        self.variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    /// The flags of the next start.
    pub(crate) fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// The store as `--store` names it.
    pub(crate) fn store(&self) -> String {
        let flag = self.flags.iter().position(|flag| flag == "--store");
        match (flag, &self.redis) {
            (Some(at), _) => self.flags[at + 1].clone(),
            (None, Some(redis)) => redis.url(),
            (None, None) => format!("embedded:{}", self.dir.path().join("store").display()),
        }
    }

    /// The directory of the CSV files.
    pub(crate) fn sink(&self) -> PathBuf {
        let flag = self.flags.iter().position(|flag| flag == "--sink");
        let url = flag.map(|at| self.flags[at + 1].strip_prefix("csv:").expect("the CSV sink"));
        url.map_or_else(|| self.dir.path().join("csv"), PathBuf::from)
    }

    /// The Redis beside it.
    pub(crate) fn redis(&mut self) -> &mut RedisServer {
        self.redis.as_mut().expect("a service that runs on Redis")
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.flags.iter().any(|flag| flag == "--tls-cert") { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// What the present process has written to standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default().split_off(self.log_before)
    }

    /// Starts the service that was ended, on the same port, with the same flags and files.
    pub(crate) fn start_again(&mut self) {
        self.spawn(None);
        self.port = eventually("the service listens", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the service has ended ({ended:?}): {}", self.log());
            self.log()
                .split_once("listening on ")?
                .1
                .split_once("://127.0.0.1:")?
                .1
                .split_once(|c: char| !c.is_ascii_digit())?
                .0
                .parse()
                .ok()
        });
    }

    /// Starts the service that was ended so that it ends itself at a failpoint, `name:n`; it may not come
    /// so far as to listen.
    pub(crate) fn start_again_until(&mut self, failpoint: &str) {
        self.spawn(Some(failpoint));
    }

    /// Waits until it has ended itself there.
    pub(crate) fn wait_for_failpoint(&mut self) {
        let child = self.child.as_mut().expect("the service runs");
        let ended = eventually("the failpoint is passed", || child.try_wait().unwrap());
        self.child = None;
        assert_eq!(ended.signal(), Some(SIGABRT), "{ended}: {}", self.log());
    }

    fn spawn(&mut self, failpoint: Option<&str>) {
        assert!(self.child.is_none(), "the service runs");
        self.log_before = fs::read_to_string(self.dir.path().join("log")).map_or(0, |log| log.len());
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut program = match &*self.ulimit {
            [] => command(&[]),
            words => limited(words),
        };
        if let Some(failpoint) = failpoint {
            program.env("MEANWHILE_FAILPOINT", failpoint);
        }
        let child = program
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)])
            .args(if self.flags.iter().any(|flag| flag == "--store") {
                vec![]
            } else {
                vec!["--store".to_owned(), self.store()]
            })
            .args(if self.flags.iter().any(|flag| flag == "--sink") {
                vec![]
            } else {
                vec!["--sink".to_owned(), format!("csv:{}", self.sink().display())]
            })
            .args(&self.flags)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Starts the service that was ended with other flags; files and port are the same, and so is the
    /// store unless it is one of them.
    pub(crate) fn start_with(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        self.start_again();
    }

    /// Ends the service at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks it to stop with `SIGTERM`, and sees that it ends well.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("the service runs");
        signal("TERM", child.id());
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), Some(0), "{}", self.log());
    }

    /// Waits until it has ended by itself, and returns its exit status.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let child = self.child.as_mut().expect("the service runs");
        let ended = eventually("the service ends", || child.try_wait().unwrap());
        self.child = None;
        ended.code()
    }

    /// Sends it a signal, by its short name.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.pid());
    }

    /// Whether it was started and not ended since.
    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the service runs").id()
    }

    /// Memory in use now, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most memory that was ever in use, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, name: &str) -> u64 {
        let child = self.child.as_ref().expect("the service runs");
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// One of the client commands against this service.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = command(words);
        command.env("MEANWHILE_URL", self.url());
        command
    }

    /// Runs it, and returns what it wrote to standard output; it must have succeeded.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert!(status.success(), "meanwhile {words:?} ended with {status}: {stderr}\n{}", self.log());
        stdout
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the service on port {}:\n{}", self.port, self.log());
        }
    }
}

/// A process that is ended at once when dropped.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command line, in an environment without settings.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(words).env_clear().stdin(Stdio::null());
    command
}

/// The binary under a limit of the shell, in an environment without settings.
fn limited(ulimit: &[String]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {}; exec \"$0\" \"$@\"", ulimit.join(" ")), BINARY]);
    command.env_clear().stdin(Stdio::null());
    command
}

/// Sends a signal, by its short name, to a process of ours.
pub(crate) fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "SIG{name} to {pid}");
}

/// Waits until `look` finds something.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = clock::instant();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(POLL);
    }
}
