//! From a request to the store: what is repeated, held up or lost on the way counts once.
//!
//! Scenarios for `mutants.rs`.

use super::run::{OLD, Run, SHORT, Seen, WIDTH, answered, compare, counted, post_over, wide};
use super::wire::Wire;
use crate::http::reading_at;
use crate::servers::RedisServer;
use crate::world;
use meanwhile::clock::Clock;
use meanwhile::store::Store;
use meanwhile::store::embedded::EmbeddedStore;
use meanwhile::store::redis::RedisStore;
use std::path::Path;
use std::process::Command;
use std::thread;

/// Requests at once, where they are to meet in a frame.
const AT_ONCE: usize = 16;

pub(super) fn a_request_is_repeated(run: Run) -> Seen {
    let service = run.service(&SHORT);
    for _ in 0..2 {
        service.client().post_keyed("key", &reading_at("a", 1.0, OLD)).ok();
    }
    counted(&service, "a", (1, 1.0))
}

/// One is in flight, those behind it would travel together.
pub(super) fn requests_come_at_once(run: Run) -> Seen {
    let service = run.service(&SHORT);
    for round in 1..=run.rounds(5) {
        let post = |key: String| {
            let client = service.client();
            thread::spawn(move || client.post_keyed(&key, &reading_at("a", 1.0, OLD)).ok())
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| post(format!("key-{round}"))).collect();
        for thread in threads {
            thread.join().unwrap();
        }
        compare("a in the answers of 1m", &answered(&service, "1m", "a"), &Some((round, round as f64)))?;
    }
    Ok(())
}

/// Before the third of the commits that the request takes.
pub(super) fn the_service_dies_before_a_commit(run: Run) -> Seen {
    let mut service = run.service(&SHORT);
    for round in 1..=run.rounds(1) {
        post_over("frame-made:3", &mut service, &format!("key-{round}"), &wide(OLD));
        counted(&service, &format!("w{:05}", WIDTH - 1), (round, round as f64))?;
    }
    Ok(())
}

/// It was an hour behind while the key was recorded.
pub(super) fn a_clock_comes_right(run: Run) -> Seen {
    let mut service = run.service(&[&SHORT[..], &["--idempotency-ttl", "1m"]].concat());
    service.client().post_keyed("key", &reading_at("a", 1.0, OLD)).ok();
    service.stop();
    let behind = Clock::manual(Clock::System.now() - world::HOUR);
    with_store(&service.store(), &behind, async |store| drop(store.due(0, 1).await.unwrap()));
    service.start_again();
    service.client().post_keyed("key", &reading_at("a", 1.0, OLD)).ok();
    counted(&service, "a", (1, 1.0))
}

/// The service sends its frame again.
pub(super) fn an_answer_of_redis_is_lost(run: Run) -> Seen {
    let redis = RedisServer::start_durable();
    let wire = Wire::to(redis.port());
    let service = run.service_beside(&wire.url(), &SHORT);
    wire.lose("APPLIED");
    service.client().post(&reading_at("a", 1.0, OLD)).ok();
    assert!(wire.has_lost(), "the answer came");
    counted(&service, "a", (1, 1.0))
}

/// On its way from one instance for longer than another one's count of the same request is remembered.
pub(super) fn a_frame_is_held_up(run: Run) -> Seen {
    let redis = RedisServer::start_durable();
    let wire = Wire::to(redis.port());
    let flags = [&SHORT[..], &["--idempotency-ttl", "1m"]].concat();
    let slow = run.service_beside(&wire.url(), &[&flags[..], &["--role", "ingest"]].concat());
    let other = run.service_beside(&redis.url(), &flags);
    wire.hold("s:held");
    let client = slow.client();
    let waiting = thread::spawn(move || client.post_keyed("key", &reading_at("held", 1.0, OLD)).status);
    wire.wait_until_held();
    other.client().post_keyed("key", &reading_at("held", 1.0, OLD)).ok();
    let clock = Clock::manual(Clock::System.now());
    with_store(&redis.url(), &clock, async |store| {
        let end = store.due(0, 1).await.unwrap().elapsed + 2 * world::MINUTE;
        while store.due(0, 1).await.unwrap().elapsed < end {
            clock.set(clock.now() + 5 * world::SECOND);
        }
    });
    wire.release();
    let status = waiting.join().unwrap();
    counted(&other, "held", (1, 1.0)).map_err(|seen| format!("{seen}; the late one was answered {status}"))
}

/// Nobody can lose an answer between a service and its own file.
pub(super) fn the_contract_of_duplicate_frames(run: Run) -> Seen {
    contract(run, "a_frame_that_was_applied_is_a_duplicate")
}

/// Nobody else can count what a service with its own file is about to.
pub(super) fn the_contract_of_old_frames(run: Run) -> Seen {
    contract(run, "a_frame_older_than_half_the_ttl_is_stale")
}

/// Runs a test of the store contract by itself.
fn contract(run: Run, test: &str) -> Seen {
    let test = format!("contract::embedded::{test}");
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", &test]).env_remove("MEANWHILE_MUTANT").envs(run.variables());
    let said = program.output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    if said.contains("1 passed; 0 failed") {
        return Ok(());
    }
    assert!(said.contains("0 passed; 1 failed"), "{said}");
    Err(format!("{test} fails"))
}

/// Uses the store of a service, as an instance with this clock would.
fn with_store(store: &str, clock: &Clock, use_it: impl AsyncFnOnce(&dyn Store)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        match store.strip_prefix("embedded:") {
            Some(dir) => use_it(&EmbeddedStore::open(Path::new(dir), world::POLICY, clock.clone()).unwrap()).await,
            None => use_it(&RedisStore::connect(store, world::POLICY, Some(clock.clone())).await.unwrap()).await,
        }
    });
}
