//! What holds of every command: what it says where something is wrong and what to do about it, its
//! exit status, and what it does when nobody reads its output.
//!
//! And the output that is for people: plots, local times, completions, manual pages. The first
//! minutes with the commands are in `first_steps.rs`.

use crate::http::{array, reading_at};
use crate::servers::temporary;
use crate::service::{On, Service, command, eventually};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

const LINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/greenhouses.ndjson");

/// One line of each client command that would succeed against a service with a source `kitchen`.
const CLIENTS: [&[&str]; 5] =
    [&["import", LINES, "--retry-for", "0s"], &["query", "kitchen"], &["sources"], &["state", "kitchen"], &["drain"]];
/// The one that does not end by itself.
const ENDLESS: &[&str] = &["watch", "kitchen"];
/// Those that need no service.
const ALONE: [&[&str]; 6] =
    [&["--help"], &["query", "--help"], &["--version"], &["config"], &["completions", "bash"], &["man"]];

/// Sees that a command ends with a status and says something on standard error, and nothing else.
#[track_caller]
fn check(mut command: Command, code: i32, fragments: &[&str]) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{command:?}: {said}");
    assert!(stdout.is_empty(), "{command:?}");
    for fragment in fragments {
        assert!(said.contains(fragment), "{command:?}: {said} lacks {fragment}");
    }
}

/// The command with another address.
fn at(url: &str, words: &[&str]) -> Command {
    let mut command = command(words);
    command.env("MEANWHILE_URL", url);
    command
}

#[test]
fn every_client_command_names_the_remedy() {
    for words in CLIENTS.into_iter().chain([ENDLESS]) {
        check(
            at("http://127.0.0.1:1", words),
            1,
            &["no server at http://127.0.0.1:1", "`meanwhile serve`", "MEANWHILE_URL"],
        );
        check(at("localhost:8080", words), 2, &["--url", "write http://HOST:PORT"]);
        check(at("https://127.0.0.1:1", words), 1, &["no server at https://127.0.0.1:1", "MEANWHILE_URL"]);
        check(at("ftp://me:hush@127.0.0.1:1", words), 2, &["ftp://***@127.0.0.1:1"]);
        check(at("http://127.0.0.1:1", &[words, &["--unknown"]].concat()), 2, &["--unknown", "--help"]);
    }
}

#[test]
fn every_client_command_knows_what_is_no_service() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Says what another program says, once per connection.
    std::thread::spawn(move || {
        for (i, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            // To the end of the request: what is left unread would break the connection.
            let head: Vec<String> = stream.by_ref().lines().map(Result::unwrap).take_while(|l| !l.is_empty()).collect();
            let length =
                head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            stream.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
            let status = if i % 2 == 0 { "404 Not Found" } else { "200 OK" };
            let _ =
                write!(stream.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>");
        }
    });
    for words in CLIENTS.into_iter().chain([ENDLESS]) {
        check(at(&url, words), 1, &[&url, "answered Not Found (404)", "MEANWHILE_URL"]);
        check(at(&url, words), 1, &[&url, "does not answer like a meanwhile service", "MEANWHILE_URL"]);
    }
}

#[test]
fn slips_of_the_hand_are_named() {
    let service = kitchen();
    let slip = |words: &[&str], code: i32, fragments: &[&str]| check(service.command(words), code, fragments);
    slip(&["query", "kichen"], 1, &["did you mean kitchen?"]);
    slip(&["state", "kichen"], 1, &["did you mean kitchen?"]);
    slip(&["query"], 2, &["<SOURCE>"]);
    slip(&["state"], 2, &["<SOURCE>"]);
    slip(&["quary", "kitchen"], 2, &["similar", "query"]);
    for words in [&["query", "kitchen"][..], &["sources"], &["state", "kitchen"], ENDLESS] {
        slip(&[words, &["--timezone", "Mars"]].concat(), 2, &["Mars", "Europe/Berlin"]);
    }
    slip(&["query", "kitchen", "--from", "soon"], 2, &["soon", "--from", "-24h", "yesterday", "2026-11"]);
    slip(&["query", "kitchen", "--to=24h"], 2, &["24h", "--to", "-24h"]);
    slip(&["query", "kitchen", "--from", "today", "--to", "yesterday"], 2, &["--from is after --to", "exchange"]);
    slip(&["query", "kitchen", "--from", "-3000y"], 2, &["--from", "years 0 to 9999"]);
    slip(&["query", "kitchen", "--format", "chart"], 2, &["table", "plot"]);
    slip(&["query", "kitchen", "--band", "stddev"], 2, &["--format plot"]);
    slip(&["sources", "--format", "csv"], 2, &["table, json"]);
    slip(&["completions", "tcsh"], 2, &["bash", "zsh", "fish"]);
    slip(&["man", "--dir", "/dev/null/man"], 1, &["/dev/null/man", "--dir"]);
    slip(&["import", "readings.xml"], 2, &["--format csv or --format ndjson"]);
    // A slip is found without a service.
    check(at("http://127.0.0.1:1", &["query", "kitchen", "--from", "soon"]), 2, &["soon"]);
}

