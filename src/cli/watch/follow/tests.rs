//! What is told of what the service says, with breaks of the connection between.

use super::*;
use crate::cli::client::tests::serve;
use std::io::{self, Cursor};
use std::sync::mpsc::sync_channel;

const SOURCES: &str = r#"{"sources":[{"source":"a","first":"2026-11-20T05:00:00Z","last":"2026-11-20T05:09:00Z"}],
    "next":null,"periods":["1m"],"timezone":"UTC"}"#;
const ROW: &str = r#"{"source":"a","period":"1m","start":"2026-11-20T05:00:00Z","end":"2026-11-20T05:01:00Z","count":1,
    "mean":2.0,"stddev_samp":null,"min":2.0,"max":2.0,"state":"closed","generation":1,"revision":1}"#;
const WELCOME: &str = "retry: 100\nevent: welcome\ndata: {\"instance\":\"n1\"}\n\n";
const NOT_ALL: &str = "event: recovered\ndata: {\"channel\":\"closed:a\",\"recovered\":false}\n\n";

fn closed(id: &str) -> String {
    format!("id: {id}\nevent: closed\ndata: {{\"channel\":\"closed:a\",\"row\":{}}}\n\n", ROW.replace('\n', ""))
}

fn minutes() -> History {
    let period: Period = "1m".parse().unwrap();
    History { calendar: Calendar::new(vec![period], "UTC".parse().unwrap()).unwrap(), period }
}

/// What happened, in short.
fn short(update: Update) -> String {
    match update {
        Update::Connected { instance } => format!("connected {instance}"),
        Update::Lost { reason } => format!("lost: {reason}"),
        Update::Present { source, rows } => format!("present {source} {}", rows.len()),
        Update::Closed { source, row } => format!("closed {source} {}", row.count),
        Update::History { source, rows } => format!("history {source} {}", rows.len()),
        Update::Recovered { source, all } => format!("recovered {source} {all}"),
        Update::Gap { source, missed } => format!("gap {source} {missed:?}"),
    }
}

/// What is told of a first stream and then of what a service answers, until it was asked as often as it has answers;
/// and the requests.
fn followed(
    history: Option<History>,
    first: &str,
    answers: &[(&'static str, &'static str)],
) -> (Vec<String>, Vec<String>) {
    let (client, served) = serve(answers.to_vec());
    let follower = Follower::new(client, vec!["a".to_owned()], history);
    let (sender, updates) = sync_channel(1_000);
    let first = Cursor::new(first.to_owned());
    let thread = std::thread::spawn(move || follower.run(first, &sender));
    let mut told = Vec::new();
    // Behind the last prepared answer come those for what is not there.
    for update in &updates {
        let text = short(update);
        if text.contains("(404)") {
            break;
        }
        told.push(text);
    }
    drop(updates);
    thread.join().unwrap();
    (told, served.requests())
}

fn leaked(text: String) -> &'static str {
    text.leak()
}

#[test]
fn it_goes_on_behind_the_last_event() {
    let first = format!("{WELCOME}event: live\ndata: {{\"channel\":\"live:a\",\"rows\":[]}}\n\n{}", closed("1.7.a"));
    let second = leaked(format!(
        "{WELCOME}{}event: recovered\ndata: {{\"channel\":\"closed:a\",\"recovered\":true}}\n\n",
        closed("1.8.a")
    ));
    let (told, requests) = followed(None, &first, &[("503 Service Unavailable", "{}"), ("200 OK", second)]);
    let ended = "lost: the service has ended the stream";
    let expected = [
        &["connected n1", "present a 0", "closed a 1", ended][..],
        &["connected n1", "closed a 1", "recovered a true", ended],
    ];
    let without_503: Vec<&String> = told.iter().filter(|told| !told.contains("(503)")).collect();
    assert_eq!(without_503, expected.concat());
    assert!(requests[0].starts_with("GET /prefix/v1/stream?channel=live%3Aa&channel=closed%3Aa HTTP/1.1\r\n"));
    let ids: Vec<_> =
        requests.iter().filter_map(|r| r.lines().find_map(|l| l.strip_prefix("last-event-id: "))).collect();
    assert_eq!(ids[..3], ["1.7.a", "1.7.a", "1.8.a"], "{requests:?}");
}

