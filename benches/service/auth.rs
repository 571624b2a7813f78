//! What it costs to ask who sends a batch: the same load with a token and without, on both stores.
//!
//! Called by `main.rs`. Two services take turns, so that whatever else the machine does meets both alike. One has a file of
//! a thousand tokens; the token that sends may send for the sources of the load by a pattern. The load itself is in `load.rs`.

use crate::load::{self, BATCH, Cost, SOURCES};
use crate::processes::{Service, StoreKind};
use crate::report::Goal;
use anyhow::{Context, Result};
use meanwhile::auth::file::{Entries, Entry};
use meanwhile::auth::{Scope, token};
use std::path::Path;

const CONNECTIONS: usize = 16;
const FLAGS: [&str; 2] = ["--periods", "1m,1h,1d"];
/// Turns of each load; they share its readings.
const TURNS: usize = 5;
/// Each load is given one reading of so many.
const SHARE: usize = 2;
/// Tokens in the file.
const TOKENS: usize = 1_000;
/// A batch with a token costs at most so many times one without.
const GOAL_TIMES: f64 = 1.03;

/// Prints the costs and returns the goals; these count unless the run is too short for them.
pub(crate) fn measure(binary: &Path, readings: usize, counts: bool) -> Result<Vec<Goal>> {
    println!(
        "\nTokens: batches of {BATCH} readings over {SOURCES} sources, {CONNECTIONS} connections, CPU seconds per million readings"
    );
    println!("{:36}{:>9}{:>9}{:>9}", "", "service", "redis", "total");
    let directory = crate::processes::directory()?;
    let file = directory.path().join("auth.toml");
    let secret = write_tokens(&file)?;
    let flags = [&FLAGS[..], &["--auth-file", file.to_str().context("a path of text")?]].concat();
    let readings = readings.div_ceil(SHARE * TURNS);
    let mut goals = Vec::new();
    for store in StoreKind::ALL {
        let (open, asking) = (Service::start(binary, store, &FLAGS)?, Service::start(binary, store, &flags)?);
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            without.push(load::run(&open, CONNECTIONS, readings).with_context(|| format!("{store}"))?);
            with.push(
                load::run_as(&asking, &secret, CONNECTIONS, readings).with_context(|| format!("{store}, token"))?,
            );
        }
        let without = print_row(store, "nobody is asked", &without);
        let with = print_row(store, "a token with a pattern", &with);
        let name = format!("{store}: CPU with a token, times that without");
        goals.push(Goal::new(name, with / without, GOAL_TIMES, counts));
    }
    Ok(goals)
}

/// Writes the file, and returns the token that may send.
fn write_tokens(file: &Path) -> Result<String> {
    let secret = token::generate();
    let entry = |n: usize, secret: &str| Entry {
        id: format!("{n}"),
        name: format!("token-{n}"),
        hash: Some(token::hash(secret)),
        scopes: vec![Scope::Ingest],
        sources: Some(vec!["other*".to_owned(), "station-*".to_owned()]),
        rate: Some(1_000_000_000),
        ..Entry::default()
    };
    Entries::change(file, |entries| {
        entries.tokens = (1..TOKENS).map(|n| entry(n, &token::generate())).collect();
        entries.tokens.push(entry(TOKENS, &secret));
        Ok(())
    })?;
    Ok(secret)
}

/// Prints the mean of the turns; returns it for service and store together.
fn print_row(store: StoreKind, what: &str, turns: &[Cost]) -> f64 {
    let mean = |of: fn(&Cost) -> f64| turns.iter().map(of).sum::<f64>() / turns.len() as f64;
    let (service, redis) = (mean(|cost| cost.per_million(cost.service)), mean(|cost| cost.per_million(cost.redis)));
    let redis_text = match store {
        StoreKind::Redis => format!("{redis:9.3}"),
        StoreKind::Embedded => format!("{:>9}", "-"),
    };
    println!("{:36}{service:9.3}{redis_text}{:9.3}", format!("{store} store, {what}"), service + redis);
    service + redis
}
