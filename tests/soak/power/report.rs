//! The table of power cuts, as docs/reliability.md has it, and what went wrong in words.
//!
//! Called by `power.rs`.

use super::Found;
use super::image::Cut;
use std::collections::BTreeSet;

/// Notes printed of each store.
const NOTES: usize = 20;

/// Prints the table, one column for each store.
pub(super) fn print(all: &[Found], seed: u64) {
    println!("\nseed {seed}\n");
    let row = |name: &str, of: &dyn Fn(&Found) -> String| {
        let cells: Vec<String> = all.iter().map(|found| format!(" {:>15} |", of(found))).collect();
        println!("| {name:38} |{}", cells.concat());
    };
    row("", &|found| found.kind.name().to_owned());
    println!("|---|{}", "---:|".repeat(all.len()));
    let number = |name: &str, of: fn(&Found) -> u64| row(name, &|found| of(found).to_string());
    number("power cuts", |found| found.rounds);
    let moments: BTreeSet<_> = all.iter().flat_map(|found| found.moments.keys()).collect();
    for moment in moments {
        let name = if moment.contains(' ') { (*moment).to_owned() } else { format!("at `{moment}`") };
        row(&name, &|found| found.moments.get(moment).copied().unwrap_or_default().to_string());
    }
    for (how, name) in [
        (Cut::AtOnce, "nothing got to the disk any more"),
        (Cut::JournalFlushed, "names and sizes did"),
        (Cut::Synced, "everything did"),
    ] {
        row(name, &|found| found.cuts.get(&how).copied().unwrap_or_default().to_string());
    }
    number("files of Redis mended by its own tool", |found| found.mended);
    number("disks", |found| found.disks);
    number("batches acknowledged", |found| found.requests);
    number("readings acknowledged", |found| found.readings);
    number("batches sent again on purpose", |found| found.repeated);
    number("times all totals were compared", |found| found.looks);
    number("rows in the files", |found| found.verdict.rows);
    number("**readings lost**", |found| found.verdict.lost);
    number("**readings counted twice**", |found| found.verdict.double);
    number("**wrong rows or lines**", |found| found.verdict.wrong);
    number("**rows of which periods disagree**", |found| found.verdict.disagreeing);
    number("**differing lines of one version**", |found| found.verdict.differing);
    number("**buckets that did not close**", |found| found.stuck);
    number("**batches never acknowledged**", |found| found.unanswered);
    number("**other wrong answers and ends**", |found| found.complaints.len() as u64);
    for found in all {
        for note in found.verdict.notes.iter().chain(&found.complaints).take(NOTES) {
            println!("{}, round {}: {note}", found.kind.name(), found.rounds);
        }
    }
}