#[test]
fn what_is_empty_is_no_failure() {
    let service = kitchen();
    let note = |words: &[&str], fragment: &str| check(service.command(words), 0, &[fragment]);
    note(&["query", "kitchen", "--from", "2030"], "no 1m buckets in this range");
    note(&["query", "kitchen", "--from", "2030", "--format", "plot"], "no 1m buckets in this range");
    note(&["sources", "--prefix", "x"], "no sources");
}

#[test]
fn a_closed_pipe_is_no_error_for_any_command() {
    let service = kitchen();
    let closed = || {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        writer
    };
    let formats = ["table", "csv", "json", "text", "plot"].map(|format| ["query", "kitchen", "--format", format]);
    let queries = formats.iter().map(|words| &words[..]);
    for words in CLIENTS.into_iter().chain(ALONE).chain(queries) {
        let Output { status, stderr, .. } = service.command(words).stdout(closed()).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(0), "{words:?}: {said}");
        assert!(words[0] == "import" || said.is_empty(), "{words:?}: {said}");
        // Nor is one for what people read.
        let status = service.command(words).stdout(Stdio::null()).stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(0), "{words:?}");
        let status = at("http://127.0.0.1:1", words).stdout(closed()).stderr(closed()).status().unwrap();
        let code = i32::from(!ALONE.contains(&words));
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
    assert_eq!(service.command(ENDLESS).stdout(closed()).status().unwrap().code(), Some(0));
    assert_eq!(service.command(ENDLESS).stdout(closed()).stderr(closed()).status().unwrap().code(), Some(0));
}

#[test]
fn a_full_disk_is_an_error_for_every_command_that_writes() {
    let service = kitchen();
    let alone = [&["completions", "fish"][..], &["man"]];
    for words in CLIENTS.into_iter().filter(|words| words[0] != "import").chain([ENDLESS]).chain(alone) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let Output { status, stderr, .. } = service.command(words).stdout(full).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{words:?}");
        let failed = said.lines().any(|line| line.starts_with("error: cannot write to standard output: No space left"));
        assert!(failed, "{words:?}: {said}");
    }
}

