//! Rows that the table refuses, and tables that somebody has changed: what is set aside, what waits in the
//! store, and how it comes back.

use crate::postgres_server::Database;
use crate::postgres_world::{Runtime, written};
use crate::sink_contract::life;
use crate::world::{HOUR, T0};
use meanwhile::sink::WriteReport;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Period};
use meanwhile::stats::row::LifeRow;

#[test]
fn what_a_constraint_refuses_is_set_aside_and_comes_back() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    database.sql("ALTER TABLE bucket_stats ADD CONSTRAINT plausible CHECK (max < 100)");
    let lives: Vec<LifeRow> = (0..6_000)
        .map(|n| life(&format!("s{n}"), T0, 1, 1, &[if [17, 18, 5_999].contains(&n) { 1_000.0 } else { 1.0 }]))
        .collect();
    let report = WriteReport { written: 5_997, same: 0, older: 0, refused: 3 };
    assert_eq!(runtime.write(&sink, &lives).unwrap(), report);
    let repeated = WriteReport { written: 0, same: 5_997, older: 0, refused: 3 };
    assert_eq!(runtime.write(&sink, &lives).unwrap(), repeated, "again changes nothing");
    let aside = "SELECT source, count, sum, generation, reason FROM dead_letters ORDER BY source";
    let reason = "new row for relation \"bucket_stats\" violates check constraint \"plausible\"";
    let said = database.sql(aside);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, source) in lines.iter().zip(["s17", "s18", "s5999"]) {
        assert!(line.starts_with(&format!("{source}|1|1000|1|{reason}")), "{line}");
    }
    assert_eq!(database.sql("SELECT count(*) FROM sources"), "5997");

    database.sql("ALTER TABLE bucket_stats DROP CONSTRAINT plausible");
    assert_eq!(bring_back(&database), ["3", "0"]);
    assert_eq!(database.sql("SELECT count(*) FROM sources"), "6000");
    assert_eq!(database.sql("SELECT count(*) FROM dead_letters"), "0");
    assert_eq!(runtime.rows(&sink, "s17").unwrap()[0].state.sum.hi, 1_000.0);
    let all = WriteReport { same: 6_000, ..WriteReport::default() };
    assert_eq!(runtime.write(&sink, &lives).unwrap(), all, "they are the rows that were refused");
}

/// What the function of the page returns until it has nothing left to do.
fn bring_back(database: &Database) -> [String; 2] {
    assert!(include_str!("../../docs/postgres.md").contains("SELECT bring_back_dead_letters();"));
    [(); 2].map(|()| database.sql("SELECT bring_back_dead_letters()"))
}

/// A correction takes the place of its row; a life that would have to be added to another waits.
#[test]
fn what_comes_back_never_takes_readings_away() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    let good = ["corrected", "late", "late corrected", "gone on"].map(|id| life(id, T0, 1, 1, &[1.0]));
    runtime.write(&sink, &good).unwrap();
    runtime.write(&sink, &[life("late corrected", T0, 2, 2, &[2.0])]).unwrap();
    database.sql("ALTER TABLE bucket_stats ADD CONSTRAINT plausible CHECK (max < 100)");
    let bad = [
        life("corrected", T0, 1, 2, &[1.0, 500.0]),
        life("late", T0, 2, 2, &[500.0]),
        life("late corrected", T0, 2, 3, &[2.0, 500.0]),
        life("gone on", T0, 1, 2, &[1.0, 500.0]),
    ];
    assert_eq!(runtime.write(&sink, &bad).unwrap().refused, 4);
    database.sql("ALTER TABLE bucket_stats DROP CONSTRAINT plausible");
    runtime.write(&sink, &[life("gone on", T0, 1, 3, &[1.0, 500.0, 3.0])]).unwrap();
    assert_eq!(bring_back(&database), ["2", "0"]);
    let rows = database.sql("SELECT source, count, sum, generation, revision FROM bucket_stats ORDER BY source");
    assert_eq!(rows, "corrected|2|501|1|2\ngone on|3|504|1|3\nlate|1|1|1|1\nlate corrected|2|3|2|2");
    assert_eq!(database.sql("SELECT source, count FROM dead_letters ORDER BY source"), "late|1\nlate corrected|2");
}

