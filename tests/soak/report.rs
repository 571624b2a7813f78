//! The tables at the end, as docs/reliability.md has it, and what went wrong in words.
//!
//! Called by `main.rs`.

use crate::world::Outcome;
use std::collections::BTreeSet;
use std::process::Command;

/// Notes printed of each world.
const NOTES: usize = 20;

/// Prints the tables, one column for each world.
pub(crate) fn print(outcomes: &[Outcome], seed: u64, seconds: u64) {
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default();
    println!("\nseed {seed}, {seconds} s of faults, commit {commit}\n");
    heading(outcomes);
    let number = |name: &str, of: fn(&Outcome) -> u64| row(name, outcomes, |outcome| of(outcome).to_string());
    let kinds: BTreeSet<_> = outcomes.iter().flat_map(|outcome| &outcome.faults).map(|made| made.fault).collect();
    number("faults", |outcome| outcome.faults.len() as u64);
    for &kind in &kinds {
        let made = |outcome: &Outcome| outcome.faults.iter().filter(|made| made.fault == kind).count();
        row(kind.name(), outcomes, |outcome| made(outcome).to_string());
    }
    number("batches acknowledged", |outcome| outcome.requests);
    number("readings acknowledged", |outcome| outcome.readings);
    number("batches sent again on purpose", |outcome| outcome.repeated);
    row("longest wait for an answer", outcomes, |outcome| format!("{:.1} s", outcome.longest.as_secs_f64()));
    number("rows in the files", |outcome| outcome.verdict.rows);
    number("of them before the faults ended", |outcome| outcome.rows_meanwhile);
    number("totals read meanwhile", |outcome| outcome.seen.answers);
    number("**readings lost**", |outcome| outcome.verdict.lost);
    number("losses announced by the service", |outcome| outcome.incidents);
    number("of the lost, within what it announced", |outcome| outcome.verdict.covered);
    number("**readings counted twice**", |outcome| outcome.verdict.double);
    number("**wrong rows or lines**", |outcome| outcome.verdict.wrong);
    number("**rows of which periods disagree**", |outcome| outcome.verdict.disagreeing);
    number("rows that lack what was lost below them", |outcome| outcome.verdict.short);
    number("**differing lines of one version**", |outcome| outcome.verdict.differing);
    number("**buckets that did not close**", |outcome| outcome.stuck);
    number("**keys left in Redis**", |outcome| outcome.orphans.len() as u64);
    number("**batches never acknowledged**", |outcome| outcome.unanswered);
    number("**wrong totals read meanwhile**", |outcome| outcome.seen.wrong);
    number("**other wrong answers and ends**", |outcome| outcome.complaints.len() as u64 - outcome.seen.wrong);
    println!("\nThe longest wait for an answer that fell mostly into a fault of this kind, in seconds:\n");
    heading(outcomes);
    for &kind in &kinds {
        let wait = |outcome: &Outcome| outcome.unavailable.get(&kind).map(|wait| format!("{:.1}", wait.as_secs_f64()));
        row(kind.name(), outcomes, |outcome| wait(outcome).unwrap_or_default());
    }
    println!();
    for outcome in outcomes {
        let notes = outcome.verdict.notes.iter().chain(&outcome.orphans).chain(&outcome.complaints);
        for note in notes.take(NOTES) {
            println!("{}: {note}", outcome.kind.name());
        }
    }
}

fn heading(outcomes: &[Outcome]) {
    row("", outcomes, |outcome| outcome.kind.name().to_owned());
    println!("|---|{}", "---:|".repeat(outcomes.len()));
}

fn row(name: &str, outcomes: &[Outcome], cell: impl Fn(&Outcome) -> String) {
    let cells: Vec<String> = outcomes.iter().map(|outcome| format!(" {:>15} |", cell(outcome))).collect();
    println!("| {name:40} |{}", cells.concat());
}
