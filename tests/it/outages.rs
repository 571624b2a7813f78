//! What the service depends on stops, stalls, forgets its scripts, cuts connections or is full: it
//! says so, goes on by itself, and each reading is counted once.
//!
//! Crashes in the middle of the work are in `crashes.rs`.

use crate::http::{Client, array, reading};
use crate::service::{On, Service, eventually};
use crate::sink_files;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;
use tempfile::TempDir;

/// Requests while the store is away.
const REFUSED: u64 = 20_000;
/// What they may leave behind in memory: less than 2 KiB each would come to more.
const GROWTH_KIB: u64 = 30 * 1024;
const WRITERS: u64 = 4;
/// Sources, so that a second's rows do not fit into what is left of a page of the disk.
const WIDTH: usize = 40;
/// Longer than the service waits for one answer of Redis, so that outcomes become unknown.
const STALL: Duration = Duration::from_secs(7);

/// Clients that post until told to stop.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    batches: Arc<AtomicU64>,
    threads: Vec<JoinHandle<u64>>,
}

impl Writers {
    /// `post` sends a batch of one reading each; the number names it.
    pub(crate) fn start(service: &Service, post: fn(&Client, u64)) -> Self {
        let (stop, batches) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..WRITERS)
            .map(|writer| {
                let (client, stop, batches) = (service.client(), Arc::clone(&stop), Arc::clone(&batches));
                thread::spawn(move || {
                    let mut posted = 0;
                    while !stop.load(Ordering::SeqCst) {
                        post(&client, writer * 1_000_000 + posted);
                        posted += 1;
                        batches.fetch_add(1, Ordering::SeqCst);
                    }
                    posted
                })
            })
            .collect();
        let writers = Self { stop, batches, threads };
        writers.wait_for(20);
        writers
    }

    /// Until so many more batches are through.
    pub(crate) fn wait_for(&self, more: u64) {
        let enough = self.batches.load(Ordering::SeqCst) + more;
        eventually("batches go through", || (self.batches.load(Ordering::SeqCst) >= enough).then_some(()));
    }

    /// Batches that were acknowledged.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().expect("a writer has failed, see above")).sum()
    }
}

pub(crate) fn keyed(client: &Client, number: u64) {
    client.post_until_counted(&format!("batch-{number}"), &reading("a", 1.0));
}

fn unkeyed(client: &Client, _number: u64) {
    client.post(&reading("a", 1.0)).ok();
}

#[test]
fn redis_is_away_and_comes_back() {
    let mut service = Service::start(On::Redis, &["--grace", "200ms"]);
    let client = service.client();
    client.post_keyed("before", &reading("a", 1.0)).ok();
    service.redis().kill();
    // What was on its way is not known to be counted or not, so its client waits; others are told.
    let doubtful = {
        let client = client.clone();
        thread::spawn(move || client.post_until_counted("doubtful", &reading("a", 2.0)))
    };
    eventually("the door is shut", || service.log().contains("requests are turned away").then_some(()));
    let refused = client.post_keyed("refused", &reading("a", 4.0));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.json()["type"], "/problems/not-applied");

    let before = service.resident_kib();
    let refusals = || {
        let client = service.client();
        move || (0..REFUSED / WRITERS).filter(|_| client.post(&reading("a", 8.0)).status == 503).count() as u64
    };
    let threads: Vec<_> = (0..WRITERS).map(|_| thread::spawn(refusals())).collect();
    let refused: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let after = service.resident_kib();
    assert_eq!(refused, REFUSED);
    assert!(after < before + GROWTH_KIB, "{before} KiB before, {after} KiB after {REFUSED} requests");

    service.redis().restart();
    doubtful.join().unwrap();
    client.post_until_counted("refused", &reading("a", 4.0));
    for (key, value) in [("before", 1.0), ("doubtful", 2.0), ("refused", 4.0)] {
        assert_eq!(client.post_keyed(key, &reading("a", value)).ok().json()["duplicate"], true, "{key}");
    }
    assert_eq!(client.total("a", "1d"), (3, 7.0));
    assert!(service.log().contains("answers again"), "{}", service.log());
}

