//! The settings of a service from the outside: the file, the environment, the flags, the example file,
//! what `check` and `config` say, and SIGHUP.

use crate::http::reading;
use crate::servers::{RedisServer, temporary};
use crate::service::{On, Service, command, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/meanwhile.example.toml");

/// Exit status, standard output and standard error.
fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A command that runs in `dir`, where relative paths then lie.
fn command_in(dir: &Path, words: &[&str]) -> Command {
    let mut command = command(words);
    command.current_dir(dir);
    command
}

/// Writes a file only its owner can read.
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// `key = value  # origin`, as `meanwhile config` prints them; the value of what is not set is empty.
fn settings(listing: &str) -> Vec<(String, String, String)> {
    let parse = |line: &str| {
        let (setting, origin) = line.rsplit_once("  # ").unwrap();
        let (key, value) = setting.trim_start_matches("# ").split_once('=').unwrap();
        (key.trim().to_owned(), value.trim().to_owned(), origin.to_owned())
    };
    listing.lines().map(parse).collect()
}

/// The lines of the example that are settings once their `#` is removed: comments have a blank there.
fn example() -> Vec<String> {
    let text = fs::read_to_string(EXAMPLE).unwrap();
    let setting = |line: &str| {
        let line = line.strip_prefix('#')?;
        line.starts_with(|c: char| c.is_ascii_lowercase()).then(|| line.to_owned())
    };
    text.lines().filter_map(setting).collect()
}

#[test]
fn the_example_holds_every_setting_with_its_default() {
    let (code, listing, _) = run(command(&["config"]));
    assert_eq!(code, Some(0));
    let shown: Vec<(String, String)> = settings(&listing).into_iter().map(|(key, value, _)| (key, value)).collect();
    let example: Vec<(String, String)> = example()
        .iter()
        .map(|line| line.split_once(" = ").expect("a key and a value"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let keys = |settings: &[(String, String)]| settings.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(
        keys(&example),
        keys(&shown),
        "meanwhile.example.toml has all settings, in the order of `meanwhile config`"
    );
    for ((key, value), (_, default)) in example.iter().zip(&shown) {
        assert!(
            default.is_empty() || value == default,
            "meanwhile.example.toml: {key} = {value}, the default is {default}"
        );
    }
}

#[test]
fn the_example_is_valid_when_all_of_it_is_used() {
    let dir = temporary();
    // The first two stand instead of others, the others have to be there.
    let from_files = ["store_file", "sink_file", "auth_file", "rules", "tls_", "redirect_", "public_"];
    let all: Vec<String> =
        example().into_iter().filter(|line| !from_files.iter().any(|key| line.starts_with(key))).collect();
    write(&dir.path().join("all.toml"), &all.join("\n"));
    let (code, listing, said) = run(command_in(dir.path(), &["config", "--config", "all.toml"]));
    assert_eq!((code, said.as_str()), (Some(0), ""));
    for (line, (key, _, origin)) in
        settings(&listing).iter().filter(|(key, ..)| !from_files.iter().any(|file| key.starts_with(file))).enumerate()
    {
        assert_eq!(origin, &format!("all.toml:{}", line + 1), "{key}");
    }
    let (code, said, _) = run(command_in(dir.path(), &["check", "--config", "all.toml"]));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_service_runs_with_its_file() {
    let dir = temporary();
    let file = dir.path().join("meanwhile.toml");
    write(&file, "periods = [\"1m\", \"1d\"]\ntimezone = \"Europe/Berlin\"\ngrace = \"2s\"\n");
    let service = Service::start(On::Embedded, &["--config", file.to_str().unwrap(), "--timezone", "Asia/Tokyo"]);
    service.client().post(&reading("kitchen", 21.5)).ok();
    assert!(service.run(&["query", "kitchen", "--period", "1d"]).starts_with("start (Asia/Tokyo)"));
    let state = service.run(&["state", "kitchen"]);
    assert!(state.contains("1m ") && !state.contains("1h "), "{state}");
}

#[test]
fn layers_and_their_origins() {
    let dir = temporary();
    write(
        &dir.path().join("m.toml"),
        "grace = \"1s\"\nlateness = \"2s\"\nhold = \"3s\"\nstore = \"redis://:hush@h\"\n",
    );
    let mut config = command_in(dir.path(), &["config", "--hold", "4s"]);
    config.env("MEANWHILE_CONFIG", "m.toml").env("MEANWHILE_LATENESS", "5s").env("MEANWHILE_HOLD", "6s");
    let (code, listing, said) = run(config);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(!listing.contains("hush"), "{listing}");
    let settings = settings(&listing);
    let check = |key: &str, value: &str, origin: &str| {
        let (_, got, from) = settings.iter().find(|(other, ..)| other == key).unwrap();
        assert_eq!((got.as_str(), from.as_str()), (value, origin), "{key}");
    };
    check("grace", "\"1s\"", "m.toml:1");
    check("lateness", "\"5s\"", "MEANWHILE_LATENESS");
    check("hold", "\"4s\"", "--hold");
    check("store", "\"redis://***@h\"", "m.toml:4");
    check("late", "\"reopen\"", "default");
}

#[test]
fn wrong_settings_are_refused_with_their_place() {
    let dir = temporary();
    let check = |text: &str, expected: &str| {
        write(&dir.path().join("m.toml"), text);
        for name in ["serve", "check", "config"] {
            let (code, _, said) = run(command_in(dir.path(), &[name, "--config", "m.toml"]));
            assert_eq!(code, Some(2), "{name} {text}: {said}");
            assert!(said.contains(expected) && !said.contains("hush"), "{name} {text}: {said}");
        }
    };
    check("log = \"info\"\nperids = \"1m\"", "m.toml:2: there is no key perids: did you mean periods?");
    check("grace = \"soon\"", "m.toml:1: grace: \"soon\" is not a duration");
    check("log = \"a=b=c\"", "m.toml:1: log: ");
    check("store = redis://:hush@h", "m.toml:1: this is not TOML");
    check("store_file = \"nowhere\"", "m.toml:1: store_file: cannot read nowhere");
    let (code, _, said) = run(command_in(dir.path(), &["serve", "--config", "nowhere.toml"]));
    assert_eq!((code, said.contains("--config nowhere.toml: cannot read it")), (Some(2), true), "{said}");
}

#[test]
fn check_looks_beside_a_running_service() {
    for on in [On::Embedded, On::Redis] {
        let mut service = Service::start(on, &[]);
        service.client().post(&reading("kitchen", 21.5)).ok();
        let sink = format!("csv:{}", service.sink().display());
        let words = ["check", "--store", &service.store(), "--sink", &sink];
        let check = |parts: &[&str]| {
            let (code, said, _) = run(command(&words));
            assert_eq!(code, Some(0), "{said}");
            for part in parts {
                assert!(said.contains(part), "{part}: {said}");
            }
        };
        let store = if on == On::Embedded { "in use by a running meanwhile" } else { "layout 1, shards 1" };
        check(&[store, "durability disk", "writable, in use by a running meanwhile"]);
        service.client().post(&reading("kitchen", 22.5)).ok();
        service.stop();
        let store = if on == On::Embedded { "layout 1, 1 open buckets" } else { "layout 1, shards 1" };
        check(&[store, "writable, free"]);
        service.start_again();
        assert_eq!(service.client().total("kitchen", "1d"), (2, 44.0));
        if on == On::Embedded {
            service.kill();
            check(&["the next start repairs it"]);
        }
    }
}

#[test]
fn check_warns_about_what_redis_may_lose_and_changes_nothing() {
    let dir = temporary();
    let redis = RedisServer::start();
    let secret = dir.path().join("secret");
    write(&secret, &format!("{}\n", redis.url()));
    let check = |code: i32, parts: &[&str]| {
        let (got, said, _) = run(command_in(dir.path(), &["check", "--store-file", "secret"]));
        assert_eq!(got, Some(code), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
    };
    check(0, &["empty, pinned at the first start; durability memory", "warning", "appendonly yes"]);
    redis.cli(&["CONFIG", "SET", "appendonly", "yes"]);
    check(0, &["empty", "durability seconds", "warning", "appendfsync always"]);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    check(0, &["secret holds a secret and has mode 0640: chmod 600 secret"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    check(1, &["failed", "set it to noeviction", "ok       sink"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.cli(&["HSET", "mw:meta", "layout", "99"]);
    check(1, &["it has layout 99, this program needs 1"]);
    redis.cli(&["DEL", "mw:meta"]);
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    check(1, &["it is a replica"]);
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    redis.cli(&["ACL", "SETUSER", "default", "-evalsha"]);
    check(1, &["'evalsha' command", "the rights in deploy/redis-users.acl"]);
    redis.cli(&["ACL", "SETUSER", "default", "+evalsha", "-config"]);
    check(0, &["durability unknown", "CONFIG GET is refused", "appendonly yes"]);
    redis.cli(&["ACL", "SETUSER", "default", "+config"]);
    redis.cli(&["CONFIG", "SET", "requirepass", "hush"]);
    check(1, &["NOAUTH", "redis://USER:PASSWORD@HOST:PORT"]);
    write(&secret, &redis.url().replace("//", "//:wrong@"));
    check(1, &["user or password of the address are not right"]);
    drop(redis);
    check(1, &["start redis-server there"]);
    assert!(!dir.path().join("meanwhile-data").exists(), "check makes nothing");
}

#[test]
fn check_sees_directories_that_cannot_be_used() {
    let dir = temporary();
    write(&dir.path().join("file"), "");
    let check = |flag: &str, expected: &str| {
        let (code, said, error) = run(command_in(dir.path(), &["check", flag]));
        assert_eq!(code, Some(1), "{said}{error}");
        assert!(said.contains(expected), "{said}");
    };
    check("--store=embedded:file", "failed   store embedded:file: file is not a directory");
    check("--sink=csv:file/below", "failed   sink csv:file/below: file is not a directory");
    // Not even root may write there.
    check("--sink=csv:/proc/sink", "cannot write to /proc");
    write(&dir.path().join("meanwhile.redb"), "something else");
    check("--store=embedded:.", "failed   store embedded:.: ");
}

#[test]
fn a_hangup_reads_the_file_again() {
    let dir = temporary();
    let file = dir.path().join("m.toml");
    write(&file, "log = \"info\"\n");
    let service = Service::start(On::Embedded, &["--config", file.to_str().unwrap()]);
    let check = |text: &str, expected: &str| {
        write(&file, text);
        service.signal("HUP");
        eventually(expected, || service.log().contains(expected).then_some(()));
    };
    check(
        "log = \"info,meanwhile::cli=debug\"\ngrace = \"9s\"\n",
        "log is now info,meanwhile::cli=debug; restart the service for: grace",
    );
    check("log = \"info\"\ngrace = \"soon\"\n", "the old configuration stays: ");
    assert!(service.log().contains("m.toml:2: grace: \"soon\" is not a duration"), "{}", service.log());
    check("log = \"info,meanwhile::cli=debug\"\n", "read again: nothing has changed");
    check("log = \"off\"\n\nbanana = 1\n", "m.toml:3: there is no key banana");
    check("log = \"info\"\n", "read again: log is now info\n");
    service.client().post(&reading("kitchen", 21.5)).ok();
}
