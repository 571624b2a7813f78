//! Instances that go while clients listen and senders send: everybody comes back to another one, and the books agree.
//!
//! Each sender repeats a batch under its key until it is counted; each client goes on behind the last `closed` event it
//! has heard. So the counts of all rows must be those of the senders, and every client must have heard of every row in
//! its last version.

use super::Site;
use super::crowd::Crowd;
use super::front::Front;
use super::machine::Kind;
use super::posts::{IMPATIENCE, Posts, post};
use crate::http::{Client, reading};
use crate::service::{Service, eventually};
use meanwhile::clock;
use serde_json::Value;
use std::time::Duration;

/// How it went.
struct Figures {
    /// The longest time a client was without a connection.
    away: Duration,
    counted: u64,
    repeated: u64,
    /// Readings counted, over those acknowledged: as it should be, zero.
    doubled: i64,
    holes: u64,
    /// Posts that were counted each second.
    rate: f64,
}

/// Lets `fault` happen to the instances behind a proxy, under so many clients and posts a second, and looks at the books.
fn survive(kind: Kind, clients: usize, each_second: u64, fault: impl FnOnce(&mut Site, &Crowd, &Posts)) -> Figures {
    let mut site = Site::start(3);
    let front = Front::start(kind, &site.ports());
    let crowd = Crowd::gather(&front.url(), clients, Some("a"));
    let started = clock::instant();
    let posts = Posts::start(&front.url(), each_second);
    crowd.have_heard();
    posts.go_on(each_second);
    fault(&mut site, &crowd, &posts);
    posts.go_on(2 * each_second);
    let elapsed = started.elapsed();
    let (counted, repeated) = posts.finish();
    let client = site.nodes.iter().find(|node| node.runs()).expect("one that is left").client();
    let rows = closed_rows(&client);
    eventually("everybody has heard of every row", || (crowd.missed(&rows) == 0).then_some(()));
    let total: u64 = rows.iter().map(|row| row["count"].as_u64().unwrap()).sum();
    let away = crowd.books().map(|books| books.away).max().unwrap();
    let holes = crowd.books().map(|books| books.holes).sum();
    let (doubled, rate) = (total.cast_signed() - counted.cast_signed(), counted as f64 / elapsed.as_secs_f64());
    Figures { away, counted, repeated, doubled, holes, rate }
}

/// The rows of all seconds, once they are closed.
fn closed_rows(client: &Client) -> Vec<Value> {
    eventually("all seconds are closed", || {
        let rows = client.rows("a", "1s");
        rows.iter().all(|row| row["state"] == "closed").then_some(rows)
    })
}

/// All clients are connected, to instances that are there.
fn all_are_back(site: &Site, crowd: &Crowd) {
    let alive: Vec<String> = site.nodes.iter().filter(|node| node.runs()).map(name).collect();
    eventually("all clients are back", || {
        crowd.all(|books| books.instance.as_ref().is_some_and(|instance| alive.contains(instance)))
    });
}

fn name(node: &Service) -> String {
    node.client().get("/healthz").headers["x-instance"].clone()
}

fn kill_one(site: &mut Site, crowd: &Crowd, _: &Posts) {
    site.nodes[1].kill();
    all_are_back(site, crowd);
}

#[track_caller]
fn check(figures: &Figures) {
    let Figures { away, counted, repeated, doubled, holes, rate } = figures;
    println!("{counted} posts counted ({rate:.0}/s), {repeated} repeated; clients away for {away:?} at most");
    assert_eq!((*doubled, *holes), (0, 0), "{counted} counted, {repeated} repeated");
}

#[test]
fn an_instance_behind_haproxy_is_killed() {
    check(&survive(Kind::Haproxy, 200, 200, kill_one));
}

#[test]
fn an_instance_behind_nginx_is_killed() {
    check(&survive(Kind::Nginx, 200, 200, kill_one));
}

