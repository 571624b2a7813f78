//! A proxy before instances: starts nginx, HAProxy or stunnel with a file of `deploy/`, on free ports.
//!
//! What is changed in the file is in `machine.rs`. Beside its ports a proxy has one on which the same is answered without TLS, for clients of the tests that
//! do not know it. A shell stands between proxy and test, and ends it however the test ends.

use super::machine::{Kind, Ports, lay_out};
use crate::servers::{free_port, temporary};
use crate::service::{Killed, eventually};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Starts the proxy, waits until nobody holds its standard input any more, and ends it.
const GUARD: &str = r#""$@" & pid=$!; read -r _; kill -TERM "$pid" 2>/dev/null; wait "$pid""#;
/// Another process may take a port between our look and the proxy's.
const START_ATTEMPTS: usize = 5;

pub(super) struct Front {
    guard: Option<Child>,
    ports: Ports,
    dir: TempDir,
}

impl Front {
    /// A proxy before the instances on these ports.
    pub(super) fn start(kind: Kind, instances: &[u16]) -> Self {
        Self::changed(kind, instances, &[])
    }

    /// The same with other texts in its file, or in what that includes; each must be there.
    pub(super) fn changed(kind: Kind, instances: &[u16], changes: &[(&str, &str)]) -> Self {
        for _ in 0..START_ATTEMPTS {
            let mut front = Self::prepared(kind, instances, changes);
            if front.launch(kind) {
                return front;
            }
            eprintln!("{kind:?} did not start:\n{}", front.log());
        }
        panic!("{kind:?} does not start, see above");
    }

    /// What the program says about the file, and whether it takes it.
    pub(super) fn judged(kind: Kind, changes: &[(&str, &str)]) -> (bool, String) {
        let front = Self::prepared(kind, &[1, 2, 3], changes);
        let words = kind.program(true);
        let looked = command(words[0]).args(&words[1..]).arg(front.file(kind)).output();
        let looked = looked.unwrap_or_else(|error| panic!("{}: {error}; scripts/tools installs it", words[0]));
        let said = String::from_utf8_lossy(&looked.stdout) + String::from_utf8_lossy(&looked.stderr);
        (looked.status.success(), said.into_owned())
    }

    fn prepared(kind: Kind, instances: &[u16], changes: &[(&str, &str)]) -> Self {
        let dir = temporary();
        let ports = Ports { plain: free_port(), tls: free_port(), open: free_port(), tunnel: free_port() };
        certify(dir.path());
        lay_out(kind, ports, dir.path(), instances, changes);
        Self { guard: None, ports, dir }
    }

    fn file(&self, kind: Kind) -> PathBuf {
        self.dir.path().join(kind.file())
    }

    fn launch(&mut self, kind: Kind) -> bool {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut guard = command("sh");
        guard.args(["-c", GUARD, "guard"]).arg(command(kind.program(false)[0]).get_program());
        guard.args(&kind.program(false)[1..]).arg(self.file(kind));
        guard.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).current_dir(self.dir.path());
        let guard = self.guard.insert(guard.spawn().unwrap());
        let pid = guard.id();
        let tls = self.ports.tls;
        eventually(&format!("{kind:?} listens"), || {
            if TcpStream::connect(("127.0.0.1", tls)).is_ok() {
                return Some(true);
            }
            // Its own end is seen only when the guard looks at it.
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let state = |child: &str| fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            children.split_whitespace().any(|child| state(child).contains(") Z ")).then_some(false)
        })
    }

    /// The address without TLS.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.open)
    }

    pub(super) fn secure_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.tls)
    }

    /// The address that sends its clients to the one with TLS.
    pub(super) fn plain_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.plain)
    }

    /// Where stunnel is to hand on what it gets.
    pub(super) fn tunnel_port(&self) -> u16 {
        self.ports.tunnel
    }

    /// The certificate by which it is known.
    pub(super) fn certificate(&self) -> PathBuf {
        self.dir.path().join("fullchain.pem")
    }

    /// Runs `curl`, which trusts this proxy, and returns what it prints.
    pub(super) fn curl(&self, words: &[&str]) -> String {
        let curl = command("curl").args(["-sS", "--cacert"]).arg(self.certificate()).args(words).output();
        let curl = curl.expect("curl can be run; scripts/tools installs it");
        let said = String::from_utf8_lossy(&curl.stderr);
        assert!(curl.status.success(), "curl {words:?}: {said}\n{}", self.log());
        String::from_utf8(curl.stdout).unwrap()
    }

    /// The same, for an answer that does not end: its lines as they come.
    pub(super) fn curling(&self, words: &[&str]) -> (Killed, impl Iterator<Item = String> + use<>) {
        let mut curl = command("curl");
        curl.args(["-sS", "--cacert"]).arg(self.certificate()).args(words).stdout(Stdio::piped());
        let mut curl = curl.spawn().expect("curl can be run; scripts/tools installs it");
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines().map_while(Result::ok);
        (Killed(curl), lines)
    }

    /// What it has written to its logs.
    pub(super) fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        ["log", "error.log", "access.log"].map(read).concat()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let end: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the last of a proxy, newest first:\n{}", end.join("\n"));
        }
    }
}

/// A program that may be where only root looks for it.
fn command(program: &str) -> Command {
    let for_root = Path::new("/usr/sbin").join(program);
    let mut command = if for_root.exists() { Command::new(for_root) } else { Command::new(program) };
    command.stdin(Stdio::null());
    command
}

/// A certificate that nobody has signed.
fn certify(dir: &Path) {
    let made = command("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-keyout", "key.pem", "-out", "fullchain.pem"])
        .current_dir(dir)
        .output()
        .expect("openssl can be run; scripts/tools installs it");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    fs::write(dir.join("haproxy.pem"), read("fullchain.pem") + &read("key.pem")).unwrap();
}
