//! How exact the answers are: sets of readings posted in three ways to both stores, read back over
//! HTTP and compared with the truth.
//!
//! The sets and the truth about them are in `sets.rs`. Accuracy does not depend on the machine, so
//! its goals count in every run.

use crate::client::{Client, post_readings};
use crate::processes::{Service, StoreKind};
use crate::random::Random;
use crate::report::{Goal, number};
use crate::sets::{self, Set};
use anyhow::{Context, Result, ensure};
use meanwhile::clock::Clock;
use meanwhile::stats::Millis;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;

const FLAGS: [&str; 2] = ["--periods", "1m,1h,1d"];
/// The finest of them, into which readings are folded.
const PERIOD: &str = "1m";
const GOAL_RELATIVE_ERROR: f64 = 1e-11;
const SHUFFLE_SEED: u64 = 0x7368_7566;

/// How the readings of a set are sent.
struct Way {
    name: &'static str,
    /// Readings in a request, at most.
    batch: usize,
    shuffled: bool,
}

const WAYS: [Way; 3] = [
    Way { name: "at-once", batch: usize::MAX, shuffled: false },
    Way { name: "by-seven", batch: 7, shuffled: false },
    Way { name: "shuffled", batch: 100, shuffled: true },
];

/// What the service says of a set that was sent in one way.
struct Answer {
    mean: f64,
    var_pop: f64,
}

/// How far the answers about one set are off, over all ways.
struct Errors {
    /// The greatest relative error of `var_pop`.
    var_pop: f64,
    /// Means that are not the nearest double.
    means: usize,
}

/// Prints the errors and returns the goals.
pub(crate) fn measure(binary: &Path) -> Result<Vec<Goal>> {
    println!("\nAccuracy: relative error of var_pop, the worst of {} ways to send a set", WAYS.len());
    println!(
        "{:24}{:>9}{:>12}{:>10}{:>10}{:>10}{:>12}",
        "", "readings", "var_pop", "redis", "embedded", "textbook", "which says"
    );
    let sets = sets::all();
    let mut goals = Vec::new();
    let mut columns = Vec::new();
    for store in StoreKind::ALL {
        let service = Service::start(binary, store, &FLAGS)?;
        let errors = ask_all(service.address, &sets).with_context(|| format!("{store} store"))?;
        let worst = errors.iter().zip(&sets).max_by(|(a, _), (b, _)| a.var_pop.total_cmp(&b.var_pop));
        let (worst, set) = worst.context("there are sets")?;
        let name = format!("{store}: error of var_pop, worst set ({})", set.name);
        goals.push(Goal::new(name, worst.var_pop, GOAL_RELATIVE_ERROR, true));
        let means: usize = errors.iter().map(|errors| errors.means).sum();
        goals.push(Goal::new(format!("{store}: means that are not the nearest double"), means as f64, 0.0, true));
        columns.push(errors);
    }
    for (i, set) in sets.iter().enumerate() {
        print!("{:24}{:>9}{:>12}", set.name, set.values.len(), number(set.var_pop()));
        for errors in &columns {
            print!("{:>10}", number(errors[i].var_pop));
        }
        let textbook = set.textbook_var_pop();
        println!("{:>10}{:>12}", number(set.relative_error(textbook)), number(textbook));
    }
    Ok(goals)
}

/// Sends every set in every way, all at the same time and each over its own connection, so that
/// their deltas also meet in the service's commits.
fn ask_all(address: SocketAddr, sets: &[Set]) -> Result<Vec<Errors>> {
    let now = Clock::System.now();
    thread::scope(|scope| {
        let pending: Vec<Vec<_>> = sets
            .iter()
            .enumerate()
            .map(|(i, set)| WAYS.iter().map(|way| scope.spawn(move || ask_one(address, i, set, way, now))).collect())
            .collect();
        let mut all = Vec::with_capacity(sets.len());
        for (set, ways) in sets.iter().zip(pending) {
            let mut errors = Errors { var_pop: 0.0, means: 0 };
            for way in ways {
                let answer = way.join().expect("errors are returned").with_context(|| set.name)?;
                errors.var_pop = errors.var_pop.max(set.relative_error(answer.var_pop));
                errors.means += usize::from(!set.is_mean(answer.mean));
            }
            all.push(errors);
        }
        Ok(all)
    })
}

/// Posts a set in one way under a source of its own and reads its row.
fn ask_one(address: SocketAddr, index: usize, set: &Set, way: &Way, now: Millis) -> Result<Answer> {
    let source = format!("set-{index}.{}", way.name);
    let mut values = set.values.clone();
    if way.shuffled {
        Random::new(SHUFFLE_SEED).shuffle(&mut values);
    }
    let mut client = Client::connect(address)?;
    for batch in values.chunks(way.batch) {
        let mut lines = String::new();
        for value in batch {
            // The shortest decimal that reads back to the same double.
            writeln!(lines, r#"{{"source":"{source}","value":{value},"timestamp":{now}}}"#)?;
        }
        client.deliver(&post_readings(lines.as_bytes()), batch.len())?;
    }
    let stats = client.get(&format!("/v1/stats?source={source}&period={PERIOD}&format=json"))?;
    let row = &stats["rows"][0];
    ensure!(
        row["count"].as_f64() == Some(values.len() as f64),
        "{source}: {} readings are in, the answer is {stats}",
        values.len()
    );
    let number = |name: &str| row[name].as_f64().with_context(|| format!("{source}: no {name} in {stats}"));
    Ok(Answer { mean: number("mean")?, var_pop: number("var_pop")? })
}
