//! What PostgreSQL can do to the sink: locks, deadlocks, cut connections, a server that stalls, takes no writes
//! or has no connection free. Each time: what the sink says, and that the rows are exactly right once it
//! is over.
//!
//! Refused rows are in `postgres_refused.rs`, the whole service through such faults in `postgres_service.rs`.

use crate::postgres_server::{Database, PASSWORD, PostgresServer};
use crate::postgres_world::{Runtime, prepare, written};
use crate::servers::free_port;
use crate::service::eventually;
use crate::sink_contract::life;
use crate::world::T0;
use meanwhile::sink::{SinkError, WriteReport};
use meanwhile::stats::row::LifeRow;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The other session takes the last row first, and the first row once the sink waits for the last.
#[test]
fn a_deadlock_is_survived() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    let lives = |revision: i64| ["a", "b", "c"].map(|id| life(id, T0, 1, revision, &[1.0]));
    runtime.write(&sink, &lives(1)).unwrap();
    let hostile = database.session(
        "SET deadlock_timeout = '1h'; DO $$ DECLARE waits boolean := false; BEGIN \
         PERFORM 1 FROM bucket_stats WHERE source = 'c' FOR UPDATE; \
         WHILE NOT waits LOOP PERFORM pg_sleep(0.01); PERFORM pg_stat_clear_snapshot(); \
         SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock') INTO waits; \
         END LOOP; PERFORM 1 FROM bucket_stats WHERE source = 'a' FOR UPDATE; END $$",
    );
    eventually("the other session has its lock", || locks(&database).then_some(()));
    assert_eq!(runtime.write(&sink, &lives(2)).unwrap(), written(3));
    let deadlocks = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{}'", database.name);
    eventually("the deadlock is counted", || (database.sql(&deadlocks) == "1").then_some(()));
    drop(hostile);
}

/// Whether a session has a row lock in a transaction of its own.
fn locks(database: &Database) -> bool {
    let held = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'relation' AND relation = 'bucket_stats'::regclass \
                AND mode = 'RowShareLock' AND granted)";
    database.sql(held) == "t"
}

#[test]
fn a_lock_of_another_session_is_waited_for_and_then_said() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    runtime.write(&sink, &[life("a", T0, 1, 1, &[1.0])]).unwrap();
    let hostile =
        database.session("BEGIN; SELECT FROM bucket_stats WHERE source = 'a' FOR UPDATE; SELECT pg_sleep(600)");
    eventually("the other session has its lock", || locks(&database).then_some(()));
    let lives = [life("a", T0, 1, 2, &[1.0])];
    let error = runtime.write(&sink, &lives).unwrap_err();
    assert!(matches!(error, SinkError::Refused(_)), "the rows of other buckets can be written: {error:?}");
    let error = error.to_string();
    assert!(error.contains("lock timeout") && error.contains("another session holds a lock: pg_locks"), "{error}");
    assert_eq!(runtime.rows(&sink, "a").unwrap()[0].revision, 1, "questions are answered meanwhile");
    end_other_sessions(&database);
    drop(hostile);
    assert_eq!(runtime.write(&sink, &lives).unwrap(), written(1));
}

#[test]
fn a_lock_on_the_table_is_one_on_all_buckets() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    let lives = [life("a", T0, 1, 1, &[1.0])];
    runtime.write(&sink, &lives).unwrap();
    let hostile = database.session("BEGIN; LOCK TABLE bucket_stats IN SHARE MODE; SELECT pg_sleep(600)");
    let held = "SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'ShareLock' AND relation = 'bucket_stats'::regclass)";
    eventually("the other session has its lock", || (database.sql(held) == "t").then_some(()));
    let lives = [life("a", T0, 1, 2, &[1.0])];
    runtime.check_away(&sink, &lives, &["lock timeout", "another session holds a lock: pg_locks"]);
    end_other_sessions(&database);
    drop(hostile);
    assert_eq!(runtime.write(&sink, &lives).unwrap(), written(1));
}

fn end_other_sessions(database: &Database) {
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
}

#[test]
fn a_server_that_takes_no_writes_is_left_for_one_that_does() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    let read_only = |on: &str| {
        database.sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = {on}", database.name));
        end_other_sessions(&database);
    };
    let lives = [life("a", T0, 1, 1, &[1.0])];
    read_only("on");
    runtime.check_away(&sink, &lives, &["read-only transaction", "this server takes no writes"]);
    assert_eq!(runtime.rows(&sink, "a").unwrap(), [], "it still answers");
    database.sql(&format!("BEGIN READ WRITE; ALTER DATABASE {} RESET ALL; COMMIT", database.name));
    assert_eq!(runtime.write(&sink, &lives).unwrap(), written(1));
}

#[test]
fn a_standby_is_not_written_to() {
    let (mut server, runtime) = (PostgresServer::start(&[]), Runtime::new());
    let database = server.database();
    let sink = runtime.open(&database);
    let lives = [life("a", T0, 1, 1, &[1.0])];
    runtime.write(&sink, &lives).unwrap();
    server.kill();
    server.set_standby(true);
    server.restart();
    runtime.check_away(&sink, &lives, &["this server is a standby", "the address of its primary"]);
    assert_eq!(runtime.rows(&sink, "a").unwrap().len(), 1, "it still answers");
    server.kill();
    server.set_standby(false);
    server.restart();
    assert_eq!(runtime.write(&sink, &[life("a", T0, 1, 2, &[1.0])]).unwrap(), written(1));
}

