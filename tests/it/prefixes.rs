//! The service below a path: with a proxy that passes the path on (`--base-path`), and with one that strips it.
//!
//! Clients of Socket.IO that were only told a path are led to Socket.IO either way. Proxies themselves are in `proxies.rs`
//! and their files in `deploy/`.

use crate::http::{Client, reading};
use crate::service::{On, Service, command};
use crate::sockets::{Mode, Sockets};
use serde_json::json;
use std::process::Command;

const MODES: [Mode; 3] = [Mode::Polling, Mode::Upgrade, Mode::Websocket];

#[test]
fn everything_lies_below_the_base_path() {
    let service = Service::start(On::Embedded, &["--base-path", "/means/server1"]);
    let outside = service.client();
    let inside = Client::new(format!("{}/means/server1", service.url()));
    assert!(service.log().contains(&format!("post readings to {}/means/server1/v1/readings", service.url())));
    inside.post(&reading("kitchen", 21.5)).ok();
    let check = |client: &Client, path: &str, status: u16, part: &str| {
        let answer = client.get(path);
        assert!(answer.status == status && answer.body.contains(part), "{path}: {answer:?}");
        assert!(answer.headers.contains_key("x-instance"), "{path}: {answer:?}");
    };
    check(&inside, "/v1/sources", 200, "kitchen");
    check(&inside, "/", 200, "<title>meanwhile");
    check(&inside, "/page.js", 200, "import");
    check(&inside, "/healthz", 200, "");
    check(&inside, "/nothing", 404, "/means/server1/nothing does not exist");
    check(&inside, "?EIO=4&transport=polling", 200, "0{");
    check(&inside, "/?EIO=4&transport=polling", 200, "0{");
    check(&inside, "/socket.io/?EIO=4&transport=polling", 200, "0{");
    // Who asks whether it is alive may not know of the path; of the rest nothing is outside.
    check(&outside, "/healthz", 200, "");
    check(&outside, "/readyz", 200, "ready");
    for path in
        ["/", "/v1/sources", "/metrics", "/means", "/means/server12/v1/sources", "/socket.io/?EIO=4&transport=polling"]
    {
        check(&outside, path, 404, &format!("{} does not exist", path.split('?').next().unwrap()));
    }
    let metrics = inside.get("/metrics").ok().body;
    assert!(
        metrics.contains("route=\"/v1/sources\",status=\"200\"") && !metrics.contains("route=\"/means"),
        "{metrics}"
    );
    let listed = command(&["sources", "--url", &format!("{}/means/server1/", service.url())]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("kitchen"), "{listed:?}");

    // Without its slash it leads to the page, for the sake of the relative links there.
    let root = format!("{}/means/server1", service.url());
    let curl = Command::new("curl").args(["-sS", "-L", "-w", "%{url_effective}", &root]).output().unwrap();
    let followed = String::from_utf8(curl.stdout).unwrap();
    assert!(followed.contains("<title>meanwhile") && followed.ends_with("/means/server1/"), "{followed}");
}

#[test]
fn where_the_path_is_stripped_the_root_is_both() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    assert!(client.get("/").ok().body.contains("<title>meanwhile"));
    assert!(client.get("/?source=kitchen").ok().body.contains("<title>meanwhile"));
    assert!(client.get("/?EIO=4&transport=polling").ok().body.starts_with("0{"));
    let answer = client.post_to("/");
    assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "GET,HEAD"));
}

#[test]
fn clients_that_know_nothing_but_a_path_are_led_to_socket_io() {
    let below = Service::start(On::Embedded, &["--base-path", "/server1"]);
    let stripped = Service::start(On::Embedded, &[]);
    let mut sockets = Sockets::start();
    for (service, path) in [(&below, "/server1"), (&stripped, "/")] {
        for mode in MODES {
            let mut options = mode.options();
            options["path"] = json!(path);
            let id = format!("{path} {mode:?}");
            sockets.begin(&id, &service.url(), 4, &options);
            sockets.connected(&id, mode);
            sockets.ask(&id, &json!(["subscribe", "my channel"]));
            let publishing = Client::new(format!("{}{}", service.url(), path.trim_end_matches('/')));
            publishing.publish("my%20channel", b"hello").ok();
            sockets.check_message(&id, &json!("hello"), "my channel");
            sockets.disconnect(&id);
        }
    }
}
