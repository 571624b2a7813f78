//! `meanwhile watch`: lines in a pipe that go on over a death of the service, and a terminal that is given back.

use crate::http::{array, reading, reading_at};
use crate::service::{Killed, On, Service, eventually, signal};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Buckets close while the test looks on.
const SHORT: [&str; 8] =
    ["--periods", "1s,1m", "--grace", "100ms", "--lateness", "500ms", "--timezone", "Europe/Berlin"];

/// What it has printed so far, and what it has said beside it.
struct Lines {
    stdout: BufReader<ChildStdout>,
    said: Arc<Mutex<String>>,
    _process: Killed,
}

impl Lines {
    fn of(service: &Service, words: &[&str]) -> Self {
        let mut child = service.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
        let said = Arc::<Mutex<String>>::default();
        let saying = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                *saying.lock().unwrap() += &(line + "\n");
            }
        });
        Self { stdout, said, _process: Killed(child) }
    }

    /// The cells of the next line.
    fn next(&mut self) -> Vec<String> {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it has ended: {}", self.said.lock().unwrap());
        line.trim_end_matches('\n').split('\t').map(str::to_owned).collect()
    }

    /// The next line that begins with these cells.
    fn until(&mut self, cells: &[&str]) -> Vec<String> {
        loop {
            let line = self.next();
            if line.iter().zip(cells).filter(|(is, wanted)| is == wanted).count() == cells.len() {
                return line;
            }
        }
    }

    fn wait_for(&self, said: &str) {
        eventually(said, || self.said.lock().unwrap().contains(said).then_some(()));
    }
}

#[test]
fn lines_go_on_over_a_restart() {
    let mut service = Service::start(On::Embedded, &SHORT);
    let mut lines = Lines::of(&service, &["watch", "kitchen", "cellar", "kitchen", "--plain", "--timezone", "UTC"]);
    let mut unknown = [lines.next(), lines.next()];
    unknown.sort();
    assert_eq!(unknown, [["live", "cellar", "no readings"], ["live", "kitchen", "no readings"]]);
    lines.wait_for("connected to ");
    service.client().post(&array([reading("kitchen", 1.5), reading("other", 2.0)])).ok();
    // A reading at the end of its second may be told of as closed before live values are looked at.
    let (mut live, mut closed) = (Vec::new(), Vec::new());
    while live.is_empty() || closed.is_empty() {
        let line = lines.next();
        match line.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["live", "kitchen", "1m", ..] => live = line,
            ["closed", "kitchen", "1s", ..] => closed = line,
            _ => {}
        }
    }
    assert_eq!(live[4..], ["1", "1.5", "", "1.5", "1.5"], "{live:?}");
    assert_eq!(closed[4..], live[4..]);
    let start = service.client().rows("kitchen", "1s")[0]["start"].as_str().unwrap().to_owned();
    assert_eq!(closed[3], start.replace('T', " ").trim_end_matches('Z'));
    // A late reading corrects it.
    service.client().post(&reading_at("kitchen", 2.5, &start)).ok();
    let corrected = lines.until(&["closed", "kitchen", "1s"]);
    assert_eq!((&corrected[3], &*corrected[4]), (&closed[3], "2"), "{corrected:?}");

    // Written, or not even counted in a row, when the service dies: both are told of.
    service.client().post(&array(["kitchen", "cellar"].map(|id| reading(id, 4.0)))).ok();
    service.kill();
    lines.wait_for("trying again: ");
    service.start_again();
    let mut told: BTreeMap<(String, String), String> = BTreeMap::new();
    told.insert(("kitchen".to_owned(), closed[3].clone()), corrected[4].clone());
    let mut recovered = Vec::new();
    let client = service.client();
    while recovered.len() < 2 || !told.keys().any(|(source, _)| source == "cellar") || told.len() < 3 {
        let line = lines.next();
        match &*line[0] {
            "recovered" => recovered.push(line[1..].to_owned()),
            "closed" if line[2] == "1s" => {
                told.insert((line[1].clone(), line[3].clone()), line[4].clone());
            }
            _ => {}
        }
    }
    recovered.sort();
    assert_eq!(recovered, [["cellar", "all"], ["kitchen", "all"]]);
    for source in ["kitchen", "cellar"] {
        for row in client.rows(source, "1s") {
            let start = row["start"].as_str().unwrap().replace('T', " ").trim_end_matches('Z').to_owned();
            let told = told.get(&(source.to_owned(), start)).map(String::as_str);
            assert_eq!(told, Some(&*row["count"].to_string()), "{row}");
        }
    }
}