#[test]
fn redis_stalls() {
    let mut service = Service::start(On::Redis, &["--grace", "200ms"]);
    let writers = Writers::start(&service, keyed);
    service.redis().signal("STOP");
    sleep(STALL);
    service.redis().signal("CONT");
    writers.wait_for(20);
    let batches = writers.finish();
    assert_eq!(service.client().total("a", "1d"), (batches, batches as f64));
}

#[test]
fn redis_forgets_its_scripts() {
    let mut service = Service::start(On::Redis, &["--periods", "1s,1m,1h", "--grace", "50ms", "--lateness", "100ms"]);
    let writers = Writers::start(&service, unkeyed);
    for _ in 0..10 {
        service.redis().cli(&["SCRIPT", "FLUSH"]);
        writers.wait_for(20);
    }
    let batches = writers.finish();
    assert_eq!(service.client().total("a", "1h"), (batches, batches as f64));
    eventually("the rollover goes on too", || {
        (sink_files::total(&service.sink(), "1s", "a").0 == batches).then_some(())
    });
    assert!(!service.log().contains("ERROR") && !service.log().contains("WARN"), "{}", service.log());
}

fn redis_cuts_connections(post: fn(&Client, u64)) {
    let mut service = Service::start(On::Redis, &["--periods", "1s,1m,1h", "--grace", "50ms", "--lateness", "100ms"]);
    let writers = Writers::start(&service, post);
    for _ in 0..20 {
        service.redis().cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        writers.wait_for(10);
    }
    let batches = writers.finish();
    let client = service.client();
    for period in ["1s", "1m", "1h"] {
        assert_eq!(client.total("a", period), (batches, batches as f64), "{period}");
    }
}

#[test]
fn redis_cuts_connections_keyed() {
    redis_cuts_connections(keyed);
}

/// The service's own sending again never counts twice.
#[test]
fn redis_cuts_connections_unkeyed() {
    redis_cuts_connections(unkeyed);
}

/// A small file system in memory, which only root can mount.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then(|| Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the space there is.
    pub(crate) fn fill(&self) {
        let filled = std::fs::write(self.path().join("filler"), vec![0; 4 << 20]);
        assert!(filled.is_err(), "a disk that takes everything");
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, should a failed test still have files open there.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn the_disk_of_the_sink_is_full(on: On) {
    let Some(disk) = SmallDisk::mount("256k") else {
        println!("SKIPPED: only root can mount the small disk that this test fills");
        return;
    };
    let sink = format!("csv:{}", disk.path().join("csv").display());
    let flags = ["--sink", &sink, "--periods", "1s,1m,1h", "--grace", "50ms", "--lateness", "100ms"];
    let service = Service::start(on, &flags);
    let client = service.client();
    let mut posted = 0;
    let mut post = || {
        client.post(&array((0..WIDTH).map(|i| reading(&format!("s{i}"), 1.0)))).ok();
        posted += 1;
        posted
    };
    post();
    eventually("rows are written", || (sink_files::total(&service.sink(), "1s", "s0").0 == 1).then_some(()));
    disk.fill();
    eventually("the log says that the disk is full", || {
        post();
        service.log().contains("the rollover waits, finished buckets stay in the store").then_some(())
    });
    assert!(service.log().contains("No space left on device"), "{}", service.log());
    let all = post();
    assert_eq!(client.total("s0", "1h"), (all, all as f64), "answers go on");
    disk.free();
    let written = |i| sink_files::total(&service.sink(), "1s", &format!("s{i}"));
    eventually("the rows are written", || (0..WIDTH).all(|i| written(i) == (all, all as f64)).then_some(()));
    assert!(sink_files::lines(&service.sink(), "1s").len() > WIDTH, "more than the row before the disk was full");
    assert_eq!(client.total("s0", "1s"), (all, all as f64));
}

#[test]
fn the_disk_of_the_sink_is_full_embedded() {
    the_disk_of_the_sink_is_full(On::Embedded);
}

#[test]
fn the_disk_of_the_sink_is_full_redis() {
    the_disk_of_the_sink_is_full(On::Redis);
}
