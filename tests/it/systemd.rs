//! Under a service manager: what the process tells systemd, and the units that are shipped.
//!
//! The manager of these tests is a socket that writes down what it is told. The units are judged by
//! `systemd-analyze`, which `scripts/tools` installs if it is missing.

use crate::http::Client;
use crate::servers::temporary;
use crate::service::{Killed, command, signal};
use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
/// For one instance, and for several, each with its port as its name.
const UNITS: [&str; 2] = ["meanwhile.service", "meanwhile@.service"];
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/meanwhile.example.toml");
/// Longer than a start or a stop takes.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Of 100, what `systemd-analyze security` may find; it is 12, and what it names is the network.
const MOST_EXPOSED: u32 = 15;

/// The assignments of the next message.
fn told(manager: &UnixDatagram) -> BTreeMap<String, String> {
    let mut message = [0; 4096];
    let length = manager.recv(&mut message).expect("the manager is told something");
    let text = str::from_utf8(&message[..length]).unwrap();
    text.lines().map(|line| line.split_once('=').expect("an assignment")).map(|(k, v)| (k.into(), v.into())).collect()
}

/// A service in `dir` that has a manager.
fn managed(dir: &Path, address: &str) -> Killed {
    fs::write(dir.join("m.toml"), "").unwrap();
    let mut serve = command(&["serve", "--config", "m.toml", "--listen", "127.0.0.1:0"]);
    serve.current_dir(dir).env("NOTIFY_SOCKET", address).stderr(Stdio::null());
    Killed(serve.spawn().unwrap())
}

#[test]
fn the_manager_hears_of_start_reload_and_stop() {
    let dir = temporary();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut service = managed(dir.path(), path.to_str().unwrap());

    let start = told(&manager);
    assert_eq!(start["READY"], "1");
    let url = start["STATUS"].strip_prefix("listening on ").expect("where");
    Client::new(url.to_owned()).get("/readyz").ok();
    signal("HUP", service.0.id());
    assert_eq!(told(&manager)["RELOADING"], "1");
    assert_eq!(told(&manager)["READY"], "1");
    signal("TERM", service.0.id());
    assert_eq!(told(&manager)["STOPPING"], "1");
    assert_eq!(service.0.wait().unwrap().code(), Some(0));
}

#[test]
fn the_manager_may_have_an_abstract_name() {
    let dir = temporary();
    let name = dir.path().to_str().unwrap();
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    manager.set_read_timeout(Some(TIMEOUT)).unwrap();
    let _service = managed(dir.path(), &format!("@{name}"));
    assert_eq!(told(&manager)["READY"], "1");
}

#[test]
fn a_manager_that_is_not_there_keeps_nobody_from_running() {
    let dir = temporary();
    let mut check = command(&["serve", "--listen", "127.0.0.1:0"]);
    check.current_dir(dir.path()).env("NOTIFY_SOCKET", dir.path().join("nobody")).stderr(Stdio::piped());
    let mut service = Killed(check.spawn().unwrap());
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(service.0.stderr.take().unwrap()));
    let lines: Vec<String> =
        said.by_ref().map(Result::unwrap).take_while(|line| !line.starts_with("listening on")).collect();
    assert!(lines.iter().any(|line| line.contains("nobody cannot be told")), "{lines:?}");
}

/// A unit with the program of these tests in the place of the installed one.
fn unit(dir: &Path, name: &str) -> (String, String) {
    let text = fs::read_to_string(Path::new(DEPLOY).join(name)).unwrap();
    let text = text.replace("/usr/local/bin/meanwhile", env!("CARGO_BIN_EXE_meanwhile"));
    let path = dir.join(name);
    fs::write(&path, &text).unwrap();
    (path.to_str().unwrap().to_owned(), text)
}

/// Runs it, and returns what it has to say.
fn analyze(words: &[&str]) -> String {
    let output = Command::new("systemd-analyze").args(words).output();
    let output = output.expect("systemd-analyze can be run; scripts/tools installs it");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    said.into_owned()
}

#[test]
fn systemd_takes_the_units_and_finds_them_closed() {
    let dir = temporary();
    for name in UNITS {
        let (path, _) = unit(dir.path(), name);
        // A key that it does not know is a line, no failure; lines about other units are not ours.
        let said = analyze(&["verify", "--man=no", &path]);
        assert!(!said.contains("meanwhile"), "{said}");
        analyze(&["security", "--offline=true", "--no-pager", &format!("--threshold={MOST_EXPOSED}"), &path]);
    }
}

/// The value of a key that stands there once.
fn value(text: &str, key: &str) -> String {
    let values: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    let [value] = values[..] else { panic!("{key}= is there {} times", values.len()) };
    value.to_owned()
}

#[test]
fn the_units_agree_with_the_program() {
    let dir = temporary();
    for name in UNITS {
        let (_, text) = unit(dir.path(), name);
        let value = |key: &str| value(&text, key);
        // What it runs can be run, with the example in the place of the installed file.
        let start = value("ExecStart").replace("/etc/meanwhile/meanwhile.toml", EXAMPLE).replace("%i", "8081");
        let words: Vec<&str> = start.split(' ').collect();
        assert_eq!(words[..2], [env!("CARGO_BIN_EXE_meanwhile"), "serve"]);
        let config = command(&["config"]).args(&words[2..]).output().unwrap();
        assert!(config.status.success(), "{start}: {}", String::from_utf8_lossy(&config.stderr));
        let config = String::from_utf8(config.stdout).unwrap();
        assert!(!name.contains('@') || config.contains("listen = \"127.0.0.1:8081\""), "{config}");

        let deadline = meanwhile::app::STOP_DEADLINE.as_secs();
        assert!(value("TimeoutStopSec").parse::<u64>().unwrap() > deadline, "a stop takes up to {deadline} s");
        let files: usize = value("LimitNOFILE").parse().unwrap();
        assert!(files >= meanwhile::config::MAX_CONNECTIONS + 100, "LimitNOFILE={files} is not enough");
        assert_eq!((value("Type"), value("Restart")), ("notify".to_owned(), "on-failure".to_owned()));
        // After a crash it is back within 2 s, however often that happens.
        assert!(value("RestartSec").parse::<u64>().unwrap() < 2);
        assert_eq!(value("StartLimitIntervalSec"), "0");
        assert!(value("ExecReload").ends_with("-HUP $MAINPID"));
    }
}

/// All that is said of one is said of several; but for the port, its name, and a file of its own.
#[test]
fn the_units_differ_in_nothing_else() {
    let lines = |name: &str| -> Vec<String> {
        let text = fs::read_to_string(Path::new(DEPLOY).join(name)).unwrap();
        let keys = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        keys.filter(|line| !line.starts_with("EnvironmentFile=-/etc/meanwhile/%i.env"))
            .map(|line| line.replace(" --listen 127.0.0.1:%i", "").replace(" on port %i", ""))
            .collect()
    };
    assert_eq!(lines(UNITS[0]), lines(UNITS[1]));
}
