//! The schema of the Postgres sink: how it is made, which rights a serving role needs, what is refused at a
//! start, and what `check` and `migrate` say about it.

use crate::postgres_server::{Database, PASSWORD, PostgresServer};
use crate::postgres_world::Runtime;
use crate::servers::temporary;
use crate::service::{command, eventually};
use crate::sink_contract::{block_on, life};
use crate::world::{MINUTE, T0};
use meanwhile::sink::postgres::PostgresSink;
use meanwhile::sink::{Sink, SinkError};
use meanwhile::stats::calendar::Period;
use std::fs::{self, File};
use std::path::Path;
use std::process::Output;

const PAGE: &str = include_str!("../../docs/postgres.md");

/// Exit status, and everything it said.
fn run(words: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command(words).output().unwrap();
    let said = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    assert!(!said.contains(PASSWORD), "{said}");
    (status.code(), said)
}

#[track_caller]
fn check_run(words: &[&str], code: i32, parts: &[&str]) {
    let (got, said) = run(words);
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(got, Some(code), "{said}");
}

fn look(url: &str, code: i32, parts: &[&str]) {
    let store = temporary();
    let store = format!("embedded:{}", store.path().join("store").display());
    check_run(&["check", "--store", &store, "--sink", url], code, parts);
}

fn prepare(url: &str) -> Result<(), SinkError> {
    block_on(PostgresSink::new(url, "postgres".to_owned()).unwrap().prepare())
}

/// Sees that a start is refused for good, and `check` says the same.
fn check_refused(url: &str, part: &str) {
    match prepare(url) {
        Err(SinkError::Refused(reason)) => assert!(reason.contains(part) && !reason.contains(PASSWORD), "{reason}"),
        other => panic!("{part}: {other:?}"),
    }
    look(url, 1, &["failed   sink", part]);
}

/// Sees that a service does not start, and why.
fn check_start_fails(url: &str, parts: &[&str]) {
    let dir = temporary();
    let store = format!("embedded:{}", dir.path().join("store").display());
    let log = dir.path().join("log");
    let mut serve = command(&["serve", "--listen", "127.0.0.1:0", "--store", &store, "--sink", url]);
    let mut service = serve.stderr(File::create(&log).unwrap()).spawn().unwrap();
    let ended = eventually("the service ends", || service.try_wait().unwrap());
    let said = fs::read_to_string(log).unwrap();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(parts.iter().all(|part| said.contains(part)) && !said.contains(PASSWORD), "{said}");
}

fn tables(database: &Database) -> String {
    database.sql("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')")
}

/// A role with the password of all, and its address.
fn role(database: &Database, grants: &str) -> String {
    let role = format!("{}_role", database.name);
    database.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; {}", grants.replace("ROLE", &role)));
    database.url_of(&role)
}

#[test]
fn many_starts_at_once_make_it_once() {
    let database = Database::new();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let url = database.url();
            std::thread::spawn(move || prepare(&url))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    assert_eq!(tables(&database), "bucket_stats dead_letters meanwhile_migrations sources stats");
    assert_eq!(database.sql("SELECT version, success FROM meanwhile_migrations ORDER BY 1"), "1|t\n2|t");
}

#[test]
fn a_person_finds_the_way() {
    let database = Database::new();
    prepare(&database.url()).unwrap();
    let columns = "SELECT string_agg(a.attname, ' ' ORDER BY attnum) FROM pg_attribute a \
                   WHERE attrelid = 'bucket_stats'::regclass AND attnum > 0";
    assert_eq!(
        database.sql(columns),
        "source period bucket_start bucket_end count mean var_pop var_samp min max sum sum_sq state base generation \
         gen_count revision written_at means covar_pop covar_samp corr mins maxs sums sum_products"
    );
    let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'bucket_stats'::regclass AND contype = 'p'";
    assert_eq!(database.sql(key), "PRIMARY KEY (source, period, bucket_start)");
    let uncommented = "SELECT string_agg(attname, ' ') FROM pg_attribute WHERE attrelid = 'bucket_stats'::regclass \
                       AND attnum > 0 AND col_description(attrelid, attnum) IS NULL";
    assert_eq!(database.sql(uncommented), "", "every column has a comment");
    let types = "SELECT string_agg(DISTINCT format_type(atttypid, atttypmod), ', ') FROM pg_attribute \
                 WHERE attrelid = 'bucket_stats'::regclass AND attname IN ('bucket_start', 'bucket_end')";
    assert_eq!(database.sql(types), "timestamp with time zone");
    let sink = PostgresSink::new(&database.url(), "postgres".to_owned()).unwrap();
    block_on(sink.write(vec![life("a", T0, 1, 1, &[1.0, 3.0]), life("b", T0, 1, 1, &[2.0])])).unwrap();
    let stats = "SELECT source, period, bucket_start, count, mean, stddev_pop, round(stddev_samp::numeric, 3) FROM stats ORDER BY 1";
    assert_eq!(
        database.sql(&format!("SET TimeZone = 'UTC'; {stats}")),
        "a|1m|2026-11-20 05:00:00+00|2|2|1|1.414\nb|1m|2026-11-20 05:00:00+00|1|2|0|"
    );
}

