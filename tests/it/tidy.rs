//! The rules of the house, run as tests: the direction of imports, what may stand where, headers of
//! files. A message says what to do instead.
//!
//! Formatting and lints are `make lint`'s; the invariants here are those of ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from top to bottom; those of one line do not use each other, and nothing imports upwards.
const LAYERS: [&[&str]; 9] = [
    &["cli"],
    &["app"],
    &["http"],
    &["live"],
    &["errorlog", "ingest", "nodes", "query", "rollover"],
    &["auth", "sink", "store"],
    &["incidents"],
    &["clock", "config", "failpoint", "mutant", "telemetry"],
    &["stats"],
];

/// Longest header of a file.
const HEADER_LINES: usize = 15;

struct File {
    /// Relative to the project, with `/`.
    path: String,
    text: String,
}

impl File {
    /// The code before the tests, without comments.
    fn code(&self) -> String {
        let code = self.text.split("#[cfg(test)]").next().unwrap_or_default();
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }

    /// `stats` for `src/stats/row.rs`; none for `main.rs` and `lib.rs`.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let name = inside.split('/').next()?.trim_end_matches(".rs");
        (!matches!(name, "main" | "lib")).then_some(name)
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }
}

fn files(folder: &str, extension: &str) -> Vec<File> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    found.sort();
    let wanted = found.into_iter().filter(|path| path.extension().is_some_and(|e| e == extension));
    let files: Vec<File> = wanted
        .map(|path| File {
            text: fs::read_to_string(&path).expect("a text"),
            path: path.strip_prefix(root).expect("inside").to_string_lossy().replace('\\', "/"),
        })
        .collect();
    assert!(!files.is_empty(), "no .{extension} files in {folder}: has the layout changed?");
    files
}

/// Collects what breaks a rule and fails with all of it at once.
fn check(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn imports_point_down() {
    let mut broken = Vec::new();
    for file in files("src", "rs").iter().filter(|file| !file.is_test()) {
        let Some(module) = file.module() else { continue };
        let Some(from) = layer(module) else {
            broken.push(format!("{}: put the module {module} into LAYERS", file.path));
            continue;
        };
        for used in file.code().split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(to) = layer(&used) else { continue };
            if used != module && to <= from {
                broken.push(format!("{} uses {used}", file.path));
            }
        }
    }
    check("imports point down LAYERS: move the shared type below both sides", &broken);
}

/// `words` may stand only in files whose path begins with one of `places`.
fn only_in(places: &[&str], words: &[&str], rule: &str) {
    let mut broken = Vec::new();
    for file in files("src", "rs").iter().filter(|file| !file.is_test()) {
        if places.iter().any(|place| file.path.starts_with(place)) {
            continue;
        }
        let code = file.code();
        for word in words {
            if code.contains(word) {
                broken.push(format!("{}: {word}", file.path));
            }
        }
    }
    check(rule, &broken);
}

#[test]
fn everything_has_its_place() {
    only_in(&["src/store/keys.rs"], &["\"mw:"], "keys are spelled in store/keys.rs only");
    only_in(&["src/http/"], &["StatusCode", "axum::extract"], "status codes and extractors stand in http/ only");
    only_in(&["src/config.rs"], &["std::env", "env::var"], "the environment is read in config.rs only");
    only_in(&["src/clock.rs"], &["SystemTime::now", "Instant::now", "Utc::now"], "the time is asked in clock.rs only");
    only_in(&["src/store/redis"], &["use redis::"], "Redis is spoken to in store/redis.rs only");
    only_in(&["src/store/embedded"], &["use redb::"], "redb is used in store/embedded.rs only");
    only_in(&["src/sink/postgres"], &["sqlx::", "SELECT ", "INSERT INTO"], "SQL stands in sink/postgres only");
    only_in(
        &["src/cli/output.rs"],
        &[" println!(", " print!("],
        "data goes out through cli/output.rs, which survives a closed pipe",
    );
    only_in(
        &["src/incidents"],
        &["tokio::spawn", "spawn_blocking", "JoinSet"],
        "tasks begin by incidents::spawn, so that the error log knows whose error it was",
    );
    only_in(&[], &["todo!", "unimplemented!", "dbg!", "FIXME", "XXX"], "nothing is left open in the code");
}

#[test]
fn the_core_is_pure() {
    let mut broken = Vec::new();
    for file in files("src/stats", "rs") {
        let code = file.code();
        for word in ["async ", "await", "tokio", "tracing", "std::fs", "std::net", "std::time", "Clock"] {
            if code.contains(word) {
                broken.push(format!("{}: {word}", file.path));
            }
        }
    }
    check("stats/ awaits nothing, does no I/O, reads no clock and logs nothing: let the caller do it", &broken);
}

#[test]
fn handlers_touch_no_sink_and_write_no_store() {
    let mut broken = Vec::new();
    for file in files("src/http", "rs").iter().filter(|file| !file.is_test()) {
        let code = file.code();
        for word in ["crate::sink", ".apply(", ".seal(", ".ack(", ".close(", ".open("] {
            if code.contains(word) {
                broken.push(format!("{}: {word}", file.path));
            }
        }
    }
    check("a handler asks ingest/ or query/, never a store or a sink", &broken);
}

#[test]
fn files_say_what_they_are_for() {
    let mut broken = Vec::new();
    let rust = ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs"));
    for file in rust {
        let header = file.text.lines().take_while(|line| line.starts_with("//!")).count();
        if header == 0 || header > HEADER_LINES {
            broken.push(format!("{}: {header} lines", file.path));
        }
    }
    check("every file opens with 1 to 15 lines of //!: purpose, who calls it, what it guarantees", &broken);
}

#[test]
fn scripts_say_what_they_take_and_return() {
    const PARTS: [&str; 6] = ["clock.lua", "life.lua", "merge.lua", "combine.lua", "chunk.lua", "lengths.lua"];
    let mut broken = Vec::new();
    for file in files("src/store/lua", "lua") {
        let header: Vec<&str> = file.text.lines().take_while(|line| line.starts_with("--")).collect();
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let verb = name.trim_end_matches(".lua");
        let complete = ["KEYS", "ARGV", "RETURNS"].iter().all(|word| header.iter().any(|line| line.contains(word)));
        let named = header.first().is_some_and(|line| line.starts_with(&format!("-- {verb}: ")));
        if header.is_empty() || !(PARTS.contains(&name) || (complete && named)) {
            broken.push(file.path);
        }
    }
    check("a script opens with `-- verb: purpose`, KEYS, ARGV and RETURNS", &broken);
}

#[test]
fn names_explain_themselves() {
    let mut broken = Vec::new();
    for file in files("src", "rs") {
        let parts = file.path.trim_end_matches(".rs").split('/');
        if parts.into_iter().any(|part| matches!(part, "util" | "utils" | "common" | "helpers" | "misc" | "types")) {
            broken.push(file.path);
        }
    }
    check("name a file by what it is for", &broken);
}

#[test]
fn the_architecture_page_stays_short() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("the page");
    assert!(page.lines().count() <= 200, "ARCHITECTURE.md has {} lines, at most 200", page.lines().count());
}
