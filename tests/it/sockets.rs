//! The official clients of Socket.IO, in a process of Node: connects them, lets them speak, and hears what they hear.
//!
//! Used by `socketio.rs`. The packages are installed by npm below `target/` the first time, in the versions of
//! `tests/socketio/package-lock.json`; `tests/socketio/clients.js` has the other side.

use crate::service::eventually;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than any event takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a client is to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Polling,
    /// Polling first, then a WebSocket.
    Upgrade,
    Websocket,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Polling, Self::Upgrade, Self::Websocket];

    pub(crate) fn options(self) -> Value {
        match self {
            Self::Polling => json!({"transports": ["polling"]}),
            Self::Upgrade => json!({}),
            Self::Websocket => json!({"transports": ["websocket"]}),
        }
    }
}

/// Clients by names of the test's own.
pub(crate) struct Sockets {
    node: Child,
    commands: ChildStdin,
    events: Receiver<Value>,
    waiting: HashMap<String, VecDeque<(String, Value)>>,
}

impl Sockets {
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/socketio/clients.js");
        let mut node = Command::new("node")
            .arg(script)
            .arg(packages())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node can be run; scripts/tools installs it");
        let (commands, output) = (node.stdin.take().unwrap(), node.stdout.take().unwrap());
        let (say, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = say.send(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        Self { node, commands, events, waiting: HashMap::new() }
    }

    fn command(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").expect("node reads");
    }

    /// Connects a client that does not come back by itself, and returns the instance that has welcomed it.
    #[track_caller]
    pub(crate) fn connect(&mut self, id: &str, url: &str, version: u32, mode: Mode) -> String {
        let mut options = mode.options();
        options["reconnection"] = false.into();
        self.begin(id, url, version, &options);
        self.connected(id, mode)
    }

    /// Begins to connect a client.
    pub(crate) fn begin(&mut self, id: &str, url: &str, version: u32, options: &Value) {
        self.command(&json!({"id": id, "connect": {"url": url, "version": version, "options": options}}));
    }

    /// Waits until a client is connected as it is meant to be.
    #[track_caller]
    pub(crate) fn connected(&mut self, id: &str, mode: Mode) -> String {
        let (mut instance, mut way) = (None, None);
        let ready = |way: &Option<String>| match mode {
            Mode::Polling => way.as_deref() == Some("polling"),
            // It begins with polling, and may be done with it when it is told that it is connected.
            Mode::Upgrade | Mode::Websocket => way.as_deref() == Some("websocket"),
        };
        while instance.is_none() || !ready(&way) {
            let (event, args) = self.next(id);
            match event.as_str() {
                "connect" | "upgrade" => way = args[0].as_str().map(str::to_owned),
                "welcome" => instance = args[0]["instance"].as_str().map(str::to_owned),
                _ => panic!("{id}: {event} {args}"),
            }
        }
        instance.expect("the name of an instance")
    }

    /// An event with its arguments, without asking for an answer.
    pub(crate) fn emit(&mut self, id: &str, event: &Value) {
        self.command(&json!({"id": id, "emit": event}));
    }

    /// The same, and the answer. What the client hears meanwhile waits.
    #[track_caller]
    pub(crate) fn ask(&mut self, id: &str, event: &Value) -> String {
        self.begin_asking(id, event);
        let mut before = VecDeque::new();
        loop {
            let (name, args) = self.next(id);
            if name == "ack" {
                let heard = self.waiting.entry(id.to_owned()).or_default();
                before.into_iter().rev().for_each(|event| heard.push_front(event));
                return args[0].as_str().expect("a text").to_owned();
            }
            before.push_back((name, args));
        }
    }

    /// An event whose answer comes like other events, as `ack`.
    pub(crate) fn begin_asking(&mut self, id: &str, event: &Value) {
        self.command(&json!({"id": id, "emit": event, "ack": true}));
    }

    pub(crate) fn disconnect(&mut self, id: &str) {
        self.command(&json!({"id": id, "disconnect": true}));
    }

    /// The next thing that happens to a client: name and arguments.
    #[track_caller]
    pub(crate) fn next(&mut self, id: &str) -> (String, Value) {
        loop {
            if let Some(event) = self.waiting.get_mut(id).and_then(VecDeque::pop_front) {
                return event;
            }
            let event = self.events.recv_timeout(PATIENCE).expect("something within a minute");
            let [whose, name] = ["id", "event"].map(|key| event[key].as_str().unwrap().to_owned());
            self.waiting.entry(whose).or_default().push_back((name, event["args"].clone()));
        }
    }

    /// The next thing that happens is this event with one argument, which is returned.
    #[track_caller]
    pub(crate) fn told(&mut self, id: &str, expected: &str) -> Value {
        let (name, args) = self.next(id);
        assert_eq!((name.as_str(), args.as_array().map(Vec::len)), (expected, Some(1)), "{id}: {args}");
        args[0].clone()
    }

    /// The next thing that happens is this message of a channel.
    #[track_caller]
    pub(crate) fn check_message(&mut self, id: &str, message: &Value, channel: &str) {
        assert_eq!(self.next(id), ("message".to_owned(), json!([message, channel])), "{id}");
    }

    /// Ends all clients at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Bytes as an argument of an event.
pub(crate) fn bytes(base64: &str) -> Value {
    json!({"$bytes": base64})
}

/// Where the packages of the clients are; installs them if they are not.
pub(crate) fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/socketio");
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("socketio");
        let (lock, done) = (fs::read(from.join("package-lock.json")).unwrap(), to.join("installed.json"));
        if fs::read(&done).is_ok_and(|installed| installed == lock) {
            return to;
        }
        fs::create_dir_all(&to).unwrap();
        for file in ["package.json", "package-lock.json"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
        let npm = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&to)
            .output()
            .expect("npm can be run; scripts/tools installs it");
        assert!(npm.status.success(), "npm ci in {}: {}", to.display(), String::from_utf8_lossy(&npm.stderr));
        fs::write(done, lock).unwrap();
        to
    })
}

/// So many clients are connected to a service in this way.
#[track_caller]
pub(crate) fn check_clients(client: &crate::http::Client, transport: &str, expected: f64) {
    let series = format!("meanwhile_live_clients{{transport=\"{transport}\"}}");
    eventually(&format!("{series} is {expected}"), || {
        (crate::operations::metric(client, &series) == Some(expected)).then_some(())
    });
}
