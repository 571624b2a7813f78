//! Questions to the table and whole rows out of it and into it: what they answer, and that they follow the
//! primary key.

use crate::postgres_server::{Database, PostgresServer};
use crate::postgres_world::{MINUTES, Runtime, written};
use crate::service::eventually;
use crate::sink_contract::life;
use crate::world::{HOUR, MINUTE, T0};
use meanwhile::sink::RowPage;
use meanwhile::sink::{RowQuery, Sink};
use meanwhile::stats::calendar::{Bucket, Period};
use meanwhile::stats::moments::Moments;
use meanwhile::stats::row::{LifeRow, Row};
use std::sync::Arc;

#[test]
fn questions_follow_the_primary_key() {
    let server = PostgresServer::start(&[
        "shared_preload_libraries=auto_explain",
        "auto_explain.log_min_duration=0",
        "auto_explain.log_nested_statements=on",
    ]);
    let (database, runtime) = (server.database(), Runtime::new());
    let sink = runtime.open(&database);
    let lives: Vec<LifeRow> =
        (0..40).flat_map(|n| (0..500).map(move |m| life(&format!("s{n}"), T0 + m * MINUTE, 1, 1, &[1.0]))).collect();
    runtime.write(&sink, &lives).unwrap();
    database.sql("INSERT INTO sources SELECT 't' || n, now(), now() FROM generate_series(1, 5000) n; ANALYZE");
    let plans = |ask: &dyn Fn()| {
        let before = server.log().len();
        ask();
        eventually("the plan is in the log", || Some(server.log().split_off(before)).filter(|log| log.contains("Scan")))
    };
    let sources: Vec<Arc<str>> = ["s1", "s2", "s39"].map(Arc::from).to_vec();
    let query = RowQuery { sources, period: MINUTES, from: T0, to: T0 + 400 * MINUTE, limit: 20, doubles: 0 };
    // More often than the server plans a prepared statement for its parameters alone.
    for _ in 0..7 {
        assert_eq!(runtime.0.block_on(sink.rows(&query)).unwrap().len(), 20);
    }
    let plan = plans(&|| assert_eq!(runtime.0.block_on(sink.rows(&query)).unwrap().len(), 20));
    assert!(plan.contains("Index Scan using bucket_stats_pkey") && !plan.contains("Seq Scan"), "{plan}");
    assert!(plan.contains("Limit"), "{plan}");
    let plan = plans(&|| assert_eq!(runtime.0.block_on(sink.sources("s2", None, 5)).unwrap().len(), 5));
    assert!(plan.contains("Index Scan using sources_pkey") && !plan.contains("Seq Scan"), "{plan}");
}

#[test]
fn vectors_fill_arrays_that_sql_can_read() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    let vector = |generation, values: &[[f64; 2]]| {
        let mut moments = Moments::EMPTY;
        for values in values {
            moments.push_vector(values);
        }
        LifeRow { moments, ..life("pair", T0, generation, 1, &[]) }
    };
    runtime.write(&sink, &[vector(1, &[[1.0, 2.0]]), life("number", T0, 1, 1, &[7.0])]).unwrap();
    let shown = "SELECT count, mean, means, covar_pop, covar_samp, corr, mins, maxs, sums, sum_products FROM stats ORDER BY source";
    let number = "1|7||||||||";
    let check = |pair: &str| assert_eq!(database.sql(shown), format!("{number}\n{pair}"));
    check("1||{1,2}|{{0,0},{0,0}}||{{NULL,NULL},{NULL,NULL}}|{1,2}|{1,2}|{1,2}|{{1,2},{2,4}}");
    // Another life, which is added in Rust, and a correction of it.
    runtime.write(&sink, &[vector(2, &[[3.0, 6.0]])]).unwrap();
    check("2||{2,4}|{{1,2},{2,4}}|{{2,4},{4,8}}|{{1,1},{1,1}}|{1,2}|{3,6}|{4,8}|{{10,20},{20,40}}");
    assert_eq!(database.sql("SELECT means[2], covar_pop[1][2] FROM stats WHERE source = 'pair'"), "4|2");
    // Set aside, and brought back once there is room.
    runtime.write(&sink, &[LifeRow { revision: 2, ..life("pair", T0, 9, 1, &[1.0]) }]).unwrap();
    database.sql("DELETE FROM bucket_stats WHERE source = 'pair'");
    assert_eq!(database.sql("SELECT bring_back_dead_letters()"), "1");
    assert_eq!(database.sql("SELECT mean, means FROM stats WHERE source = 'pair'"), "1|");
}

#[test]
fn whole_rows_go_out_and_come_in() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let (from, to) = (runtime.open(&database), runtime.open(&Database::new()));
    let mut lives: Vec<LifeRow> =
        (0..250).map(|m| life(["a:b", "c"][m as usize % 2], T0 + m * MINUTE, 1, 1, &[1.0])).collect();
    lives.push(life("c", T0 + MINUTE, 2, 2, &[5.0]));
    runtime.write(&from, &lives).unwrap();
    let copy = || {
        let (mut after, mut reports) = (None::<String>, Vec::new());
        loop {
            let page = runtime.0.block_on(from.scan(after.as_deref(), 100)).unwrap();
            let RowPage { rows, next } = page;
            reports.push(runtime.0.block_on(to.put(rows)).unwrap());
            match next {
                Some(next) => after = Some(next),
                None => return reports,
            }
        }
    };
    assert_eq!(copy(), [written(100), written(100), written(50)]);
    assert_eq!(copy().iter().map(|report| report.same).sum::<usize>(), 250);
    for source in ["a:b", "c"] {
        assert_eq!(runtime.rows(&to, source).unwrap(), runtime.rows(&from, source).unwrap());
    }
    let older = Row { generation: 0, ..runtime.rows(&from, "c").unwrap()[0].clone() };
    assert_eq!(runtime.0.block_on(to.put(vec![older])).unwrap().older, 1);
    assert!(runtime.0.block_on(from.scan(Some("nonsense"), 1)).is_err());

    let day = Bucket { period: Period::Day, start: T0 + 7 * HOUR, end: T0 + 31 * HOUR };
    runtime.write(&to, &[LifeRow { bucket: day, ..life("c", T0, 1, 1, &[1.0]) }, life("b", T0, 1, 1, &[1.0])]).unwrap();
    let before = T0 + 100 * MINUTE + 1;
    assert_eq!(runtime.0.block_on(to.retain(MINUTES, before)).unwrap(), 101);
    assert_eq!(runtime.0.block_on(to.retain(MINUTES, before)).unwrap(), 0);
    assert_eq!(runtime.0.block_on(to.retain(Period::Day, before)).unwrap(), 0);
    assert_eq!(runtime.rows(&to, "c").unwrap()[0].bucket.start, T0 + 101 * MINUTE);
    let known = runtime.0.block_on(to.sources("", None, 9)).unwrap();
    let known: Vec<_> = known.iter().map(|s| (&*s.source, (s.first - T0) / MINUTE, (s.last - T0) / MINUTE)).collect();
    assert_eq!(known, [("a:b", 100, 248), ("c", 101, 7 * 60)], "by the rows that are left");
    assert_eq!(runtime.0.block_on(to.forget("c")).unwrap(), 76);
    assert_eq!(runtime.0.block_on(to.forget("c")).unwrap(), 0);
    assert_eq!(runtime.0.block_on(to.sources("", None, 9)).unwrap().len(), 1);
    assert_eq!((runtime.rows(&to, "c").unwrap().len(), runtime.rows(&to, "a:b").unwrap().len()), (0, 75));
}
