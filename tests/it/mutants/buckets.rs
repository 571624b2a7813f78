//! From the store to the files and up into coarser buckets: no life, row or line is missing, or there twice.
//!
//! Scenarios for `mutants.rs`.

use super::run::{
    OLD, OPEN, Run, SHORT, SLOWER, Seen, answered, compare, counted, last_second, old, old_second, post_over,
    post_until, wide, written,
};
use crate::http::{array, reading_at};
use crate::servers::{RedisServer, temporary};
use crate::service::{Service, eventually};
use crate::{sink_files, world};
use meanwhile::stats::calendar::Period;
use meanwhile::store::keys;
use std::fs;
use std::path::Path;

/// Looks without a pause.
const LOOKS: usize = 20;
/// Buckets that move, where a query is to see one of them on its way.
const MOVES: u64 = 50;

pub(super) fn a_bucket_closes(run: Run) -> Seen {
    let service = run.service(&SHORT);
    service.client().post(&reading_at("a", 1.0, OLD)).ok();
    counted(&service, "a", (1, 1.0))
}

pub(super) fn a_bucket_is_drained(run: Run) -> Seen {
    let service = run.service(&OPEN);
    service.client().post(&reading_at("a", 1.0, &last_second())).ok();
    counted(&service, "a", (1, 1.0))
}

/// The bucket is open, so the store knows what it holds.
pub(super) fn a_source_changes_its_length(run: Run) -> Seen {
    let service = run.service(&OPEN);
    let second = last_second();
    service.client().post(&reading_at("a", 1.0, &second)).ok();
    let vector = format!(r#"{{"source": "a", "value": [1, 2], "timestamp": "{second}"}}"#);
    compare("the answer to a vector", &service.client().post(&vector).status, &422)?;
    counted(&service, "a", (1, 1.0))
}

pub(super) fn the_service_dies_before_it_writes(run: Run) -> Seen {
    let mut service = run.service(&SHORT);
    post_over("held:1", &mut service, "key", &reading_at("a", 1.0, OLD));
    counted(&service, "a", (1, 1.0))
}

pub(super) fn a_second_life_is_corrected(run: Run) -> Seen {
    let service = run.service(&OPEN);
    let second = last_second();
    // Another bucket that is new has the rollover look at once.
    let post = |other: u64| {
        let other = reading_at("b", 1.0, &old_second(other));
        service.client().post(&array([reading_at("a", 1.0, &second), other])).ok();
    };
    post(0);
    service.run(&["drain"]);
    for readings in [1, 2] {
        post(readings);
        eventually("the second life is written", || {
            let rows = sink_files::newest(&service.sink(), "1s");
            let (generation, count, _) = rows.get(&("a".to_owned(), second.clone()))?.version;
            (generation > first_generation(&service, &second) && count == readings).then_some(())
        });
    }
    counted(&service, "a", (3, 3.0))
}

/// The generation of the first line of a row.
fn first_generation(service: &Service, second: &str) -> i64 {
    let lines = sink_files::lines(&service.sink(), "1s");
    lines[&("a".to_owned(), second.to_owned())].iter().map(|line| line.version.0).min().expect("a line")
}

pub(super) fn a_reading_comes_after_a_drain(run: Run) -> Seen {
    let service = run.service(&OPEN);
    let second = last_second();
    service.client().post(&array((0..3).map(|_| reading_at("a", 1.0, &second)))).ok();
    service.run(&["drain"]);
    service.client().post(&reading_at("a", 1.0, &second)).ok();
    counted(&service, "a", (4, 4.0))
}

/// While some of the sources have moved up and others have not. The first by name is among the first to go.
pub(super) fn a_reading_comes_during_a_close(run: Run) -> Seen {
    let service = run.service(&SLOWER);
    let client = service.client();
    let is_open = |source: &str| {
        let open = client.get(&format!("/v1/state?source={source}")).ok().json();
        open.as_array().unwrap().iter().any(|life| life["period"] == "1s")
    };
    let rounds = run.rounds(2);
    for round in 1..=rounds {
        client.post(&wide(&old_second(round))).ok();
        let first_is_gone = || (0..LOOKS).find_map(|_| (!is_open("w00000")).then_some(()));
        eventually("the first source has moved up", first_is_gone);
        client.post(&reading_at("a", 1.0, &old_second(round))).ok();
        eventually("the second has closed", || (!is_open("a")).then_some(()));
        compare("a in the answers of 1s", &answered(&service, "1s", "a"), &Some((round, round as f64)))?;
    }
    counted(&service, "a", (rounds, rounds as f64))
}

/// The instance that closes dies on its way, another one takes the reading.
pub(super) fn a_reading_comes_after_half_a_close(run: Run) -> Seen {
    let redis = RedisServer::start_durable();
    let store = redis.url();
    let mut service = run.service_beside(&store, &SLOWER);
    post_until("moved-up:1", &mut service, "wide", &wide(OLD));
    let other = run.service_beside(&store, &[&SLOWER[..], &["--role", "ingest"]].concat());
    other.client().post(&reading_at("a", 1.0, OLD)).ok();
    service.start_again();
    counted(&service, "a", (1, 1.0))
}

/// Its last second, with the second of two readings that were about to be written.
pub(super) fn redis_forgets_what_is_sealed(run: Run) -> Seen {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let store = redis.url();
    let mut service = run.service_beside(&store, &SLOWER);
    let saved = temporary();
    service.client().post(&reading_at("a", 1.0, OLD)).ok();
    eventually("the first is in a file of Redis", || {
        world::replace(saved.path(), redis.dir());
        holds(saved.path(), b"s:a").then_some(())
    });
    service.client().post(&reading_at("a", 1.0, OLD)).ok();
    let second = world::calendar("1s").bucket(Period::Seconds(1), old());
    eventually("both are sealed", || {
        let life = redis.ask(&["HMGET", &keys::bucket(0, &second), "revision", "dirty"]);
        let sealed = life.lines().collect::<Vec<_>>();
        let sealed = sealed.len() == 2 && sealed[0] != "0" && sealed[1] == "0";
        (sealed || written(&service, "1s", "a").0 == 2).then_some(())
    });
    redis.kill();
    world::replace(redis.dir(), saved.path());
    redis.restart();
    service.kill();
    service.start_with(&[&["--store", &store][..], &SLOWER, &["--hold", "0s"]].concat());
    counted(&service, "a", (1, 1.0))
}

/// Whether a file below a directory has these bytes in it.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    let has = |path: &Path| fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes);
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.into_iter().any(|path| if path.is_dir() { holds(&path, bytes) } else { has(&path) })
}

pub(super) fn the_service_dies_in_a_line(run: Run) -> Seen {
    let mut service = run.service(&SHORT);
    let second = last_second();
    service.client().post(&reading_at("before", 1.0, &second)).ok();
    service.run(&["drain"]);
    post_over("rows-torn:1", &mut service, "key", &reading_at("a", 1.0, &second));
    counted(&service, "a", (1, 1.0))
}

/// What was answered is in every answer, wherever its bucket is at that moment. One of them is always moving.
pub(super) fn buckets_move_during_queries(run: Run) -> Seen {
    let service = run.service(&SHORT);
    service.client().post(&wide(OLD)).ok();
    service.run(&["drain"]);
    for second in 1..=run.rounds(MOVES) {
        service.client().post(&reading_at("a", 1.0, &old_second(second))).ok();
        // Nothing, if it is asked to try again.
        if let seen @ Some(_) = answered(&service, "1s", "a") {
            compare("a in the answers of 1s", &seen, &Some((second, second as f64)))?;
        }
    }
    Ok(())
}
