//! A PostgreSQL server that is killed: on a fixed port, with files that stay.
//!
//! Started by `world.rs` and `pair.rs`, broken by `site.rs`. It runs under another user when the tests run as root, which PostgreSQL refuses, and is as
//! durable as it comes. SQL goes through `psql`, in sessions that share nothing with the service.

use crate::faults::Fault;
use crate::processes::{free_port, signal};
use anyhow::{Context, Result, bail, ensure};
use meanwhile::clock;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const OWNER: &str = "soak";
/// A crash of this size is recovered from in a second; processes of the server that was killed may be in
/// the way until they have noticed.
const START_TIMEOUT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// How a session is called that keeps locks, and one of the service.
const LOCKER: &str = "locker";
const SERVICE: &str = "meanwhile";

pub(crate) struct Postgres {
    port: u16,
    dir: PathBuf,
    child: Option<Child>,
    /// A session that keeps a lock.
    locker: Option<Child>,
}

impl Postgres {
    /// Makes a server in a directory of its own and starts it.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        if let Some((user, group)) = other_user()? {
            chown(dir, Some(user), Some(group))?;
        }
        let mut initdb = program("initdb", dir)?;
        initdb.args(["-D", "data", "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8"]);
        run(initdb.arg("--no-instructions"))?;
        let mut postgres = Self { port: free_port()?, dir: dir.to_owned(), child: None, locker: None };
        postgres.start_again()?;
        Ok(postgres)
    }

    /// The address for the service.
    pub(crate) fn url(&self) -> String {
        format!("postgres://{OWNER}@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        let started = clock::instant();
        while self.sql("SELECT 1").is_err() {
            let log = self.dir.join("log").display().to_string();
            ensure!(started.elapsed() < START_TIMEOUT, "PostgreSQL does not start; see {log}");
            let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended {
                self.launch()?;
            }
            sleep(POLL);
        }
        Ok(())
    }

    fn launch(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("log"))?;
        let mut server = program("postgres", &self.dir)?;
        server.args(["-D", "data", "-p", &self.port.to_string()]);
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        self.child = Some(server.stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    /// What it answers to statements: a line per row, columns between `|`.
    pub(crate) fn sql(&self, statements: &str) -> Result<String> {
        run(&mut self.psql(statements)?)
    }

    fn psql(&self, statements: &str) -> Result<Command> {
        let mut psql = program("psql", &self.dir)?;
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", statements]);
        Ok(psql)
    }

    /// Begins a fault; whether it lasts.
    pub(crate) fn begin(&mut self, fault: Fault) -> Result<bool> {
        match fault {
            Fault::KillPostgres => self.kill()?,
            Fault::StopPostgres => self.signal("STOP")?,
            Fault::LockTable => self.lock("LOCK TABLE bucket_stats IN ACCESS EXCLUSIVE MODE")?,
            Fault::LockRows => self.lock("SELECT FROM bucket_stats WHERE source < 'timed-2' FOR UPDATE")?,
            _ => {
                // A server that is just starting has no sessions to be ended.
                let _ = self.end_sessions(SERVICE);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends a fault that lasts.
    pub(crate) fn end(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillPostgres => self.start_again(),
            Fault::StopPostgres => self.signal("CONT"),
            _ => self.unlock(),
        }
    }

    /// Ends the server alone; its processes find that out and end by themselves.
    fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// To the server and all its processes.
    fn signal(&self, name: &str) -> Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let id = child.id();
        signal(name, child)?;
        for process in fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?.split_ascii_whitespace() {
            // One that has ended meanwhile is fine.
            let _ = Command::new("kill").args([&format!("-{name}"), process]).stderr(Stdio::null()).status()?;
        }
        Ok(())
    }

    fn lock(&mut self, what: &str) -> Result<()> {
        let mut psql = self.psql(&format!("SET application_name = {LOCKER}; {what}; SELECT pg_sleep(600)"))?;
        self.locker = Some(psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    fn unlock(&mut self) -> Result<()> {
        if let Some(mut locker) = self.locker.take() {
            locker.kill()?;
            locker.wait()?;
        }
        self.end_sessions(LOCKER)
    }

    fn end_sessions(&self, name: &str) -> Result<()> {
        let of = format!("FROM pg_stat_activity WHERE application_name = '{name}' AND pid <> pg_backend_pid()");
        self.sql(&format!("SELECT pg_terminate_backend(pid) {of}")).map(drop)
    }

    /// The rows of a period as CSV, under the names that docs/csv.md gives the columns.
    pub(crate) fn rows(&self, period: &str) -> Result<String> {
        self.sql(&format!(
            "COPY (SELECT source, to_char(bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS start, count, \
             COALESCE(mean::text, array_to_json(means)::text) AS mean, \
             COALESCE(var_pop::text, array_to_json(covar_pop)::text) AS var_pop, \
             COALESCE(min::text, array_to_json(mins)::text) AS min, COALESCE(max::text, array_to_json(maxs)::text) AS max, \
             sum, sum_sq, base, generation, gen_count, revision FROM bucket_stats \
             WHERE period = '{period}') TO STDOUT WITH (FORMAT csv, HEADER)"
        ))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // At the end of a run that broke off there is nothing better to do.
        let stop = |mut pg_ctl: Command| run(pg_ctl.args(["-D", "data", "-m", "immediate", "stop"]));
        if program("pg_ctl", &self.dir).and_then(stop).is_err() {
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {name}: is PostgreSQL installed?"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A program of the newest installed server, to be run in `dir`.
fn program(name: &str, dir: &Path) -> Result<Command> {
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let path = installed.max_by_key(version).map_or_else(|| name.into(), |newest| newest.join("bin").join(name));
    let mut command = Command::new(path);
    command.current_dir(dir).stdin(Stdio::null()).env("PGCONNECT_TIMEOUT", "5");
    if let Some((user, group)) = other_user()? {
        command.uid(user).gid(group);
    }
    Ok(command)
}

/// User and group of the server if the tests run as root: those its package made, or nobody's.
fn other_user() -> Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    for name in ["postgres:", "nobody:"] {
        if let Some(line) = users.lines().find_map(|line| line.strip_prefix(name)) {
            let fields: Vec<&str> = line.split(':').collect();
            return Ok(Some((fields[1].parse()?, fields[2].parse()?)));
        }
    }
    bail!("PostgreSQL does not run as root, and there is neither postgres nor nobody")
}