/// The statements of the page, between fences, that begin with this.
fn of_the_page(beginning: &str) -> String {
    let fenced = PAGE.split("```").skip(1).step_by(2);
    let found =
        fenced.filter_map(|block| block.strip_prefix("postgresql\n")).find(|block| block.starts_with(beginning));
    found.unwrap_or_else(|| panic!("docs/postgres.md has no block that begins with {beginning:?}")).to_owned()
}

#[test]
fn the_rights_of_the_page_suffice_to_serve_and_nothing_less() {
    let (database, runtime) = (Database::new(), Runtime::new());
    let url = role(&database, "");
    check_refused(&url, "run meanwhile migrate");
    check_start_fails(&url, &["cannot use the sink postgres://***@", "run meanwhile migrate with the role that owns"]);
    check_run(&["migrate", "--sink", &url], 1, &["run meanwhile migrate with the role that owns the database"]);
    check_run(&["migrate", "--sink", &database.url()], 0, &["schema 2, migrations applied: 2"]);
    check_run(&["migrate", "--sink", &database.url()], 0, &["schema 2, migrations applied: 0"]);
    check_refused(&url, "give the role the rights that docs/postgres.md lists");
    let role = format!("{}_role", database.name);
    let grants = of_the_page("GRANT SELECT").replace("meanwhile_serve", &role);
    database.sql(&grants);
    look(&url, 0, &["PostgreSQL ", "schema 2, writable"]);
    prepare(&url).unwrap();
    let sink = PostgresSink::new(&url, "postgres".to_owned()).unwrap();
    let lives = vec![life("a", T0, 1, 1, &[1.0])];
    runtime.0.block_on(sink.write(lives.clone())).unwrap();
    let later = vec![life("a", T0, 2, 2, &[1.0])];
    assert_eq!(runtime.0.block_on(sink.write(later)).unwrap().written, 1);
    assert_eq!(runtime.0.block_on(sink.sources("", None, 9)).unwrap().len(), 1);
    for (right, table) in grants
        .lines()
        .filter_map(|line| {
            let (rights, table) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
            Some(
                rights.split(", ").map(move |right| (right.to_owned(), table.split(" TO ").next().unwrap().to_owned())),
            )
        })
        .flatten()
    {
        database.sql(&format!("REVOKE {right} ON {table} FROM {role}"));
        check_refused(&url, "permission denied");
        database.sql(&format!("GRANT {right} ON {table} TO {role}"));
    }
    look(&url, 0, &["writable"]);
    let refused = runtime.0.block_on(sink.forget("a")).unwrap_err().to_string();
    assert!(refused.contains("give the role the rights that docs/postgres.md lists"), "{refused}");
    database.sql(&of_the_page("GRANT DELETE").replace("meanwhile_serve", &role));
    assert_eq!(runtime.0.block_on(sink.retain(Period::Seconds(60), T0)).unwrap(), 0);
    assert_eq!(runtime.0.block_on(sink.retain(Period::Seconds(60), T0 + MINUTE)).unwrap(), 1);
    assert_eq!(runtime.0.block_on(sink.forget("a")).unwrap(), 0);
}

#[test]
fn what_could_lose_rows_is_refused() {
    let database = Database::new();
    prepare(&database.url()).unwrap();
    let url = database.url();
    let check = |hurt: &str, mend: &str, part: &str| {
        database.sql(hurt);
        check_refused(&url, part);
        database.sql(mend);
        look(&url, 0, &["writable"]);
    };
    for table in ["bucket_stats", "sources", "dead_letters"] {
        let (hurt, mend) = (format!("ALTER TABLE {table} SET UNLOGGED"), format!("ALTER TABLE {table} SET LOGGED"));
        check(&hurt, &mend, &format!("a crash of the server would empty {table}: ALTER TABLE ... SET LOGGED"));
    }
    check(
        "UPDATE meanwhile_migrations SET version = 99 WHERE version = 2",
        "UPDATE meanwhile_migrations SET version = 2 WHERE version = 99",
        "version 99, this meanwhile knows 2: run the newer one",
    );
    check(
        "CREATE TABLE kept AS SELECT * FROM meanwhile_migrations; UPDATE meanwhile_migrations SET checksum = '\\x00'",
        "UPDATE meanwhile_migrations m SET checksum = kept.checksum FROM kept WHERE kept.version = m.version",
        "was made by another migration 1",
    );
    check(
        "ALTER TABLE bucket_stats RENAME revision TO version",
        "ALTER TABLE bucket_stats RENAME version TO revision",
        "put back what was changed",
    );
    check(
        "ALTER TABLE bucket_stats DROP CONSTRAINT bucket_stats_pkey",
        "ALTER TABLE bucket_stats ADD PRIMARY KEY (source, period, bucket_start)",
        "the table has lost its primary key",
    );
    check(
        "DROP VIEW stats; ALTER TABLE bucket_stats RENAME TO elsewhere",
        "ALTER TABLE elsewhere RENAME TO bucket_stats",
        "run meanwhile migrate",
    );
    assert_eq!(database.sql("SELECT count(*) FROM bucket_stats"), "0", "looks write nothing");
}