/// Whatever the order in which they are given the rows.
#[test]
fn writers_do_not_deadlock_each_other() {
    let database = Database::new();
    prepare(&database);
    let writers = [false, true].map(|backwards| {
        let database = database.clone();
        thread::spawn(move || {
            let runtime = Runtime::new();
            let sink = runtime.open(&database);
            for revision in 1..=20 {
                let mut lives: Vec<LifeRow> =
                    (0..2_000).map(|n| life(&format!("s{n}"), T0, 1, revision, &[1.0])).collect();
                if backwards {
                    lives.reverse();
                }
                runtime.write(&sink, &lives).unwrap();
            }
        })
    });
    for writer in writers {
        writer.join().unwrap();
    }
    let deadlocks = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{}'", database.name);
    assert_eq!(database.sql(&deadlocks), "0");
    assert_eq!(database.sql("SELECT count(*), max(revision) FROM bucket_stats"), "2000|20");
}

#[test]
fn no_connection_free() {
    let (database, runtime) = (Database::new(), Runtime::new());
    prepare(&database);
    let role = format!("{}_role", database.name);
    database.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 1; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    let sink = runtime.open_at(&database.url_of(&role));
    let lives = [life("a", T0, 1, 1, &[1.0])];
    assert_eq!(runtime.write(&sink, &lives).unwrap(), written(1));
    let error = runtime.rows(&sink, "a").unwrap_err().to_string();
    assert!(error.contains("too many connections") && error.contains("the service needs five"), "{error}");
    database.sql(&format!("ALTER ROLE {role} CONNECTION LIMIT 5"));
    assert_eq!(runtime.rows(&sink, "a").unwrap().len(), 1);
}

/// Passes everything on until a client commits: then the server is asked, and nobody hears the answer.
fn proxy_that_cuts_at_commit(server: u16, cuts: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let (port, left) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(cuts)));
    let remaining = Arc::clone(&left);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", server))) else { return };
            let left = Arc::clone(&left);
            let (answers, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let deaf = Arc::new(AtomicUsize::new(0));
            let hears = Arc::clone(&deaf);
            thread::spawn(move || pass(answers, to_client, |_| hears.load(Ordering::SeqCst) == 0));
            thread::spawn(move || {
                pass(client, server, |bytes| {
                    let commits = bytes.windows(7).any(|word| word == b"COMMIT\0");
                    if commits && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                        deaf.store(1, Ordering::SeqCst);
                    }
                    true
                });
            });
        }
    });
    (port, remaining)
}

/// Copies bytes while `go_on` likes them; what it does not like is the end of both connections.
fn pass(mut from: TcpStream, mut to: TcpStream, go_on: impl Fn(&[u8]) -> bool) {
    let mut buffer = [0; 8_192];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !go_on(&buffer[..n]) || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_connection_cut_at_commit_counts_nothing_twice() {
    let (database, runtime) = (Database::new(), Runtime::new());
    prepare(&database);
    let (proxy, left) = proxy_that_cuts_at_commit(database.port, 1);
    let sink = runtime.open_at(&database.url().replace(&format!(":{}/", database.port), &format!(":{proxy}/")));
    let (first, late) = ([life("a", T0, 1, 1, &[1.0])], [life("a", T0, 2, 2, &[2.0])]);
    let same = WriteReport { same: 1, ..WriteReport::default() };
    assert_eq!(runtime.write(&sink, &first).unwrap(), same, "the first attempt was committed, which nobody heard");
    assert_eq!(left.load(Ordering::SeqCst), 0, "the connection was cut");
    left.store(1, Ordering::SeqCst);
    assert_eq!(runtime.write(&sink, &late).unwrap(), same);
    let row = &runtime.rows(&sink, "a").unwrap()[0];
    assert_eq!((row.state.count, row.state.sum.hi, row.base.as_ref().unwrap().count), (2.0, 3.0, 1.0));
}

#[test]
fn sessions_that_are_ended_all_the_time_lose_nothing() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let sink = runtime.open(&database);
    let hostile = database.session(
        "DO $$ BEGIN LOOP PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'meanwhile'; PERFORM pg_sleep(0.1); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$",
    );
    for generation in 1..=30 {
        let lives: Vec<LifeRow> = (0..50).map(|n| life(&format!("s{n}"), T0, generation, 1, &[1.0])).collect();
        eventually("the rows are written", || runtime.write(&sink, &lives).ok());
    }
    drop(hostile);
    assert_eq!(
        database.sql("SELECT count(*), min(count), max(count), min(sum), max(sum) FROM bucket_stats"),
        "50|30|30|30|30"
    );
}

#[test]
fn a_server_that_stalls_is_given_up_and_taken_up_again() {
    let (server, runtime) = (PostgresServer::start(&[]), Runtime::new());
    let sink = runtime.open(&server.database());
    let lives = [life("a", T0, 1, 1, &[1.0])];
    runtime.write(&sink, &lives).unwrap();
    server.signal("STOP");
    runtime.check_away(&sink, &[life("a", T0, 1, 2, &[1.0])], &["no answer within"]);
    assert!(runtime.rows(&sink, "a").unwrap_err().to_string().contains("no answer within"));
    server.signal("CONT");
    assert_eq!(runtime.write(&sink, &[life("a", T0, 1, 2, &[1.0])]).unwrap(), written(1));
    assert_eq!(runtime.rows(&sink, "a").unwrap()[0].revision, 2);
}
