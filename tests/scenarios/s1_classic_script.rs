//! Scenario 1: The classic script, `record.lua`, beside the service on the same readings.
//!
//! Where both are right they say the same line. The script is wrong about numbers that are large for how little they
//! differ, loses readings where it runs outside of Redis, and never writes the last hour of a source that falls silent.

use super::stage::{file, server, tell};
use crate::http::{array, reading_at};
use crate::servers::RedisServer;
use crate::service::{Service, eventually};
use std::fs;
use std::thread::scope;

/// 2026-01-05T10:00:00Z.
const TEN: u64 = 1_767_607_200;
const WRITERS: usize = 8;
const EACH: usize = 200;

/// The classic script, loaded.
struct Classic {
    connection: redis::Connection,
    script: redis::Script,
}

impl Classic {
    fn load(redis: &RedisServer) -> Self {
        let connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        Self { connection, script: redis::Script::new(&fs::read_to_string(file("record.lua")).unwrap()) }
    }

    fn record(&mut self, source: &str, value: f64, timestamp: u64) {
        let mut call = self.script.key(source);
        call.arg(value).arg(timestamp).invoke::<i64>(&mut self.connection).unwrap();
    }

    /// The same as the script does, by a program that is not in Redis: it asks, adds, and writes back.
    fn record_from_outside(&mut self, source: &str, value: f64) {
        let field = |name: &str, connection: &mut redis::Connection| -> f64 {
            let known: Option<f64> = redis::cmd("HGET").arg(source).arg(name).query(connection).unwrap();
            known.unwrap_or(0.0)
        };
        let [sigma, squares, counter] =
            ["sigma", "squares_sigma", "counter"].map(|name| field(name, &mut self.connection));
        let mut set = redis::cmd("HSET");
        set.arg(source).arg("sigma").arg(sigma + value).arg("squares_sigma").arg(squares + value * value);
        set.arg("counter").arg(counter + 1.0).query::<i64>(&mut self.connection).unwrap();
    }
}

/// Sends readings of the hour from ten to both.
fn send(classic: &mut Classic, service: &Service, source: &str, values: &[f64]) {
    for (n, value) in (0..).zip(values) {
        classic.record(source, *value, TEN + n);
    }
    let posted = (0..).zip(values).map(|(n, value)| reading_at(source, *value, &format!("2026-01-05T10:00:{n:02}Z")));
    service.client().post(&array(posted)).ok();
}

/// What the classic script has written.
fn written(redis: &RedisServer) -> Vec<String> {
    redis.ask(&["LRANGE", "written", "0", "-1"]).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn line(service: &Service, source: &str) -> String {
    service.client().get(&format!("/v1/stats?source={source}&period=1h&format=text")).ok().body.trim().to_owned()
}

#[test]
fn the_classic_script_beside_the_service() {
    // Two servers, so that neither is in the other's way.
    let [theirs, ours] = [(); 2].map(|()| RedisServer::start_durable());
    let service = server(&ours, &["--periods", "1h", "--grace", "0s", "--lateness", "0s"]);
    let mut classic = Classic::load(&theirs);

    println!("1. The classic script and this service, on the same readings");
    send(&mut classic, &service, "kitchen", &[21.5, 22.0, 20.5, 23.0]);
    // The script writes an hour when it sees a reading of the next one.
    classic.record("kitchen", 22.5, TEN + 3_600);
    assert_eq!(written(&theirs), ["kitchen, 21.75, 0.8125"]);
    assert_eq!(line(&service, "kitchen"), "kitchen, 21.75, 0.8125");
    tell("Temperatures of a kitchen: both write the line `kitchen, 21.75, 0.8125`.");

    send(&mut classic, &service, "meter", &[1.75e9, 1.75e9 + 3.0, 1.75e9 + 3.0, 1.75e9 + 1.0]);
    classic.record("meter", 1.75e9, TEN + 3_600);
    assert_eq!(written(&theirs)[1], "meter, 1750000001.75, -512");
    assert_eq!(line(&service, "meter"), "meter, 1750000001.75, 1.6875");
    tell("A meter that stands at 1,750,000,000 and moves by 3: the script's variance is -512, the service's 1.6875.");

    let total = WRITERS * EACH;
    scope(|scope| {
        for writer in 0..WRITERS {
            let (theirs, service) = (&theirs, &service);
            scope.spawn(move || {
                let mut classic = Classic::load(theirs);
                (0..EACH).for_each(|_| classic.record_from_outside("door", 1.0));
                (0..EACH).for_each(|_| classic.record("gate", 1.0, TEN));
                for n in 0..EACH / 20 {
                    let readings = array((0..20).map(|_| reading_at("door", 1.0, "2026-01-05T10:00:00Z")));
                    service.client().post_keyed(&format!("{writer}-{n}"), &readings).ok();
                }
            });
        }
    });
    let counter = |source: &str| theirs.ask(&["HGET", source, "counter"]).trim().parse::<f64>().unwrap();
    let (outside, inside) = (counter("door"), counter("gate"));
    assert!(outside < total as f64, "eight writers that ask, add and write back were never in each other's way");
    assert_eq!(inside, total as f64);
    assert_eq!(service.client().total("door", "1h"), (total as u64, total as f64));
    tell(&format!(
        "{WRITERS} writers with {total} readings of 1: asked for, added up and written back by the writers, {outside} are"
    ));
    tell(&format!("left; as a script in Redis all {inside}; over HTTP, each batch under its key, all {total}."));

    send(&mut classic, &service, "cellar", &[7.0, 9.0]);
    eventually("the hour of the cellar is closed", || {
        let rows = service.client().rows("cellar", "1h");
        (rows.len() == 1 && rows[0]["state"] == "closed").then_some(())
    });
    assert_eq!(line(&service, "cellar"), "cellar, 8.0, 1.0");
    assert!(!written(&theirs).iter().any(|line| line.starts_with("cellar")));
    tell(
        "A source that falls silent: the service writes its hour by itself, `cellar, 8.0, 1.0`; the script never does.",
    );
}
