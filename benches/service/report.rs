//! Goals: what was measured beside what it may be at most, and the verdict.

use std::fmt::Write;

/// A figure with a limit.
pub(crate) struct Goal {
    name: String,
    measured: f64,
    at_most: f64,
    /// Whether missing it fails the run; a run too short to tell only shows it.
    counts: bool,
}

impl Goal {
    pub(crate) fn new(name: impl Into<String>, measured: f64, at_most: f64, counts: bool) -> Self {
        Self { name: name.into(), measured, at_most, counts }
    }

    fn met(&self) -> bool {
        self.measured <= self.at_most
    }
}

/// Prints all goals; returns the names of those that fail the run.
pub(crate) fn verdict(goals: &[Goal]) -> Vec<&str> {
    println!("\n{:64}{:>10}{:>10}", "Goals", "measured", "at most");
    for goal in goals {
        let word = match (goal.met(), goal.counts) {
            (true, _) => "met",
            (false, true) => "MISSED",
            (false, false) => "missed, but the run is too short to tell",
        };
        println!("{:64}{:>10}{:>10}  {word}", goal.name, number(goal.measured), number(goal.at_most));
    }
    goals.iter().filter(|goal| goal.counts && !goal.met()).map(|goal| goal.name.as_str()).collect()
}

/// A few digits, whatever the magnitude.
pub(crate) fn number(x: f64) -> String {
    let mut text = String::new();
    let written = match x.abs() {
        a if a < 1e6 && a.fract() == 0.0 => write!(text, "{x}"),
        a if !(1e-3..1e6).contains(&a) => write!(text, "{x:.1e}"),
        a if a < 10.0 => write!(text, "{x:.3}"),
        _ => write!(text, "{x:.1}"),
    };
    written.expect("memory takes everything");
    text
}
