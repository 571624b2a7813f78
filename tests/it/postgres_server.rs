//! PostgreSQL servers for the tests: on a free port, with their files in a directory of their own, under
//! another user when the tests run as root, which PostgreSQL refuses.
//!
//! Used by everything that needs the Postgres sink. [`Database::new`] makes a database on the one server
//! that all tests of a run share; a test that hurts its server starts its own. A shell stands between
//! a server and the tests: it ends the server once the tests are gone, however they ended. SQL goes
//! through `psql`, as a person would ask.

use crate::servers::{free_port, temporary};
use crate::service::{eventually, signal};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// The owner of the server, whose password must never be seen.
const OWNER: &str = "owner";
pub(crate) const PASSWORD: &str = "hush-hush";

/// Starts the server, waits until nobody holds its standard input any more, and ends it. A directory that nobody
/// else removes goes with it.
const GUARD: &str = r#""$@" 2>>log & pid=$!; read -r _; kill -QUIT "$pid" 2>/dev/null; kill -CONT "$pid" 2>/dev/null; wait "$pid"; [ -z "$REMOVE" ] || rm -rf "$PWD""#;

/// Starts that fail one after the other before a test does.
const START_ATTEMPTS: usize = 20;

pub(crate) struct PostgresServer {
    guard: Option<Child>,
    port: u16,
    options: Vec<String>,
    /// It is never dropped, so its guard removes its directory.
    shared: bool,
    dir: TempDir,
}

/// A database of its own, without tables.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) port: u16,
    pub(crate) name: String,
}

static SHARED: LazyLock<PostgresServer> = LazyLock::new(|| PostgresServer::start_as(true, &["max_connections=200"]));
static DATABASES: AtomicUsize = AtomicUsize::new(0);

impl PostgresServer {
    /// A server of its own; options are those of its configuration.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_as(false, options)
    }

    fn start_as(shared: bool, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { guard: None, port: 0, options, shared, dir: temporary() };
        let dir = server.dir.path().to_owned();
        if let Some((user, group)) = other_user() {
            chown(&dir, Some(user), Some(group)).unwrap();
        }
        fs::write(dir.join("password"), PASSWORD).unwrap();
        fs::set_permissions(dir.join("password"), fs::Permissions::from_mode(0o644)).unwrap();
        // An order of texts for people where there is one: the service must not rely on that of bytes.
        let help = program("initdb", &dir).arg("--help").output().unwrap().stdout;
        let knows_icu = String::from_utf8(help).unwrap().contains("--icu-locale");
        let made = program("initdb", &dir)
            .args(["-D", "data", "-U", OWNER, "--pwfile", "password", "-A", "scram-sha-256", "-E", "UTF8"])
            .args(["--locale", "C.UTF-8", "--no-sync", "--no-instructions"])
            .args(if knows_icu { &["--locale-provider", "icu", "--icu-locale", "en"][..] } else { &[] })
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.port = free_port();
        server.launch();
        server
    }

    /// A database on this server.
    pub(crate) fn database(&self) -> Database {
        Database::on(self.port)
    }

    /// Ends the server and all its sessions at once, as a crash of the machine does.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Starts the server that was killed, on the same port and files.
    pub(crate) fn restart(&mut self) {
        assert!(self.guard.is_none(), "the server runs");
        self.launch();
    }

    /// Makes the server that was killed a standby of nobody, or no longer one, before it is started again.
    pub(crate) fn set_standby(&self, standby: bool) {
        let file = self.dir.path().join("data/standby.signal");
        if standby { fs::write(file, "") } else { fs::remove_file(file) }.unwrap();
    }

    /// Sends a signal, by its short name, to the server and all its processes.
    pub(crate) fn signal(&self, name: &str) {
        let pid: u32 = self.file("data/postmaster.pid").lines().next().unwrap().parse().unwrap();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        signal(name, pid);
        for child in children.split_whitespace() {
            // One that has ended meanwhile is fine.
            let _ = Command::new("kill").args([&format!("-{name}"), child]).stderr(Stdio::null()).status().unwrap();
        }
    }

    pub(crate) fn log(&self) -> String {
        self.file("log")
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// A process of the server that was killed may live for a moment longer and be in the way.
    fn launch(&mut self) {
        for _ in 0..START_ATTEMPTS {
            if self.try_launch() {
                return;
            }
            self.wait();
        }
        panic!("PostgreSQL did not start; its log:\n{}", self.log());
    }

    fn try_launch(&mut self) -> bool {
        const IN_THE_WAY: [&str; 3] =
            ["pre-existing shared memory", "could not create any TCP/IP sockets", "lock file"];
        let before = self.log().len();
        let mut options = vec!["listen_addresses=127.0.0.1".to_owned(), "unix_socket_directories=".to_owned()];
        options.extend_from_slice(&self.options);
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(binaries().join("postgres")).args(["-D", "data", "-p"]);
        guard.arg(self.port.to_string()).args(options.iter().flat_map(|option| ["-c", option]));
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(self.dir.path());
        guard.env("REMOVE", if self.shared { "yes" } else { "" });
        as_other_user(&mut guard);
        self.guard = Some(guard.spawn().unwrap());
        eventually("PostgreSQL takes connections or says why not", || {
            let log = self.log().split_off(before);
            if IN_THE_WAY.iter().any(|reason| log.contains(reason)) {
                return Some(false);
            }
            let ready = ["connections", "read-only connections"].map(|what| format!("ready to accept {what}"));
            ready.iter().any(|ready| log.contains(ready)).then_some(true)
        })
    }

    /// Lets the guard go and sees that the server has ended.
    fn wait(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().unwrap();
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.wait();
    }
}

