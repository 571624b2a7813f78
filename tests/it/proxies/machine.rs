//! The files of `deploy/` as they are on the machine of a test.
//!
//! Used by `front.rs`. Only that is changed which belongs to a machine: ports, certificates, users, places for logs and
//! temporary files, and how many connections HAProxy may have. Each change must find its text, so that the files and
//! this one agree.

use std::fs;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nginx,
    NginxIpHash,
    NginxPrefixes,
    Haproxy,
    Stunnel,
}

impl Kind {
    pub(super) const fn file(self) -> &'static str {
        match self {
            Self::Nginx => "nginx.conf",
            Self::NginxIpHash => "nginx-ip-hash.conf",
            Self::NginxPrefixes => "nginx-prefixes.conf",
            Self::Haproxy => "haproxy.cfg",
            Self::Stunnel => "stunnel.conf",
        }
    }

    const fn is_nginx(self) -> bool {
        matches!(self, Self::Nginx | Self::NginxIpHash | Self::NginxPrefixes)
    }

    /// The program with the words before its file; `look` only judges the file.
    pub(super) fn program(self, look: bool) -> &'static [&'static str] {
        match (self, look) {
            (Self::Haproxy, false) => &["haproxy", "-db", "-f"],
            (Self::Haproxy, true) => &["haproxy", "-c", "-f"],
            (Self::Stunnel, _) => &["stunnel"],
            (_, false) => &["nginx", "-g", "daemon off;", "-c"],
            (_, true) => &["nginx", "-t", "-c"],
        }
    }
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// What is answered with 307; of stunnel it is the one behind it.
    pub(super) plain: u16,
    pub(super) tls: u16,
    /// The same as `tls`, without TLS.
    pub(super) open: u16,
    /// For what stunnel hands on.
    pub(super) tunnel: u16,
}

/// Writes the file of a proxy into its directory, with what it includes.
pub(super) fn lay_out(kind: Kind, ports: Ports, dir: &Path, instances: &[u16], changes: &[(&str, &str)]) {
    let (mut text, mut included) = (shipped(kind.file()), shipped("nginx-proxy.conf"));
    for (from, to) in changes {
        let place = if kind.is_nginx() && included.contains(from) { &mut included } else { &mut text };
        *place = replaced(kind, place, from, to);
    }
    for (from, to) in of_this_machine(kind, ports, dir) {
        text = replaced(kind, &text, from, &to);
    }
    fs::write(dir.join(kind.file()), with_instances(&text, instances)).unwrap();
    fs::write(dir.join("nginx-proxy.conf"), included).unwrap();
}

/// A file of `deploy/`.
pub(super) fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn replaced(kind: Kind, text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{} has no {from:?}", kind.file());
    text.replace(from, to)
}

/// What is different on the machine of the tests.
fn of_this_machine(kind: Kind, ports: Ports, dir: &Path) -> Vec<(&'static str, String)> {
    let Ports { plain, tls, open, tunnel } = ports;
    let dir = dir.display();
    let certificates = ("/etc/ssl/meanwhile", dir.to_string());
    match kind {
        Kind::Stunnel => vec![
            certificates,
            ("setuid = stunnel4\nsetgid = stunnel4\n", "pid =\n".to_owned()),
            ("accept = 443", format!("accept = 127.0.0.1:{tls}")),
        ],
        Kind::Haproxy => vec![
            certificates,
            ("    user haproxy\n    group haproxy\n", String::new()),
            ("log /dev/log local0", "log stdout format raw local0".to_owned()),
            // Two descriptors each, of which others leave too few.
            ("maxconn 20000", "maxconn 4000".to_owned()),
            ("bind :80\n", format!("bind 127.0.0.1:{plain}\n")),
            ("bind :443 ssl", format!("bind 127.0.0.1:{open}\n    bind 127.0.0.1:{tls} ssl")),
            ("bind 127.0.0.1:8443", format!("bind 127.0.0.1:{tunnel}")),
            ("redirect scheme https code 307", format!("redirect prefix https://127.0.0.1:{tls} code 307")),
        ],
        Kind::Nginx | Kind::NginxIpHash | Kind::NginxPrefixes => vec![
            certificates,
            // Who has no rights cannot take another user and is told that it does not matter.
            ("user www-data;", "user root;".to_owned()),
            ("/run/nginx.pid", format!("{dir}/nginx.pid")),
            ("/var/log/nginx", dir.to_string()),
            ("http {\n", temporary_paths(&dir.to_string())),
            ("listen 80;", format!("listen 127.0.0.1:{plain};")),
            ("listen 443 ssl;", format!("listen 127.0.0.1:{open}; listen 127.0.0.1:{tls} ssl;")),
            ("https://$host$", format!("https://$host:{tls}$")),
        ],
    }
}

fn temporary_paths(dir: &str) -> String {
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    format!("http {{\n{}\n", paths.map(|path| format!("{path}_temp_path {dir}/{path};")).join("\n"))
}

/// The file with these instances in the places of its three; what is said of the last one is said of more, too.
fn with_instances(text: &str, instances: &[u16]) -> String {
    let mut made = String::new();
    for line in text.lines() {
        let at = |number: usize| line.contains(&format!("127.0.0.1:{}", 8081 + number));
        let Some(number) = (0..3).find(|&number| at(number) && !line.trim_start().starts_with('#')) else {
            made.push_str(line);
            made.push('\n');
            continue;
        };
        let numbers = if number == 2 { 2..instances.len() } else { number..number + 1 };
        for n in numbers.filter(|&n| n < instances.len()) {
            let line = line.replace(&format!(":{}", 8081 + number), &format!(":{}", instances[n]));
            made.push_str(&line.replace("server meanwhile3 ", &format!("server meanwhile{} ", n + 1)));
            made.push('\n');
        }
    }
    made
}