/// `meanwhile serve 2>&1 | head -1`
#[test]
fn a_service_whose_log_nobody_reads_goes_on() {
    let dir = temporary();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let words = ["serve", "--listen", &format!("127.0.0.1:{port}")];
    let mut serve = command(&words);
    serve.current_dir(dir.path()).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = serve.spawn().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    eventually("the service answers", || {
        assert_eq!(child.try_wait().unwrap(), None, "the service has ended");
        at(&url, &["sources"]).output().unwrap().status.success().then_some(())
    });
    crate::service::signal("TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_plot_of_known_readings() {
    let service = kitchen();
    let range = ["--period", "1m", "--from", "2026-03-01", "--to", "2026-03-02"];
    let plot = |more: &[&str]| {
        let words = [&["query", "kitchen", "--format", "plot"][..], &range, more].concat();
        service.command(&words)
    };
    let text = |mut command: Command| String::from_utf8(command.output().unwrap().stdout).unwrap();
    let ascii = text(plot(&[]));
    assert!(ascii.is_ascii() && ascii.starts_with("kitchen: mean and min..max of each 1m\n"), "{ascii}");
    assert!(ascii.ends_with("2026-03-01 06:00 to 2026-03-01 06:05 (UTC)\n"), "{ascii}");
    // Where there is no terminal.
    assert_eq!(ascii.lines().map(str::len).max(), Some(80), "{ascii}");
    let utf8 = |name: &str, locale: &str| {
        let mut command = plot(&["--timezone", "Europe/Berlin"]);
        command.env("LANG", "C.UTF-8").env(name, locale);
        text(command)
    };
    let drawn = utf8("LC_ALL", "de_DE.utf8");
    assert!(drawn.contains('░') && drawn.contains('╭'), "{drawn}");
    assert!(drawn.ends_with("2026-03-01 07:00 to 2026-03-01 07:05 (Europe/Berlin)\n"), "{drawn}");
    assert!(utf8("LC_CTYPE", "C").is_ascii());
    let band = text(plot(&["--band", "stddev"]));
    assert!(band.starts_with("kitchen: mean and +- stddev of each 1m\n") && band != ascii, "{band}");
}

#[test]
fn times_are_shown_and_read_in_the_zone_asked_for() {
    let service = Service::start(On::Embedded, &["--timezone", "Europe/Berlin"]);
    // Both hours from two to three of the night in which clocks go back, and noon.
    let times = ["2025-10-26T00:30:00Z", "2025-10-26T01:30:00Z", "2025-10-26T11:00:00Z"];
    service.client().post(&array(times.map(|time| reading_at("kitchen", 1.0, time)))).ok();
    let starts = |words: &[&str]| -> Vec<String> {
        let table = service.run(&[&["query", "kitchen", "--period", "1h"][..], words].concat());
        table.lines().skip(1).map(|row| row.split("  ").next().unwrap().to_owned()).collect()
    };
    let night = ["2025-10-26 02:00", "2025-10-26 02:00+01:00"];
    assert_eq!(starts(&["--to", "2025-10-26 12:00"]), night);
    assert_eq!(starts(&["--from", "2025-10-26 02:00+01:00", "--to", "2025-10-26 03:00"]), night[1..]);
    assert_eq!(starts(&["--from", "2025-10", "--to", "2025-11"]).len(), 3);
    assert_eq!(starts(&["--from", "2025-11"]), [""; 0]);
    let utc = ["--timezone", "UTC", "--from", "2025-10-26 01:00", "--to", "2025-10-26 12:00"];
    assert_eq!(starts(&utc), ["2025-10-26 01:00", "2025-10-26 11:00"]);
    assert_eq!(starts(&["--from", "-24h"]), [""; 0]);

    let sources = |words: &[&str]| service.run(&[&["sources"], words].concat());
    assert!(sources(&[]).contains("first bucket (Europe/Berlin)") && sources(&[]).contains("2025-10-26 12:00:00"));
    assert!(sources(&["--timezone", "Asia/Tokyo"]).contains("2025-10-26 20:00:00"));
    service.client().post(r#"{"source":"cellar","value":1}"#).ok();
    let state = |words: &[&str]| service.run(&[&["state", "cellar"], words].concat());
    assert!(state(&[]).contains("start (Europe/Berlin)"));
    assert!(state(&["--timezone", "Asia/Tokyo"]).contains("start (Asia/Tokyo)"));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let text = |words: &[&str]| String::from_utf8(command(words).output().unwrap().stdout).unwrap();
    let help = text(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A longer description goes on in the next line, further in.
    let names = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    assert!(commands.contains(&"query"), "{help}");
    let dir = temporary();
    check(command(&["man", "--dir", dir.path().join("man1").to_str().unwrap()]), 0, &["pages in"]);
    assert!(text(&["man"]).contains(".TH meanwhile 1"));
    for name in commands.into_iter().filter(|name| *name != "help") {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            assert!(text(&["completions", shell]).contains(name), "{name} for {shell}");
        }
        let page = fs::read_to_string(dir.path().join(format!("man1/meanwhile-{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH meanwhile-{name} 1")), "{page}");
    }
}

/// A service that knows five minutes of one source, of two readings each.
fn kitchen() -> Service {
    let service = Service::start(On::Embedded, &[]);
    let minutes = (0..5).map(|i| (i, format!("2026-03-01T06:0{i}:30Z")));
    let readings = minutes.flat_map(|(i, time)| [0.0, 2.0].map(|x| reading_at("kitchen", f64::from(i * i) + x, &time)));
    service.client().post(&array(readings)).ok();
    service
}