#[test]
fn what_a_trigger_refuses_or_drops_is_set_aside() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    database.sql(
        "CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.source = 'loud' THEN RAISE EXCEPTION 'not this one'; END IF; \
         IF NEW.source = 'quiet' THEN RETURN NULL; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER picky BEFORE INSERT ON bucket_stats FOR EACH ROW EXECUTE FUNCTION picky()",
    );
    let lives = ["a", "loud", "m", "quiet", "z"].map(|id| life(id, T0, 1, 1, &[1.0]));
    assert_eq!(runtime.write(&sink, &lives).unwrap(), WriteReport { written: 3, same: 0, older: 0, refused: 2 });
    let said = database.sql("SELECT source, reason FROM dead_letters ORDER BY 1");
    assert_eq!(said, "loud|not this one [P0001]\nquiet|a trigger of bucket_stats drops or changes the row");
}

/// The end is part of what a bucket is: under another time zone the same start may have another one.
#[test]
fn a_bucket_with_another_end_is_not_merged() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    let day = |end: Millis, generation: i64, revision: i64| {
        let bucket = Bucket { period: Period::Day, start: T0, end };
        LifeRow { bucket, ..life("a", T0, generation, revision, &[1.0]) }
    };
    assert_eq!(runtime.write(&sink, &[day(T0 + 24 * HOUR, 1, 1)]).unwrap(), written(1));
    // First lives of an epoch have the same number.
    for (generation, other) in [(1, "b"), (2, "c")] {
        let lives = [day(T0 + 23 * HOUR, generation, 9), life(other, T0, 1, 1, &[1.0])];
        let report = WriteReport { written: 1, same: 0, older: 0, refused: 1 };
        assert_eq!(runtime.write(&sink, &lives).unwrap(), report);
    }
    let said = database.sql("SELECT DISTINCT reason FROM dead_letters");
    assert_eq!(said, "the table has a bucket with this start that ends at 2026-11-21T05:00:00Z, of another time zone");
    assert_eq!(database.sql("SELECT count, generation, revision FROM bucket_stats WHERE source = 'a'"), "1|1|1");
    assert_eq!(database.sql("SELECT generation FROM dead_letters ORDER BY 1"), "1\n2");
}

#[test]
fn a_changed_table_keeps_rows_in_the_store() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    let check = |hurt: &str, mend: &str, part: &str, revision: i64| {
        let lives = [life("a", T0, 1, revision, &[1.0])];
        database.sql(hurt);
        runtime.check_away(&sink, &lives, &[part]);
        database.sql(mend);
        assert_eq!(runtime.write(&sink, &lives).unwrap(), written(1), "{mend}");
        assert_eq!(database.sql("SELECT count(*) FROM dead_letters"), "0");
    };
    check(
        "ALTER TABLE bucket_stats ADD site text; UPDATE bucket_stats SET site = ''; ALTER TABLE bucket_stats ALTER site SET NOT NULL",
        "ALTER TABLE bucket_stats DROP site",
        "a column that was added must have a default",
        1,
    );
    check("ALTER TABLE sources RENAME TO gone", "ALTER TABLE gone RENAME TO sources", "run meanwhile migrate", 2);
    check("ALTER TABLE bucket_stats RENAME base TO b", "ALTER TABLE bucket_stats RENAME b TO base", "put back what", 3);
}

#[test]
fn a_damaged_row_is_named() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    runtime.write(&sink, &[life("a", T0, 1, 1, &[1.0])]).unwrap();
    database.sql("UPDATE bucket_stats SET state = '\\x0102'");
    let error = runtime.rows(&sink, "a").unwrap_err().to_string();
    assert!(
        error.contains("the row of \"a\" in 1m at 2026-11-20T05:00:00Z cannot be read: state has 2 bytes"),
        "{error}"
    );
}
