//! TLS on the way to Redis and to PostgreSQL: who is trusted, and what is said of who is not.
//!
//! The servers are real, their certificates are those of `meanwhile dev-cert`, each of which vouches for itself.

use crate::encrypted::Pair;
use crate::events::Events;
use crate::http::reading;
use crate::postgres_server::{Database, PostgresServer, other_user};
use crate::servers::{RedisServer, free_port, temporary};
use crate::service::{Service, command};
use std::os::unix::fs::chown;
use std::path::Path;
use tempfile::TempDir;

/// A directory that the user of a server can read.
fn readable() -> TempDir {
    let dir = temporary();
    give(dir.path());
    dir
}

fn give(path: &Path) {
    if let Some((user, group)) = other_user() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

/// A pair that the user of a server can read.
fn pair(dir: &TempDir, at: &str, name: &str) -> Pair {
    let pair = Pair::make(&dir.path().join(at), &[name]);
    for path in [dir.path().join(at), pair.cert(), pair.files().key] {
        give(&path);
    }
    pair
}

/// What `check` or `migrate` says of an address, and whether it can be used.
fn look(words: &[&str]) -> (bool, String) {
    let looked = command(words).output().unwrap();
    let said = [looked.stdout, looked.stderr].concat();
    (looked.status.success(), String::from_utf8(said).unwrap())
}

#[track_caller]
fn check_refused(words: &[&str], parts: &[&str]) {
    let (usable, said) = look(words);
    assert!(!usable, "{words:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// A server with TLS on one port, and without on another.
fn redis(pair: &Pair) -> (RedisServer, u16) {
    let (port, files) = (free_port(), pair.files());
    let (cert, key) = (files.cert.display().to_string(), files.key.display().to_string());
    let options = ["--tls-port", &port.to_string(), "--tls-cert-file", &cert, "--tls-key-file", &key];
    let trust = ["--tls-ca-cert-file", &cert, "--tls-auth-clients", "no", "--appendonly", "yes"];
    (RedisServer::start_with(&[&options[..], &trust].concat()), port)
}

#[test]
fn redis_is_reached_by_tls() {
    let dir = temporary();
    let [pair, other] = ["a", "b"].map(|at| Pair::make(&dir.path().join(at), &["127.0.0.1"]));
    let (server, port) = redis(&pair);
    let url = format!("rediss://127.0.0.1:{port}?ca={}", pair.cert().display());
    let sink = format!("csv:{}", dir.path().join("csv").display());
    let service = Service::start_beside(&["--store", &url, "--sink", &sink], &[]);
    let client = service.client();
    client.post(&reading("kitchen", 21.5)).ok();
    assert!(client.get("/v1/state?source=kitchen").ok().body.contains("21.5"));
    // What is published in Redis is heard over a connection of its own.
    let mut events = Events::of(&service.url(), &["news"]);
    server.cli(&["PUBLISH", "news", "hello"]);
    assert_eq!(events.next().expect("an event").name, "message");

    let at = |scheme: &str, port: u16, rest: &str| format!("{scheme}://127.0.0.1:{port}{rest}");
    let check = |url: &str, parts: &[&str]| check_refused(&["check", "--store", url, "--sink", &sink], parts);
    check(&at("rediss", port, &format!("?ca={}", other.cert().display())), &["certificate", "?ca=FILE"]);
    check(&at("rediss", port, ""), &["certificate", "?ca=FILE"]);
    check(
        &format!("rediss://localhost:{port}?ca={}", pair.cert().display()),
        &["not valid for name", "has to name the server"],
    );
    check(&at("redis", port, ""), &["with TLS it is rediss://"]);
    check(&at("rediss", server.port(), &format!("?ca={}", pair.cert().display())), &["without TLS it is redis://"]);
    check(&at("rediss", port, "?ca=/nowhere/ca.pem"), &["cannot read /nowhere/ca.pem"]);
}

fn address(database: &Database, parameters: &str) -> String {
    format!("{}?{parameters}", database.url())
}

#[test]
fn postgresql_is_reached_by_tls() {
    let dir = readable();
    let (pair, other) = (pair(&dir, "a", "127.0.0.1"), pair(&dir, "b", "127.0.0.1"));
    let files = pair.files();
    let options = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", files.cert.display()),
        format!("ssl_key_file={}", files.key.display()),
    ];
    let server = PostgresServer::start(&options.each_ref().map(String::as_str));
    let database = server.database();
    let by = |mode: &str, trusted: &Pair| {
        address(&database, &format!("sslmode={mode}&sslrootcert={}", trusted.cert().display()))
    };
    let sink = by("verify-full", &pair);
    let store = format!("embedded:{}", dir.path().join("store").display());
    let service = Service::start_beside(&["--store", &store, "--sink", &sink], &[]);
    service.client().get("/v1/sources").ok();
    let encrypted = database.sql(
        "SELECT bool_and(ssl), count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'meanwhile'",
    );
    assert_eq!(encrypted.trim(), "t|t");

    let check = |url: &str, parts: &[&str]| check_refused(&["migrate", "--sink", url], parts);
    check(&by("verify-full", &other), &["certificate"]);
    check(&by("verify-ca", &other), &["certificate"]);
    check(&address(&database, "sslmode=verify-full"), &["certificate"]);
    let by_name = |mode: &str| by(mode, &pair).replace("127.0.0.1", "localhost");
    check(&by_name("verify-full"), &["not valid for name"]);
    for usable in [by_name("verify-ca"), by("verify-full", &pair), address(&database, "sslmode=require")] {
        assert!(look(&["migrate", "--sink", &usable]).0, "{usable}");
    }
}

#[test]
fn a_postgresql_without_tls_is_not_taken_for_one_with_it() {
    let database = Database::new();
    check_refused(&["migrate", "--sink", &address(&database, "sslmode=require")], &["does not support TLS"]);
    let missing = address(&database, "sslmode=verify-full&sslrootcert=/nowhere/ca.pem");
    check_refused(&["migrate", "--sink", &missing], &["TLS"]);
}
