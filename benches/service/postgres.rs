//! What a row costs PostgreSQL: CPU seconds of all its processes while the sink writes rows into a table that
//! holds millions.
//!
//! The sink is called as the rollover does, with the rows of one minute after the other, each of all sources; so
//! every row goes into another leaf of the primary key. What the rollover itself costs is in `rollover.rs`.

use crate::postgres_server::Postgres;
use crate::processes::cpu_seconds;
use crate::report::Goal;
use anyhow::{Result, ensure};
use meanwhile::sink::postgres::PostgresSink;
use meanwhile::sink::{Sink, WriteReport};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Period};
use meanwhile::stats::moments::Moments;
use meanwhile::stats::row::LifeRow;

const SOURCES: usize = 10_000;
/// Of each source, in the table before: 10 million rows.
const MINUTES_HELD: u32 = 1_000;
/// Of each source, that are written: 500,000 rows.
const MINUTES: u32 = 50;
const ROWS: usize = SOURCES * MINUTES as usize;
/// The start of the first minute in the table.
const FIRST: Millis = 1_780_272_000_000;
/// CPU microseconds a row: 60,000 and 40,000 rows per CPU second.
const GOAL_NEW_US: f64 = 1e6 / 60_000.0;
const GOAL_AGAIN_US: f64 = 1e6 / 40_000.0;

/// Fills the table within the server, minute by minute as a service would; the index is made at the end.
const FILL: [&str; 6] = [
    "ALTER TABLE bucket_stats DROP CONSTRAINT bucket_stats_pkey",
    "INSERT INTO bucket_stats SELECT 'station-' || lpad((n % 10000)::text, 5, '0') || '.temperature', '1m', \
     to_timestamp(1780272000 + n / 10000 * 60), to_timestamp(1780272060 + n / 10000 * 60), 60, 20.5, 0.25, 0.25, 19, 22, \
     1230, 25230, decode(repeat('0123456789abcdef01234567', 5), 'hex'), NULL, 1, 60, 1 FROM generate_series(0, 9999999) AS n",
    "ALTER TABLE bucket_stats ADD PRIMARY KEY (source, period, bucket_start)",
    "INSERT INTO sources SELECT source, min(bucket_start), max(bucket_start) FROM bucket_stats GROUP BY source",
    "VACUUM (ANALYZE) bucket_stats, sources",
    "CHECKPOINT",
];

/// Prints the costs and returns the goals.
pub(crate) fn measure() -> Result<Vec<Goal>> {
    println!("\nPostgreSQL: {ROWS} rows, {SOURCES} a minute, into a table of {}", SOURCES * MINUTES_HELD as usize);
    let server = Postgres::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sink = PostgresSink::new(&server.url(), "postgres".to_owned())?;
    runtime.block_on(sink.prepare())?;
    server.sql(&FILL)?;
    let sizes = "SELECT pg_size_pretty(pg_table_size('bucket_stats')), pg_size_pretty(pg_indexes_size('bucket_stats'))";
    println!("rows and indexes have {}", server.sql(&[sizes])?.replace('|', " and "));
    println!("{:36}{:>16}{:>18}{:>18}", "CPU seconds", "of PostgreSQL", "rows per second", "of the sink");
    let mut goals = Vec::new();
    for (what, revision, goal) in [("new rows", 1, GOAL_NEW_US), ("all of them corrected", 2, GOAL_AGAIN_US)] {
        let (server_before, own_before) = (server.cpu_seconds()?, cpu_seconds(std::process::id())?);
        for minute in MINUTES_HELD..MINUTES_HELD + MINUTES {
            let report = runtime.block_on(sink.write(rows(minute, revision)))?;
            ensure!(report == WriteReport { written: SOURCES, ..WriteReport::default() }, "{report:?}");
        }
        // What is dirty in memory has to reach the disk one day.
        server.sql(&["CHECKPOINT"])?;
        let cost = server.cpu_seconds()? - server_before;
        let own = cpu_seconds(std::process::id())? - own_before;
        println!("{what:36}{cost:16.2}{:18.0}{own:18.2}", ROWS as f64 / cost);
        let name = format!("PostgreSQL: CPU us a row, {what}");
        goals.push(Goal::new(name, cost * 1e6 / ROWS as f64, goal, true));
    }
    Ok(goals)
}

/// A minute of all sources; a higher revision has more readings.
fn rows(minute: u32, revision: i64) -> Vec<LifeRow> {
    let start = FIRST + 60_000 * Millis::from(minute);
    let bucket = Bucket { period: Period::Seconds(60), start, end: start + 60_000 };
    let row = |source: usize| {
        let mut moments = Moments::EMPTY;
        for reading in 0..59 + revision {
            moments.push(20.0 + source as f64 / 977.0 + reading as f64 / 97.0);
        }
        LifeRow { source: format!("station-{source:05}.temperature").into(), bucket, generation: 1, revision, moments }
    };
    (0..SOURCES).map(row).collect()
}