#[test]
fn an_id_that_looks_like_a_pattern_is_a_source() {
    let service = Service::start(On::Embedded, &["--periods", "1h", "--grace", "50ms", "--lateness", "100ms"]);
    service.client().post(&array(["a*b", "axb"].map(|id| reading(id, 1.5)))).ok();
    let mut lines = Lines::of(&service, &["watch", "a*b", "--plain"]);
    assert_eq!(lines.next()[..3], ["live", "a*b", "1h"]);
    service.client().post(&array(["axb", "a*b"].map(|id| reading_at(id, 1.5, "2026-01-05T00:00:00Z")))).ok();
    assert_eq!(lines.next()[..3], ["closed", "a*b", "1h"]);
}

#[test]
fn what_it_refuses() {
    let service = Service::start(On::Embedded, &SHORT);
    let check = |words: &[&str], code: i32, part: &str| {
        let output = service.command(words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.contains(part)), (Some(code), true), "{words:?}: {said}");
    };
    check(&["watch", "a", "--period", "1h"], 2, "--period: the service does not store 1h: choose one of 1s, 1m");
    check(&["watch", ""], 1, "live:, closed: and silent: take the id of a source");
    let many: Vec<String> = (0..51).map(|n| n.to_string()).collect();
    check(&[&["watch"][..], &many.iter().map(String::as_str).collect::<Vec<_>>()].concat(), 2, "at most 50");
    let service = Service::start(On::Redis, &SHORT);
    let alone = Service::start_beside(&[&["--store", &service.store(), "--role", "ingest"], &SHORT[..]].concat(), &[]);
    let output = alone.command(&["watch", "a"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&service.url()), "it names the instance that has the sink: {said}");
}

/// A picture has it as one piece, whatever the picture before was.
const DRAWN: &str = "closed buckets of 1s, newest first";

/// A terminal of 80 by 24 in which the shell runs a command line; what is typed is its standard input, what it shows its
/// output.
struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn watching(service: &Service) -> Self {
        Self::watching_after("", service)
    }

    /// The shell is told something before.
    fn watching_after(words: &str, service: &Service) -> Self {
        const PTY: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        const LINE: &str = "stty rows 24 cols 80; before=$(stty -g)
            sh -c 'echo pid $$.; exec \"$0\" watch kitchen' \"$0\"; code=$?
            test \"$(stty -g)\" = \"$before\" && echo the same terminal; exit $code";
        let mut command = Command::new("python3");
        command.args(["-c", PTY, "sh", "-c", &format!("{words}{LINE}"), env!("CARGO_BIN_EXE_meanwhile")]);
        command.env("MEANWHILE_URL", service.url()).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let shown = Arc::<Mutex<String>>::default();
        let (showing, mut stdout) = (Arc::clone(&shown), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                *showing.lock().unwrap() += &String::from_utf8_lossy(&buffer[..read]);
            }
        });
        Self { child, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        eventually(text, || self.shown().contains(text).then_some(()));
    }

    fn pid(&self) -> u32 {
        let shown = self.shown();
        shown.split_once("pid ").unwrap().1.split_once('.').unwrap().0.parse().unwrap()
    }

    /// Sees that it ends well and leaves the terminal as it was.
    fn ends(mut self) {
        let status = self.child.wait().unwrap();
        self.wait_for("the same terminal");
        let shown = self.shown();
        assert!(status.success(), "{status}: {shown}");
        let after = shown.rsplit_once("\x1b[?1049h").expect("a screen of its own").1;
        assert!(after.contains("\x1b[?1049l") && after.contains("\x1b[?25h"), "{after}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_terminal_is_given_back() {
    let service = Service::start(On::Embedded, &SHORT);
    service.client().post(&reading("kitchen", 21.5)).ok();
    for keys in ["q", "\x1b", "\x03"] {
        let mut terminal = Terminal::watching(&service);
        terminal.wait_for(DRAWN);
        terminal.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
        terminal.ends();
    }
    for name in ["TERM", "HUP", "INT"] {
        let terminal = Terminal::watching(&service);
        terminal.wait_for(DRAWN);
        signal(name, terminal.pid());
        terminal.ends();
    }
}

#[test]
fn it_does_not_outlive_its_terminal() {
    let service = Service::start(On::Embedded, &SHORT);
    // Of the end of the terminal the shell is told, who then does not pass it on.
    for words in ["", "trap '' HUP; "] {
        let terminal = Terminal::watching_after(words, &service);
        terminal.wait_for(DRAWN);
        let stat = format!("/proc/{}/stat", terminal.pid());
        drop(terminal);
        // Gone, or nobody has taken note of its end.
        eventually("it ends", || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")).then_some(()));
    }
}