impl Database {
    /// A database on the server that all tests share.
    pub(crate) fn new() -> Self {
        Self::on(SHARED.port)
    }

    fn on(port: u16) -> Self {
        let name = format!("test_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::SeqCst));
        let database = Self { port, name };
        let first = Self { port, name: "postgres".to_owned() };
        first.sql(&format!("CREATE DATABASE {}", database.name));
        database
    }

    /// The address for its owner.
    pub(crate) fn url(&self) -> String {
        self.url_of(OWNER)
    }

    /// The address for another role, which has the same password.
    pub(crate) fn url_of(&self, role: &str) -> String {
        format!("postgres://{role}:{PASSWORD}@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// What the server answers: a line per row, columns between `|`.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let output = self.psql(statements).output().unwrap();
        let (said, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{statements}: {error}");
        said.trim_end().to_owned()
    }

    /// A session that runs the statements and goes on until it is dropped or ends by itself.
    pub(crate) fn session(&self, statements: &str) -> Session {
        Session(self.psql(statements).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn psql(&self, statements: &str) -> Command {
        let mut psql = Command::new(binaries().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", statements]);
        psql
    }
}

/// A `psql` under way.
pub(crate) struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// Where the newest installed server has its programs.
fn binaries() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").map(|entries| {
        let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        entries.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(version).map(|path| path.join("bin"))
    });
    if let Ok(Some(path)) = installed {
        return path;
    }
    let on_path = Command::new("pg_config").arg("--bindir").output();
    let found = on_path.expect("PostgreSQL is needed for these tests; install it");
    String::from_utf8(found.stdout).unwrap().trim().into()
}

fn program(name: &str, dir: &Path) -> Command {
    let mut program = Command::new(binaries().join(name));
    program.current_dir(dir).stdin(Stdio::null());
    as_other_user(&mut program);
    program
}

fn as_other_user(command: &mut Command) {
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
}

/// Whom the server runs as, if the tests run as root: the user its package made, or nobody.
pub(crate) fn other_user() -> Option<(u32, u32)> {
    if File::open("/proc/self").unwrap().metadata().unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let id = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
        Some((fields.next()?, fields.next()?))
    };
    Some(id("postgres").or_else(|| id("nobody")).expect("a user who is not root"))
}
