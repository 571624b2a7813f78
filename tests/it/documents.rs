//! The documents say what is true: their commands are run in order against a real service, and what they show
//! after a command is what it prints.
//!
//! A block ```` ```sh ```` is run by bash, ```` ```python ```` by python3, ```` ```sql ```` by duckdb where Python has it; a block without
//! a language that follows at once is its output, in which `...` stands for any lines, times of the day on
//! which the document was written for any time, and the state of a row for any state. How a document's own
//! service is run is in `documents/place.rs`; links are followed, and the page of the settings is
//! held to the program.

mod place;

use crate::service::command;
use place::Place;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The day on which the examples were made.
const TODAY: &str = "2026-11-20";
/// What may stand behind ```` ``` ````: run, or shown only.
const RUN: [&str; 3] = ["sh", "python", "sql"];
const SHOWN: [&str; 5] = ["", "toml", "yaml", "ini", "postgresql"];

#[derive(Debug)]
struct Block {
    language: String,
    text: String,
    /// From 1.
    line: usize,
    /// Nothing but an empty line is between the block before and this one.
    follows: bool,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut follows = false;
    while let Some((i, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            found.push(Block { language: language.to_owned(), text: inside.join("\n"), line: i + 1, follows });
            follows = true;
        } else if !line.is_empty() {
            follows = false;
        }
    }
    found
}

fn read(document: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// Runs a document from its first line to its last.
fn check(document: &str) {
    let blocks = blocks(&read(document));
    let mut place = Place::new(document);
    for (i, block) in blocks.iter().enumerate().filter(|(_, block)| RUN.contains(&&*block.language)) {
        let Some(printed) = place.run(&block.language, &block.text, block.line) else { continue };
        if let Some(shown) = blocks.get(i + 1).filter(|next| next.follows && next.language.is_empty()) {
            let lines = |text: &str| text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
            let fits = fits(&lines(&shown.text), &lines(&printed));
            assert!(fits, "{document}:{} shows\n{}\nand it prints\n{printed}", shown.line, shown.text);
        }
    }
}

fn fits(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "..." => (0..=printed.len()).any(|n| fits(rest, &printed[n..])),
        Some((line, rest)) => printed.first().is_some_and(|other| alike(line, other)) && fits(rest, &printed[1..]),
    }
}

/// Whether two lines differ in times of today and in states of rows at most.
fn alike(shown: &str, printed: &str) -> bool {
    let any_state = |line: &str| line.replace("settling", "open").replace("closed", "open");
    let (shown, printed) = (any_state(shown), any_state(printed));
    let times: Vec<usize> = shown.match_indices(TODAY).map(|(at, _)| at).collect();
    // The date, a space or T, hours and minutes.
    let in_time = |i: usize| times.iter().any(|at| (*at..*at + 16).contains(&i));
    shown.len() == printed.len()
        && shown.bytes().zip(printed.bytes()).enumerate().all(|(i, (shown, printed))| {
            shown == printed || (in_time(i) && shown.is_ascii_digit() && printed.is_ascii_digit())
        })
}

macro_rules! documents {
    ($($test:ident: $path:literal,)*) => {
        const DOCUMENTS: &[&str] = &[$($path),*];
        $(#[test] fn $test() { check($path); })*
    };
}

documents! {
    readme: "README.md",
    getting_started: "docs/getting-started.md",
    clients: "docs/clients.md",
    vectors: "docs/vectors.md",
    rules: "docs/rules.md",
    reading_rows: "docs/reading-rows.md",
    configuration: "docs/configuration.md",
    operations: "docs/operations.md",
    live: "docs/live.md",
    comparing: "docs/comparing.md",
    sample_data: "sample-data/README.md",
}

/// Every document of the project, relative to it.
fn all() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "docs", "sample-data", "migrations"] {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let path = PathBuf::from(folder).join(entry.unwrap().file_name());
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn no_command_is_left_out() {
    for document in all() {
        for block in blocks(&read(&document)) {
            let place = format!("{document}:{}", block.line);
            let language = &*block.language;
            assert!(RUN.contains(&language) || SHOWN.contains(&language), "{place}: what is ```{language}?");
            let run = DOCUMENTS.contains(&&*document);
            assert!(run || !RUN.contains(&language), "{place}: name the document in `documents!`");
        }
    }
}

/// The anchor that a heading has on the pages of code hosts.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let documents = all();
    for document in &documents {
        let text = read(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("http") {
                continue;
            }
            let (path, part) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(document).parent().unwrap();
            let target = if path.is_empty() { PathBuf::from(document) } else { folder.join(path) };
            assert!(Path::new(ROOT).join(&target).exists(), "{document}: {link} leads nowhere");
            if !part.is_empty() {
                let text = read(target.to_str().unwrap());
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == part);
                assert!(found, "{document}: {link} has no such heading");
            }
        }
    }
    for document in documents.iter().filter(|document| document.starts_with("docs/")) {
        assert!(read("README.md").contains(&format!("]({document})")), "README.md has no link to {document}");
    }
}

#[test]
fn the_page_of_the_settings_has_all_of_them_with_their_defaults() {
    let listing = String::from_utf8(command(&["config"]).output().unwrap().stdout).unwrap();
    let setting = |line: &str| {
        let (key, value) = line.trim_start_matches("# ").split_once('=').unwrap();
        let value = value.split_once("  #").map_or(value, |(value, _)| value).trim().trim_matches('"').to_owned();
        (format!("--{}", key.trim().replace('_', "-")), value)
    };
    let settings: Vec<(String, String)> = listing.lines().map(setting).collect();
    let page = read("docs/configuration.md");
    // | `--grace` | `5s` | ... |
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `--")?.split_once('|'));
    let written = rows.map(|(flag, rest)| {
        let default = rest.split('|').next().unwrap().trim();
        let default = default.strip_prefix('`').and_then(|default| default.strip_suffix('`')).unwrap_or("");
        (format!("--{}", flag.trim().trim_end_matches('`')), default.to_owned())
    });
    assert_eq!(written.collect::<Vec<_>>(), settings, "the rows of docs/configuration.md and `meanwhile config`");
}

#[test]
fn only_times_and_states_may_differ() {
    let check = |shown: &str, printed: &str, expected: bool| {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(fits(&lines(shown), &lines(printed)), expected, "{shown} | {printed}");
    };
    check("2026-11-20 08:54  1  open", "2031-01-02 03:04  1  open", true);
    check("2026-11-20 08:54  1  open", "2031-01-02 03:04  2  open", false);
    check("2026-06-01 08:54  1", "2026-06-02 08:54  1", false);
    check("1  open", "1  settling", true);
    check("a\n...\nd", "a\nb\nc\nd", true);
    check("a\n...\nd", "a\nd", true);
    check("a\n...\nd", "a\nb", false);
    check("a", "a\nb", false);
}
