//! Where a document is run: a directory in which the sample data are found, a service of its own on a
//! free port, and a Redis if it is asked for.
//!
//! Used by `documents.rs`. The service is that of the document's first `meanwhile serve` (or `make run`); every
//! later one is started to see that it can be, then the first goes on. Addresses with the usual ports
//! are replaced by those in use.

use crate::servers::{RedisServer, temporary};
use crate::service::{Killed, eventually, signal};
use std::fs;
use std::io::{Write, stderr};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_meanwhile");
/// What documents use of the project. Not all of it: a command may write where somebody's own file is.
const OF_THE_PROJECT: [&str; 2] = ["meanwhile.example.toml", "sample-data"];
/// What examples may use that the standard library of Python has not.
const LIBRARIES: [&str; 2] = ["pandas", "duckdb"];

/// What a microcontroller has and Python has not: a sensor, a network that fails at first and then loses
/// an answer, and an end after some rounds of a loop that has none.
const MACHINE: &str = "class ADC:\n    def __init__(self, pin): pass\n    def read_u16(self): return 32768\n";
const REQUESTS: &str = "import urllib.request
calls = 0
class Answer:
    def __init__(self, status): self.status_code = status
    def close(self): pass
def post(url, data, headers, timeout):
    global calls
    calls += 1
    if calls == 1: raise OSError('no network')
    with urllib.request.urlopen(urllib.request.Request(url, data.encode(), headers)) as answer: status = answer.status
    if calls == 2: raise OSError('the answer is lost')
    return Answer(status)
";
const ROUNDS: &str = "import sys, time
left = 60
def sleep(seconds):
    global left
    left -= 1
    if left == 0: sys.exit(0)
time.sleep = sleep
";

/// To whoever runs the tests, although this one succeeds.
fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

pub(super) struct Place {
    document: String,
    dir: TempDir,
    redis: Option<RedisServer>,
    /// The service, and the command that started it.
    service: Option<(Killed, String)>,
    /// 0 until the system has chosen one.
    port: u16,
}

impl Place {
    pub(super) fn new(document: &str) -> Self {
        let dir = temporary();
        for name in OF_THE_PROJECT {
            symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), dir.path().join(name)).unwrap();
        }
        Self { document: document.to_owned(), dir, redis: None, service: None, port: 0 }
    }

    /// Runs a block, which must succeed, and returns what it prints; nothing if it is no program that
    /// ends, or cannot be run on this machine.
    pub(super) fn run(&mut self, language: &str, text: &str, line: usize) -> Option<String> {
        let place = format!("{}:{line}", self.document);
        // A service is the last line of its block: it goes on.
        let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
        if last.starts_with("meanwhile serve") || last == "make run" {
            self.bash(before, &place);
            self.serve(&last.replace("make run", "meanwhile serve"));
            return None;
        }
        if self.service.is_none() {
            self.serve("meanwhile serve");
        }
        let text = self.at_our_ports(text);
        match language {
            "sh" => Some(self.bash(&text, &place)),
            "python" => self.python(&text, &place),
            _ => self.sql(&text, &place),
        }
    }

    fn python(&self, text: &str, place: &str) -> Option<String> {
        let file = self.dir.path().join("example.py");
        fs::write(&file, text).unwrap();
        if text.contains("from machine import") {
            for (name, stands_in) in [("machine", MACHINE), ("requests", REQUESTS), ("sitecustomize", ROUNDS)] {
                fs::write(self.dir.path().join(name).with_extension("py"), stands_in).unwrap();
            }
            return Some(self.bash("PYTHONPATH=. python3 example.py", place));
        }
        self.bash("python3 -m py_compile example.py", place);
        let missing = LIBRARIES.iter().find(|library| text.contains(*library) && !self.has(library));
        if let Some(library) = missing {
            say(&format!("{place}: compiled, but not run: this python3 has no {library}"));
            return None;
        }
        Some(self.bash("python3 example.py", place))
    }

    fn sql(&self, text: &str, place: &str) -> Option<String> {
        if !self.has("duckdb") {
            say(&format!("{place}: not run: this python3 has no duckdb"));
            return None;
        }
        fs::write(self.dir.path().join("example.sql"), text).unwrap();
        let rows = "import duckdb; duckdb.sql(open('example.sql').read()).write_csv('/dev/stdout', header=False)";
        Some(self.bash(&format!("python3 -c \"{rows}\""), place))
    }

    fn has(&self, library: &str) -> bool {
        let import = self.shell(&format!("python3 -c 'import {library}'")).stderr(Stdio::null()).status();
        import.unwrap().success()
    }

    fn bash(&self, script: &str, place: &str) -> String {
        let Output { status, stdout, stderr } = self.shell(script).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{place}: {status}\n{script}\n{stdout}{stderr}");
        stdout
    }

    /// A script in the directory, without the settings of whoever runs the tests.
    fn shell(&self, script: &str) -> Command {
        let programs = Path::new(BINARY).parent().unwrap().display();
        let port = self.port;
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c"]).arg(format!(
            "unset ${{!MEANWHILE_@}}; export PATH='{programs}':$PATH LC_ALL=C.UTF-8 \
             TZ=UTC MEANWHILE_URL=http://127.0.0.1:{port}\n{script}"
        ));
        bash.current_dir(self.dir.path()).stdin(Stdio::null());
        bash
    }

    fn at_our_ports(&mut self, text: &str) -> String {
        let mut text = text.replace("127.0.0.1:8080", &format!("127.0.0.1:{}", self.port));
        if text.contains("redis://127.0.0.1:6379") {
            let redis = self.redis.get_or_insert_with(RedisServer::start);
            text = text.replace("redis://127.0.0.1:6379", &redis.url());
        }
        text
    }

    fn serve(&mut self, command: &str) {
        let first = self.stop();
        self.start(command);
        if let Some(first) = first {
            self.stop();
            self.start(&first);
        }
    }

    fn start(&mut self, command: &str) {
        let log = self.dir.path().join("log-of-the-service");
        let command_here = self.at_our_ports(command);
        let script = format!("MEANWHILE_LISTEN=127.0.0.1:{} exec {command_here}", self.port);
        let bash = self.shell(&script).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let mut service = Killed(bash);
        self.port = eventually("the service listens", || {
            let said = fs::read_to_string(&log).unwrap();
            let ended = service.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}: {command} has ended: {said}", self.document);
            let (_, rest) = said.split_once("listening on http://127.0.0.1:")?;
            rest.split_once('\n')?.0.parse().ok()
        });
        self.service = Some((service, command.to_owned()));
    }

    /// Returns the command of the service that ran.
    fn stop(&mut self) -> Option<String> {
        let (mut service, command) = self.service.take()?;
        signal("TERM", service.0.id());
        assert!(service.0.wait().unwrap().success(), "{}: {command} has not ended well", self.document);
        Some(command)
    }
}
