//! A PostgreSQL server of the benchmark's own: as it comes, on a free port, its files on a real disk.
//!
//! Used by the sections that write rows to a table. It runs as another user if the benchmark runs as root, which
//! PostgreSQL refuses. What it costs is what all of its processes cost: backends, checkpointer,
//! background and WAL writer, autovacuum.

use crate::processes::{Process, cpu_seconds, directory, free_port};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const OWNER: &str = "bench";
/// Besides where it listens, nothing is set; this only says so, since the figures depend on it.
const DURABLE: &str = "synchronous_commit=on";

/// Ended when dropped.
pub(crate) struct Postgres {
    process: Process,
    port: u16,
    dir: TempDir,
}

impl Postgres {
    pub(crate) fn start() -> Result<Self> {
        let dir = directory()?;
        if let Some((user, group)) = other_user()? {
            chown(dir.path(), Some(user), Some(group))?;
        }
        let mut initdb = program("initdb", dir.path())?;
        initdb.args(["-D", "data", "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8"]);
        run(initdb.arg("--no-instructions"))?;
        let port = free_port()?;
        let mut command = program("postgres", dir.path())?;
        command.args(["-D", "data", "-p", &port.to_string(), "-c", DURABLE]);
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let mut process = Process::start(&mut command, dir.path().join("postgres.log"))?;
        process.wait(|process| process.said().contains("ready to accept connections").then_some(()))?;
        Ok(Self { process, port, dir })
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://{OWNER}@127.0.0.1:{}/postgres", self.port)
    }

    /// What the server answers to statements: a line per row.
    pub(crate) fn sql(&self, statements: &[&str]) -> Result<String> {
        let mut psql = program("psql", self.dir.path())?;
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url()]);
        run(psql.args(statements.iter().flat_map(|statement| ["-c", statement])))
    }

    /// CPU seconds of the server so far, with those of its processes that have ended.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let pid = self.process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let mut seconds = cpu_seconds(pid)?;
        for child in children.split_ascii_whitespace() {
            // One that has ended since then counts with the server.
            seconds += cpu_seconds(child.parse()?).unwrap_or_default();
        }
        Ok(seconds)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Else its processes would go on writing into the directory for a moment.
        let stop = |mut pg_ctl: Command| run(pg_ctl.args(["-D", "data", "-m", "immediate", "stop"]));
        let _ = program("pg_ctl", self.dir.path()).and_then(stop);
    }
}

fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {name}: is PostgreSQL installed?"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// A program of the newest installed server, to be run in `dir`.
fn program(name: &str, dir: &Path) -> Result<Command> {
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let path = installed.max_by_key(version).map_or_else(|| name.into(), |newest| newest.join("bin").join(name));
    let mut command = Command::new(path);
    command.current_dir(dir).stdin(Stdio::null());
    if let Some((user, group)) = other_user()? {
        command.uid(user).gid(group);
    }
    Ok(command)
}

/// User and group of the server if the benchmark runs as root: those its package made.
fn other_user() -> Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find_map(|line| line.strip_prefix("postgres:")).context("no user postgres")?;
    let fields: Vec<&str> = line.split(':').collect();
    Ok(Some((fields[1].parse()?, fields[2].parse()?)))
}
