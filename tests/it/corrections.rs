//! Readings that come after everything has closed, again and again, up through all periods: the rows of
//! minutes, hours, days, weeks and months in files and in a table, with both stores.
//!
//! The months and weeks are those of Berlin around the change of the clocks. How a single late reading
//! finds its way is in `late.rs`; what is refused instead in `refusing.rs`.

use crate::exact_rows::{Sink, Truth};
use crate::http::{array, reading_at};
use crate::seeded::Seeded;
use crate::service::{On, Service, eventually};
use meanwhile::stats::calendar::{Calendar, Zone};
use meanwhile::stats::timestamp;

const PERIODS: [&str; 5] = ["1m", "1h", "1d", "1w", "1mo"];
const ZONE: &str = "Europe/Berlin";
const SOURCES: [&str; 3] = ["a", "b", "c"];
/// Two weeks that share a month with others, and the end of a month.
const DAYS: [&str; 5] = ["2026-03-22", "2026-03-23", "2026-03-29", "2026-03-31", "2026-04-01"];
const BATCH: usize = 40;

fn calendar() -> Calendar {
    Calendar::new(PERIODS.iter().map(|p| p.parse().unwrap()).collect(), ZONE.parse().unwrap()).unwrap()
}

/// Readings on these days: few minutes, so that many meet in one, around local midnights and the skipped hour.
fn batch(seeded: &mut Seeded, days: &[&str], sources: &[&str], truth: &mut Truth) -> String {
    let readings: Vec<String> = (0..BATCH)
        .map(|_| {
            let day = days[seeded.below(days.len() as u64) as usize];
            let (hour, minute) = ([0, 1, 21, 22, 23][seeded.below(5) as usize], seeded.below(3));
            let time = format!("{day}T{hour:02}:{minute:02}:{:02}Z", seeded.below(60));
            let source = sources[seeded.below(sources.len() as u64) as usize];
            let value = seeded.below(4_000) as f64 / 10.0 + 1.0;
            truth.add(source, value, timestamp::parse(&time, &Zone::utc()).unwrap());
            reading_at(source, value, &time)
        })
        .collect();
    array(readings)
}

/// Sees that every answer has the readings now, and every row once all is closed.
fn check(service: &Service, sink: &Sink, truth: &Truth) {
    let client = service.client();
    let counted = |period| SOURCES.map(|source| client.total(source, period).0).iter().sum::<u64>();
    for period in PERIODS {
        assert_eq!(counted(period), truth.readings(), "{period}, at once");
    }
    eventually("all is closed", || {
        let ready = client.get("/readyz").ok().json();
        (ready["rollover"]["open_buckets"] == 0 && sink.counted(service, "1w") == truth.readings()).then_some(())
    });
    for period in PERIODS {
        truth.check(service, sink, period);
        assert_eq!(counted(period), truth.readings(), "{period}, closed");
        let known = SOURCES.iter().filter(|source| client.total(source, period).0 > 0);
        assert!(known.flat_map(|source| client.rows(source, period)).all(|row| row["state"] == "closed"));
    }
}

fn corrections(on: On, sink: &Sink) {
    let flags = ["--periods", &PERIODS.join(","), "--timezone", ZONE, "--grace", "100ms", "--lateness", "1s"];
    let mut service = sink.start(on, &flags);
    let (mut truth, mut seeded) = (Truth::new(calendar()), Seeded::new(11));
    let first = batch(&mut seeded, &DAYS[1..4], &SOURCES[..2], &mut truth);
    service.client().post_keyed("first", &first).ok();
    check(&service, sink, &truth);
    // Into the same days, days and weeks without a row yet, of another source too; each under a key, and twice.
    for (round, days) in [&DAYS[..], &DAYS[..1], &DAYS[2..]].into_iter().enumerate() {
        let late = batch(&mut seeded, days, &SOURCES, &mut truth);
        for duplicate in [false, true] {
            let answer = service.client().post_keyed(&format!("late-{round}"), &late).ok().json();
            assert_eq!(answer["duplicate"], duplicate, "{answer}");
        }
        if round == 1 {
            service.kill();
            service.start_again();
        }
        check(&service, sink, &truth);
    }
    // What was counted before the others were written is not counted again.
    assert_eq!(service.client().post_keyed("first", &first).ok().json()["duplicate"], true);
    check(&service, sink, &truth);
    assert!(!service.log().contains("ERROR"), "{}", service.log());
}

#[test]
fn corrections_in_files_embedded() {
    corrections(On::Embedded, &Sink::Files);
}

#[test]
fn corrections_in_files_redis() {
    corrections(On::Redis, &Sink::Files);
}

#[test]
fn corrections_in_a_table_embedded() {
    corrections(On::Embedded, &Sink::table());
}

#[test]
fn corrections_in_a_table_redis() {
    corrections(On::Redis, &Sink::table());
}