#[test]
fn a_server_without_fsync_or_of_another_encoding_is_refused() {
    let server = PostgresServer::start(&["fsync=off"]);
    check_refused(&server.database().url(), "fsync = off");
    drop(server);
    let database = Database::new();
    let latin = format!("{}_latin", database.name);
    database.sql(&format!("CREATE DATABASE {latin} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"));
    check_refused(&database.url().replace(&database.name, &latin), "encoding LATIN1");
}

#[test]
fn check_changes_nothing_and_says_what_is_there() {
    let database = Database::new();
    look(&database.url(), 0, &["sink postgres://***@127.0.0.1:", "empty, the schema is made at the first start"]);
    assert_eq!(tables(&database), "");
    database.sql("CREATE TABLE sources (mine text)");
    look(&database.url(), 1, &["it has a table or view sources that meanwhile did not make"]);
    database.sql("DROP TABLE sources");
    database.sql(&format!("ALTER DATABASE {} SET synchronous_commit = off", database.name));
    look(&database.url(), 0, &["warning", "synchronous_commit is off"]);
    look(&database.url().replace(&database.name, "nowhere"), 1, &["\"nowhere\" does not exist", "create the database"]);
    look(&database.url().replace(PASSWORD, "wrong"), 1, &["password authentication failed", "are user and password"]);
    let closed = format!("postgres://owner:{PASSWORD}@127.0.0.1:1/db");
    look(&closed, 1, &["Connection refused", "is PostgreSQL running there"]);
    check_run(&["migrate", "--sink", &closed], 1, &["Connection refused", "postgres://***@127.0.0.1:1/db"]);
    check_run(&["migrate"], 2, &["the sink csv:./meanwhile-data/csv has no schema"]);
}

/// Whatever its role or database says, a session of the service waits for the disk.
#[test]
fn sessions_wait_for_the_disk() {
    let server = PostgresServer::start(&[]);
    let database = server.database();
    prepare(&database.url()).unwrap();
    let recorder = "CREATE TABLE seen (setting text); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$; \
         CREATE TRIGGER note BEFORE INSERT ON bucket_stats FOR EACH ROW EXECUTE FUNCTION note()";
    database.sql(recorder);
    for (revision, setting, expected) in [(1, "off", "on"), (2, "remote_apply", "remote_apply")] {
        database.sql(&format!("ALTER ROLE owner SET synchronous_commit = {setting}; TRUNCATE seen"));
        let sink = PostgresSink::new(&database.url(), "postgres".to_owned()).unwrap();
        block_on(sink.write(vec![life("a", T0, 1, revision, &[1.0])])).unwrap();
        assert_eq!(database.sql("SELECT setting FROM seen"), expected);
    }
}

#[test]
fn the_password_may_stand_in_a_file_of_its_own_and_is_never_shown() {
    let (database, dir) = (Database::new(), temporary());
    let secret = dir.path().join("secret");
    write_secret(&secret, &database.url());
    let path = secret.to_str().unwrap();
    check_run(&["migrate", "--sink-file", path], 0, &["sink postgres://***@127.0.0.1", "schema 2"]);
    check_run(&["config", "--sink-file", path], 0, &["postgres://***@127.0.0.1", &database.name]);
    check_run(&["config", "--sink", &database.url()], 0, &["postgres://***@127.0.0.1"]);
    write_secret(&secret, PASSWORD);
    check_run(
        &["config", "--sink-file", path],
        2,
        &["what it holds is no address of a sink", "postgres://USER:PASSWORD@HOST"],
    );
    check_run(&["config", "--sink", &format!("{}?sslmode=verify", database.url())], 2, &["no sslmode", "verify-full"]);
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}