/// `make balanced`: the figures of docs/deployment.md.
#[test]
#[ignore = "takes a machine of its own; make balanced runs it"]
fn an_instance_is_killed_under_a_thousand_clients() {
    for kind in [Kind::Haproxy, Kind::Nginx] {
        let figures = survive(kind, 1_000, 2_000, kill_one);
        print!("{}: ", kind.file());
        check(&figures);
        assert!(figures.away < Duration::from_secs(5), "{:?}", figures.away);
    }
}

/// Every instance is stopped and started again, one after the other, as for an upgrade.
#[test]
fn a_rolling_restart_loses_nothing() {
    check(&survive(Kind::Haproxy, 100, 200, |site, crowd, posts| {
        for n in 0..site.nodes.len() {
            site.nodes[n].stop();
            posts.go_on(50);
            site.nodes[n].start_again();
            all_are_back(site, crowd);
        }
    }));
}

/// Nobody has to repeat what the proxy could not send; it is sent to another instance, even a POST.
#[test]
fn what_cannot_be_sent_goes_to_another_instance() {
    // Too late to be of help.
    let checks = [("check inter 1s", "check inter 1h")];
    for (kind, changes) in [(Kind::Nginx, &[][..]), (Kind::Haproxy, &checks)] {
        let mut site = Site::start(3);
        let front = Front::changed(kind, &site.ports(), changes);
        let client = Client::new(front.url());
        site.nodes[1].kill();
        for n in 0..30 {
            let cookie = format!("client=k{n}");
            let headers = [("Content-Type", "application/json"), ("Cookie", &cookie)];
            let answer = client.try_post("", &headers, reading("a", 1.0).as_bytes()).expect("an answer");
            assert_eq!(answer.status, 200, "{kind:?} {n}: {answer:?}");
        }
        assert_eq!(site.nodes[0].client().total("a", "1m"), (30, 30.0));
    }
}

/// Who does not answer is found by the checks, before a client has to find it.
#[test]
fn an_instance_that_does_not_answer_is_left_out() {
    let site = Site::start(3);
    let names = site.instances();
    let front = Front::start(Kind::Haproxy, &site.ports());
    let client = Client::new(front.url());
    let asked = |n: usize| client.get(&format!("/healthz?client=k{n}"));
    let of_two = (0..30).find(|&n| asked(n).ok().headers["x-instance"] == names[1]).expect("a client of the second");
    site.nodes[1].signal("STOP");
    let impatient = Client::impatient(front.url(), IMPATIENCE);
    eventually("its clients are with another", || {
        let answer = impatient.try_get(&format!("/healthz?client=k{of_two}")).ok()?;
        // For a moment it may still answer.
        (answer.status == 200 && answer.headers["x-instance"] != names[1]).then_some(())
    });
    for n in 0..30 {
        assert_ne!(asked(n).ok().headers["x-instance"], names[1]);
    }
    site.nodes[1].signal("CONT");
    eventually("its clients are its own again", || (asked(of_two).headers["x-instance"] == names[1]).then_some(()));
}

/// The spare instance has nothing to do until all the others are gone.
#[test]
fn a_spare_instance_takes_over() {
    let mut site = Site::start(4);
    let names = site.instances();
    let spare = format!("server spare 127.0.0.1:{} backup", site.ports()[3]);
    let front = Front::changed(Kind::Haproxy, &site.ports()[..3], &[("# server spare 127.0.0.1:8084 backup", &spare)]);
    let client = Client::new(front.url());
    for n in 0..30 {
        assert_ne!(client.get(&format!("/healthz?client=k{n}")).ok().headers["x-instance"], names[3]);
    }
    site.nodes[..3].iter_mut().for_each(Service::kill);
    eventually("the spare one answers", || {
        let answer = client.get("/healthz?client=k1");
        (answer.status == 200).then(|| assert_eq!(answer.headers["x-instance"], names[3]))
    });
    post(&client, "k");
    let mut one = Crowd::gather(&front.url(), 10, Some("a")).by_instance();
    assert_eq!(one.remove(&names[3]), Some(10));
    site.nodes[0].start_again();
    eventually("the others are asked again", || {
        (client.get("/healthz?client=k1").headers.get("x-instance")? != &names[3]).then_some(())
    });
}
