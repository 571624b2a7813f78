//! Whose address the instances go by: that of the client, whatever is between, and whatever it says itself.
//!
//! Clients come from an address of their own, 127.0.0.77; the proxies connect from 127.0.0.1, which alone is trusted. The
//! rules for headers are in `tests/it/addresses.rs`.

use super::Site;
use super::front::Front;
use super::machine::Kind;
use crate::service::{Service, eventually};

const CLIENT: &str = "127.0.0.77";
const TRUSTED: [&str; 4] = ["--trusted-proxies", "127.0.0.1", "--log", "info,meanwhile=debug"];
/// In the file of HAProxy, for all instances.
const DEFAULT_SERVER: &str = "default-server weight 100";

/// Asks for what is not there, and sees whom the log of an instance names.
#[track_caller]
fn check(site: &Site, front: &Front, url: &str, id: &str) {
    // Nothing that a client says makes it another one.
    for (n, claim) in ["X-Nothing: 1.2.3.4", "X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4"].into_iter().enumerate() {
        let id = format!("{id}-{n}");
        let named = format!("X-Request-Id: {id}");
        let path = format!("{url}/v1/nothing");
        let said = front.curl(&["--interface", CLIENT, "-H", &named, "-H", claim, &path]);
        assert!(said.contains("not-found"), "{said}");
        let line = eventually("the failure is logged", || {
            let logs = site.nodes.iter().map(Service::log);
            logs.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>())
                .find(|line| line.contains(&format!("\"{id}\"")))
        });
        assert!(line.contains(&format!("client={CLIENT} ")), "{claim}: {line}");
    }
}

#[test]
fn nginx_and_haproxy_name_the_client() {
    let site = Site::start_with(3, &TRUSTED);
    for kind in [Kind::Nginx, Kind::NginxIpHash, Kind::Haproxy] {
        let front = Front::start(kind, &site.ports());
        check(&site, &front, &front.url(), &format!("{kind:?}"));
        check(&site, &front, &front.secure_url(), &format!("{kind:?}-tls"));
    }
    // stunnel tells HAProxy, and HAProxy the instance.
    let haproxy = Front::start(Kind::Haproxy, &site.ports());
    let behind = format!("127.0.0.1:{}", haproxy.tunnel_port());
    let stunnel = Front::changed(Kind::Stunnel, &[], &[("127.0.0.1:8443", &behind)]);
    check(&site, &stunnel, &stunnel.secure_url(), "stunnel-haproxy");
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let site = Site::start_with(3, &[&TRUSTED[..], &["--proxy-protocol"]].concat());
    for send in ["send-proxy", "send-proxy-v2"] {
        let with = format!("default-server {send} check-send-proxy weight 100");
        let front = Front::changed(Kind::Haproxy, &site.ports(), &[(DEFAULT_SERVER, &with)]);
        check(&site, &front, &front.url(), send);
    }
    // stunnel before one instance, without another proxy.
    let instance = format!("127.0.0.1:{}", site.ports()[0]);
    let stunnel = Front::changed(Kind::Stunnel, &[], &[("127.0.0.1:8443", &instance)]);
    check(&site, &stunnel, &stunnel.secure_url(), "stunnel");
    // Who forgets it is told so by the instance.
    let front = Front::start(Kind::NginxPrefixes, &site.ports());
    let said = front.curl(&[&format!("{}/server1/healthz", front.url())]);
    assert!(said.contains("--proxy-protocol"), "{said}");
}

/// A query may hold a token, for browsers that cannot send it otherwise: it is not in the logs of the proxies.
#[test]
fn tokens_stay_out_of_the_logs() {
    let site = Site::start(3);
    for kind in [Kind::Nginx, Kind::NginxIpHash, Kind::NginxPrefixes, Kind::Haproxy] {
        let front = Front::start(kind, &site.ports());
        let prefix = if kind == Kind::NginxPrefixes { "/server1" } else { "" };
        // A stream of nothing is refused, so that there is an end to it.
        let path = format!("{prefix}/v1/stream?token=hush-hush");
        let said = front.curl(&[&format!("{}{path}", front.url())]);
        assert!(said.contains("channel"), "{said}");
        let log = eventually("it is logged", || Some(front.log()).filter(|log| log.contains("/v1/stream")));
        assert!(!log.contains("hush"), "{kind:?}: {log}");
    }
}