#[test]
fn the_last_buckets_are_asked_for_when_the_channels_are_heard() {
    let page = leaked(format!(r#"{{"rows":[{ROW}],"next":null}}"#));
    let (told, requests) = followed(Some(minutes()), WELCOME, &[("200 OK", SOURCES), ("200 OK", page)]);
    assert_eq!(told, ["connected n1", "history a 1", "lost: the service has ended the stream"]);
    let asked = "GET /prefix/v1/stats?source=a&period=1m&from=2026-11-20T03%3A10%3A00Z HTTP/1.1";
    assert_eq!(requests[1].lines().next(), Some(asked));
}

#[test]
fn they_are_asked_for_again_where_something_is_missing() {
    let page = leaked(format!(r#"{{"rows":[{ROW}],"next":null}}"#));
    let gap = "event: gap\ndata: {\"channel\":\"closed:a\",\"missed\":null}\n\n";
    let first = format!("{WELCOME}{}", closed("1.7.a"));
    let answers = [
        ("200 OK", SOURCES),
        ("200 OK", page),
        // Back, but not all of it comes; and the answer to the question for it breaks.
        ("200 OK", leaked(format!("{WELCOME}{NOT_ALL}"))),
        ("", ""),
        ("200 OK", WELCOME),
        ("200 OK", SOURCES),
        ("200 OK", page),
        ("200 OK", leaked(format!("{WELCOME}{gap}"))),
        ("200 OK", SOURCES),
        ("200 OK", page),
    ];
    let (told, _) = followed(Some(minutes()), &first, &answers);
    let told: Vec<&str> = told.iter().map(|told| told.split(':').next().unwrap()).collect();
    let expected = [
        &["connected n1", "history a 1", "closed a 1", "lost"][..],
        &["connected n1", "recovered a false", "lost"],
        &["connected n1", "history a 1", "lost"],
        &["connected n1", "gap a None", "history a 1", "lost"],
    ];
    assert_eq!(told, expected.concat());
}

#[test]
fn who_has_heard_nothing_cannot_know_what_was_missed() {
    let (told, _) = followed(None, WELCOME, &[("200 OK", WELCOME)]);
    let ended = "lost: the service has ended the stream";
    assert_eq!(told, ["connected n1", ended, "connected n1", "recovered a false", ended]);
}

#[test]
fn what_is_not_there_and_what_is_not_understood() {
    let unknown = SOURCES.replace("\"a\"", "\"ab\"");
    let (told, _) = followed(Some(minutes()), WELCOME, &[("200 OK", leaked(unknown))]);
    assert_eq!(told, ["connected n1", "lost: the service has ended the stream"], "no readings yet");
    let partial = ("200 OK", r#"{"rows":[],"next":null,"partial":true}"#);
    let (told, _) = followed(Some(minutes()), WELCOME, &[("200 OK", SOURCES), partial]);
    assert_eq!(told, ["connected n1", "lost: the service cannot reach both its store and its sink"]);
    let later = "event: news\ndata: {\"channel\":\"live:a\"}\n\nevent: live\ndata: 7\n\n";
    let (told, _) = followed(None, &format!("{WELCOME}{later}"), &[]);
    assert!(told[1].starts_with("lost: an event \"live\" is not one: "), "{told:?}");
}

/// A connection that breaks with an error.
struct Broken(ErrorKind);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.into())
    }
}

#[test]
fn silence_is_a_broken_connection() {
    let (client, served) = serve(vec![]);
    let mut follower = Follower::new(client, vec!["a".to_owned()], None);
    let (sender, _updates) = sync_channel(1_000);
    let End::Broken(reason) = follower.listen(Broken(ErrorKind::TimedOut), &sender) else { panic!("gone") };
    assert_eq!(reason, "nothing came for 40 s");
    served.requests();
}
