//! What the scenarios are played with: the scripts and files that stand beside this one, run as programs.
//!
//! In the files only ports are changed, to free ones. A program is ended when it is dropped.

use crate::servers::{RedisServer, free_port, temporary};
use crate::service::{Killed, Service, eventually};
use crate::sockets::packages;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the files stand.
pub(super) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(name)
}

/// A sentence of the story.
pub(super) fn tell(sentence: &str) {
    println!("  {sentence}");
}

/// An instance on this Redis.
pub(super) fn server(redis: &RedisServer, flags: &[&str]) -> Service {
    Service::start_beside(&[&["--store", &redis.url()][..], flags].concat(), &[])
}

/// Instances of which only the first writes rows.
pub(super) fn servers(redis: &RedisServer, count: usize) -> Vec<Service> {
    (0..count).map(|n| server(redis, if n == 0 { &[] } else { &["--role", "ingest"] })).collect()
}

pub(super) fn port(service: &Service) -> u16 {
    service.url().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// The name by which the instance is known outside.
pub(super) fn instance(service: &Service) -> String {
    service.client().get("/healthz").headers["x-instance"].clone()
}

/// A running program, and what it prints.
pub(super) struct Program {
    lines: Receiver<String>,
    _child: Killed,
}

impl Program {
    fn start(mut command: Command) -> Self {
        let mut child: Child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/tools installs it"));
        let output = child.stdout.take().unwrap();
        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        Self { lines, _child: Killed(child) }
    }

    /// One of the scripts, in Node, with the official client of Socket.IO.
    pub(super) fn script(name: &str, words: &[&str]) -> Self {
        let mut node = Command::new("node");
        node.arg(file(name)).args(words).env("NODE_PATH", packages().join("node_modules"));
        Self::start(node)
    }

    /// The next line it prints.
    #[track_caller]
    pub(super) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("another line within a minute")
    }

    /// The next line it prints is this one.
    #[track_caller]
    pub(super) fn says(&self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// It is connected, and subscribed to a channel; returns the instance. The two are told in any order.
    #[track_caller]
    pub(super) fn subscribed(&self, to: &str) -> String {
        let mut lines = [self.line(), self.line()];
        lines.sort();
        assert_eq!(lines[1], format!("subscribed to {to}"));
        lines[0].strip_prefix("on instance ").unwrap_or_else(|| panic!("{lines:?}")).to_owned()
    }

    /// Waits until it has ended.
    pub(super) fn ended(&self) {
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
    }
}

/// `nginx`, `haproxy` or `stunnel` with one of the files.
pub(super) struct Proxy {
    dir: TempDir,
    child: Killed,
}

impl Proxy {
    /// Starts it with other texts in its file, each of which must be there, and waits until it listens on a port.
    pub(super) fn start(program: &str, name: &str, changes: &[(&str, String)], port: u16) -> Self {
        let dir = temporary();
        let mut text = fs::read_to_string(file(name)).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{name} has no {from}");
            text = text.replace(from, to);
        }
        fs::write(dir.path().join(name), text).unwrap();
        if program == "stunnel" {
            certify(dir.path());
        }
        let said = fs::File::create(dir.path().join("said")).unwrap();
        // Where Debian keeps programs that are not on the path.
        let installed = Path::new("/usr/sbin").join(program);
        let mut command = Command::new(if installed.exists() { &*installed } else { Path::new(program) });
        match program {
            "nginx" => command.arg("-p").arg(dir.path()).args(["-c", name, "-e", "stderr"]),
            "haproxy" => command.args(["-db", "-f", name]),
            _ => command.arg(name),
        };
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; scripts/tools installs it"));
        let mut proxy = Self { dir, child: Killed(child) };
        eventually("the proxy listens", || {
            let ended = proxy.child.0.try_wait().unwrap();
            assert!(ended.is_none(), "{program} has ended: {}", proxy.said());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        proxy
    }

    /// What it has written to standard error.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("said")).unwrap_or_default()
    }

    /// nginx before these servers, in turn, with other texts in its file; and its address.
    pub(super) fn balancer(servers: &[u16], more: &[(&str, String)]) -> (Self, String) {
        let port = free_port();
        let mut changes = vec![("127.0.0.1:8080", format!("127.0.0.1:{port}"))];
        for (known, n) in ["8000", "8001", "8002", "8003"].iter().zip(0..) {
            let line: &'static str = Box::leak(format!("        server 127.0.0.1:{known};\n").into_boxed_str());
            let real = servers.get(n).map(|port| format!("        server 127.0.0.1:{port};\n"));
            changes.push((line, real.unwrap_or_default()));
        }
        changes.extend_from_slice(more);
        (Self::start("nginx", "nginx-balanced.conf", &changes, port), format!("http://127.0.0.1:{port}"))
    }
}

/// A certificate that nobody has signed, and its key, in one file.
fn certify(dir: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(dir)
        .output()
        .expect("openssl can be run");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let both = ["certificate.pem", "key.pem"].map(|name| fs::read_to_string(dir.join(name)).unwrap()).concat();
    fs::write(dir.join("certificate.pem"), both).unwrap();
}

/// Runs curl and returns status and body.
pub(super) fn curl(words: &[&str]) -> (u16, String) {
    let output = Command::new("curl").args(["-s", "-w", "\n%{http_code}"]).args(words).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}
