//! What holds up some rows or all of them on a server that is there: a full disk, a row that another session
//! keeps locked. Readings are taken meanwhile, nothing is lost, and whatever can be written is.
//!
//! A server that is away is in `postgres_service.rs`; what single calls on the sink say in `postgres_faults.rs`.

use crate::http::{array, reading, reading_at};
use crate::operations::metric;
use crate::outages::SmallDisk;
use crate::postgres_server::{Database, PostgresServer, other_user};
use crate::service::{On, Service, eventually};
use std::os::unix::fs::chown;

/// Sources, so that a second's rows do not fit into what is left of a page of the table.
const WIDTH: usize = 40;

fn start(database: &Database, flags: &[&str]) -> Service {
    Service::start(
        On::Embedded,
        &[&["--sink", &database.url(), "--grace", "50ms", "--lateness", "100ms"], flags].concat(),
    )
}

fn total(database: &Database, period: &str, source: &str) -> String {
    database.sql(&format!(
        "SELECT sum(count), sum(sum) FROM bucket_stats WHERE period = '{period}' AND source = '{source}'"
    ))
}

#[test]
fn the_disk_of_the_table_is_full() {
    let Some(disk) = SmallDisk::mount("2m") else {
        println!("SKIPPED: only root can mount the small disk that this test fills");
        return;
    };
    let place = disk.path().join("tables");
    std::fs::create_dir(&place).unwrap();
    if let Some((user, group)) = other_user() {
        chown(&place, Some(user), Some(group)).unwrap();
    }
    let server = PostgresServer::start(&[]);
    let database = server.database();
    let service = start(&database, &["--periods", "1s,1m,1h"]);
    database.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", place.display()));
    database.sql("ALTER TABLE bucket_stats SET TABLESPACE small");
    let client = service.client();
    let mut posted = 0;
    let mut post = || {
        client.post(&array((0..WIDTH).map(|n| reading(&format!("s{n}"), 1.0)))).ok();
        posted += 1;
        posted
    };
    post();
    eventually("rows are written", || (total(&database, "1s", "s0") == "1|1").then_some(()));
    disk.fill();
    eventually("the log says that the disk is full", || {
        post();
        service.log().contains("the rollover waits, finished buckets stay in the store").then_some(())
    });
    let log = service.log();
    assert!(log.contains("No space left on device") && log.contains("its disk is full: make room"), "{log}");
    let ready = client.get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("its disk is full"), "{ready:?}");
    let all = post();
    assert_eq!(client.total("s0", "1h"), (all, all as f64), "answers go on");
    disk.free();
    let expected = format!("{all}|{all}");
    eventually("all rows are written", || {
        (0..WIDTH).all(|n| total(&database, "1s", &format!("s{n}")) == expected).then_some(())
    });
    assert_eq!(database.sql("SELECT count(*) FROM dead_letters"), "0");
    eventually("it is ready again", || (client.get("/readyz").status == 200).then_some(()));
}

#[test]
fn a_locked_row_holds_up_its_bucket_alone() {
    let database = Database::new();
    let service = start(&database, &["--periods", "1m"]);
    let client = service.client();
    let [first, second] = ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"];
    client.post(&reading_at("a", 1.0, first)).ok();
    eventually("a row is written", || (total(&database, "1m", "a") == "1|1").then_some(()));
    eventually("it is closed", || (client.rows("a", "1m")[0]["state"] == "closed").then_some(()));
    let locked =
        database.session("BEGIN; SELECT FROM bucket_stats WHERE source = 'a' FOR UPDATE; SELECT pg_sleep(600)");
    let holds = "SELECT count(*) FROM pg_locks WHERE relation = 'bucket_stats'::regclass AND mode = 'RowShareLock'";
    eventually("the other session has its lock", || (database.sql(holds) == "1").then_some(()));
    // Both buckets are due at once.
    client.post(&array([reading_at("a", 2.0, first), reading_at("b", 4.0, second)])).ok();
    eventually("the other bucket is written", || (total(&database, "1m", "b") == "1|4").then_some(()));
    let failed = metric(&client, "meanwhile_rollover_errors_total{side=\"sink\"}");
    assert!(failed <= Some(1.0), "not at the same time, but later: {failed:?}");
    assert_eq!(total(&database, "1m", "a"), "1|1");
    eventually("the lock is said", || service.log().contains("another session holds a lock").then_some(()));
    assert_eq!(client.total("a", "1m"), (2, 3.0));
    // The client may go and leave its session behind.
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()");
    drop(locked);
    eventually("its row is written too", || (total(&database, "1m", "a") == "2|3").then_some(()));
}
