//! TLS in the service itself: certificates, their renewal, plain HTTP beside it, and that what bounds a connection bounds
//! one with TLS.
//!
//! Certificates are those of `meanwhile dev-cert`; the clients are curl, openssl and the commands.

use crate::connections::{LARGE, SHORT, Serving};
use crate::http::reading;
use crate::raw::Raw;
use crate::servers::temporary;
use crate::service::{On, Service, command, eventually};
use meanwhile::config::TlsFiles;
use meanwhile::http::server::{Entrance, Limits, Tls};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A directory with a certificate for these names, and its key.
pub(crate) struct Pair(PathBuf);

impl Pair {
    pub(crate) fn make(out: &Path, names: &[&str]) -> Self {
        let out = out.to_owned();
        let names = names.iter().flat_map(|name| ["--name", name]);
        let words: Vec<&str> = ["dev-cert", "--out", out.to_str().unwrap()].into_iter().chain(names).collect();
        let made = command(&words).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(out)
    }

    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles { cert: self.cert(), key: self.0.join("meanwhile-key.pem") }
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.0.join("meanwhile-cert.pem")
    }

    fn flags(&self) -> Vec<String> {
        let TlsFiles { cert, key } = self.files();
        ["--tls-cert".into(), cert.display().to_string(), "--tls-key".into(), key.display().to_string()].to_vec()
    }

    fn serve(&self, flags: &[&str]) -> Service {
        let own = self.flags();
        let all: Vec<&str> = own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        Service::start(On::Embedded, &all)
    }

    /// Puts the files of another in the place of its own.
    fn become_like(&self, other: &Self) {
        for (from, to) in [(other.files().key, self.files().key), (other.cert(), self.cert())] {
            let beside = to.with_extension("new");
            fs::copy(from, &beside).unwrap();
            fs::rename(beside, to).unwrap();
        }
    }
}

/// What curl gets, with this certificate as the only one it trusts.
fn curl(trusted: &Pair, words: &[&str]) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "60", "--cacert"]).arg(trusted.cert()).args(words).output().expect("curl")
}

#[track_caller]
fn check_curl(trusted: &Pair, words: &[&str], expected: &str) {
    let Output { status, stdout, stderr } = curl(trusted, words);
    let text = String::from_utf8_lossy(&stdout);
    assert!(status.success() && text.contains(expected), "{words:?}: {text} {}", String::from_utf8_lossy(&stderr));
}

#[test]
fn curl_and_the_commands_speak_https() {
    let dir = temporary();
    let pair = Pair::make(dir.path(), &["localhost", "127.0.0.1"]);
    let service = pair.serve(&[]);
    assert!(service.log().contains(&format!("post readings to {}/v1/readings", service.url())), "{}", service.log());
    let url = format!("https://localhost:{}/v1/readings", service.port());
    check_curl(&pair, &["-i", &url], "strict-transport-security: max-age=31536000");
    check_curl(&pair, &["-v", "-d", &reading("kitchen", 21.5), &url], "\"accepted\":1");
    let said = String::from_utf8(curl(&pair, &["-v", &url]).stderr).unwrap();
    assert!(said.contains("ALPN") && said.contains("accepted") && said.contains("http/1.1"), "{said}");

    let cert = pair.cert();
    let trusting = ["--cacert", cert.to_str().unwrap()];
    assert!(service.run(&[&["sources"], &trusting[..]].concat()).contains("kitchen"));
    let watch =
        service.command(&[&["watch", "kitchen", "--plain"], &trusting[..]].concat()).stdout(Stdio::piped()).spawn();
    let mut watch = crate::service::Killed(watch.unwrap());
    let mut first = [0; 1];
    watch.0.stdout.take().unwrap().read_exact(&mut first).expect("a line");
    let untrusting = service.command(&["sources"]).output().unwrap();
    let said = String::from_utf8(untrusting.stderr).unwrap();
    assert_eq!(untrusting.status.code(), Some(1));
    assert!(said.contains("is not trusted: ") && said.contains("--cacert FILE"), "{said}");
}

#[test]
fn old_versions_and_plain_http_are_refused() {
    let dir = temporary();
    let pair = Pair::make(dir.path(), &["127.0.0.1"]);
    let service = pair.serve(&[]);
    let address = format!("127.0.0.1:{}", service.port());
    let connects = |version: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &address, version, "-verify_return_error", "-CAfile"]).arg(pair.cert());
        // Old versions are weak in themselves; openssl must be willing where the service is to refuse.
        openssl.args(["-cipher", "DEFAULT@SECLEVEL=0"]).stdin(Stdio::null());
        openssl.output().expect("openssl").status.success()
    };
    assert_eq!(["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"].map(connects), [false, false, true, true]);
    let mut raw = Raw::connect(address.parse().unwrap());
    raw.send("GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n");
    let answer = raw.answer().expect("an answer");
    assert!(answer.status == 400 && answer.body.contains("https://") && raw.is_closed(), "{answer:?}");
}

#[test]
fn a_certificate_is_renewed_while_the_service_runs() {
    let dir = temporary();
    let [pair, second, third] = [("a", "127.0.0.1"), ("b", "localhost"), ("c", "127.0.0.1")]
        .map(|(at, name)| Pair::make(&dir.path().join(at), &[name]));
    let service = pair.serve(&[]);
    let old = Pair(dir.path().join("old"));
    fs::create_dir(&old.0).unwrap();
    fs::copy(pair.cert(), old.cert()).unwrap();
    let at = |name: &str| format!("https://{name}:{}/healthz", service.port());
    check_curl(&old, &[&at("127.0.0.1")], "ok");

    // A pair that does not fit together.
    fs::copy(second.cert(), pair.cert()).unwrap();
    service.signal("HUP");
    eventually("it is said", || service.log().contains("the old certificate stays in use").then_some(()));
    assert!(service.log().contains("is not the key of the certificate in"), "{}", service.log());
    check_curl(&old, &[&at("127.0.0.1")], "ok");

    // Noticed by itself.
    pair.become_like(&second);
    eventually("the second is in use", || curl(&second, &[&at("localhost")]).status.success().then_some(()));
    assert!(!curl(&old, &[&at("127.0.0.1")]).status.success());

    pair.become_like(&third);
    service.signal("HUP");
    eventually("the third is in use", || curl(&third, &[&at("127.0.0.1")]).status.success().then_some(()));
}

#[test]
fn plain_http_is_sent_on_with_its_body() {
    let dir = temporary();
    let pair = Pair::make(dir.path(), &["localhost", "127.0.0.1"]);
    let service = pair.serve(&["--redirect-listen", "127.0.0.1:0"]);
    let plain = plain(&service);
    let url = format!("http://localhost:{plain}/v1/readings?precision=ms");
    let followed = ["-L", "-H", "Content-Type: application/json", "-d", &reading("kitchen", 21.5), &url];
    check_curl(&pair, &followed, "\"accepted\":1");
    // More than fits into any buffer, and than curl waits with.
    let large = vec![reading("cellar", 1.0); 50_000].join("\n");
    let file = dir.path().join("large");
    fs::write(&file, large).unwrap();
    let body = format!("@{}", file.display());
    let followed = ["-L", "-H", "Content-Type: application/x-ndjson", "-H", "Expect:", "--data-binary", &body, &url];
    check_curl(&pair, &followed, "\"accepted\":50000");

    let ask = |target: &str, host: &str| {
        let mut raw = Raw::connect(format!("127.0.0.1:{plain}").parse().unwrap());
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        raw.answer().expect("an answer")
    };
    let check = |target: &str, host: &str, expected: &str| {
        let answer = ask(target, host);
        assert_eq!(answer.status, 307, "{answer:?}");
        assert!(answer.has(&format!("location: {expected}")), "{expected}: {answer:?}");
        assert!(answer.headers.iter().any(|line| line.starts_with("x-instance: ")), "{answer:?}");
    };
    let port = service.port();
    check("/a//b?c=%0d", "LOCALHOST:99", &format!("https://localhost:{port}/a//b?c=%0d"));
    check("//evil.example/x", "127.0.0.1", &format!("https://127.0.0.1:{port}//evil.example/x"));
    check("http://evil.example/x", "localhost", &format!("https://localhost:{port}/x"));
    for host in ["evil.example", "localhost@evil.example", "", "evil.example:localhost"] {
        let answer = ask("/", host);
        assert_eq!((answer.status, answer.problem()), (400, "invalid-header".to_owned()), "{host}: {answer:?}");
        assert!(!answer.headers.iter().any(|line| line.starts_with("location")), "{answer:?}");
    }
}

#[test]
fn plain_http_is_sent_on_to_the_public_address() {
    let dir = temporary();
    let pair = Pair::make(dir.path(), &["127.0.0.1"]);
    let service = pair.serve(&["--redirect-listen", "127.0.0.1:0", "--public-url", "https://means.example"]);
    let mut raw = Raw::connect(format!("127.0.0.1:{}", plain(&service)).parse().unwrap());
    raw.send("DELETE /x?y HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    let answer = raw.answer().expect("an answer");
    assert!(answer.status == 307 && answer.has("location: https://means.example/x?y"), "{answer:?}");
}

/// The port of the plain listener.
fn plain(service: &Service) -> u16 {
    eventually("it says where", || {
        let log = service.log();
        let (_, rest) = log.split_once("sending on from http://127.0.0.1:")?;
        rest.lines().next()?.trim().parse().ok()
    })
}

#[test]
fn a_certificate_for_development_is_made_with_what_comes_next() {
    let dir = temporary();
    let made = command(&["dev-cert"]).current_dir(dir.path()).output().unwrap();
    let next = String::from_utf8(made.stdout).unwrap();
    let expected = "meanwhile serve --tls-cert ./meanwhile-cert.pem --tls-key ./meanwhile-key.pem\n\
                    meanwhile sources --url https://localhost:8080 --cacert ./meanwhile-cert.pem\n";
    assert_eq!((made.status.code(), next.as_str()), (Some(0), expected));
    let mode = |file: &str| fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("meanwhile-key.pem"), 0o600);
    let before = fs::read(dir.path().join("meanwhile-key.pem")).unwrap();
    let again = command(&["dev-cert"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("nothing is overwritten"));
    assert_eq!(fs::read(dir.path().join("meanwhile-key.pem")).unwrap(), before);
    let service = Pair(dir.path().to_owned()).serve(&[]);
    let (name, cert) = (format!("https://localhost:{}", service.port()), dir.path().join("meanwhile-cert.pem"));
    let listed = command(&["sources", "--url", &name, "--cacert", cert.to_str().unwrap()]).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[test]
fn files_that_are_no_pair_are_refused_by_name() {
    let dir = temporary();
    let [pair, other] = ["a", "b"].map(|at| Pair::make(&dir.path().join(at), &["localhost"]));
    let check = |cert: PathBuf, key: PathBuf, expected: &str| {
        let error = Tls::open(&TlsFiles { cert, key }).err().expect("an error");
        assert!(error.contains(expected), "{error}");
    };
    check(pair.cert(), other.files().key, "is not the key of the certificate in");
    check(pair.files().key, pair.files().key, "holds no certificate");
    check(pair.cert(), pair.cert(), "holds no private key");
    check(dir.path().join("none"), pair.files().key, "cannot read");
    let cert = pair.cert();
    let started = command(&["serve", "--listen", "127.0.0.1:0", "--tls-cert", cert.to_str().unwrap(), "--tls-key"])
        .arg(other.files().key)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(started.stderr).unwrap();
    assert!(started.status.code() == Some(1) && said.contains("(--tls-cert, --tls-key)"), "{said}");
}

fn entrance(pair: &Pair) -> Entrance {
    Entrance::default().with_tls(Some(Tls::open(&pair.files()).unwrap()))
}

/// A client within TLS.
fn connect(serving: &Serving, pair: &Pair) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pair.cert()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(session, TcpStream::connect(serving.address).unwrap())
}

fn is_served(serving: &Serving, pair: &Pair) -> bool {
    let mut stream = connect(serving, pair);
    let _ = stream.write_all(b"GET /quick HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.starts_with("HTTP/1.1 200")
}

#[test]
fn a_handshake_that_does_not_come_is_given_up() {
    let dir = temporary();
    let pair = Pair::make(dir.path(), &["localhost"]);
    let serving = Serving::start_behind(entrance(&pair), Limits { head: SHORT, ..Limits::default() });
    // Nothing, and the begin of a record.
    for begun in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
        let mut raw = Raw::connect(serving.address);
        raw.send(begun);
        assert!(raw.is_closed(), "{begun:?}");
    }
    assert!(is_served(&serving, &pair));
}

#[test]
fn a_handshake_under_way_gives_way_to_others() {
    let dir = temporary();
    let pair = Pair::make(dir.path(), &["localhost"]);
    let serving = Serving::start_behind(entrance(&pair), Limits { connections: 1, ..Limits::default() });
    let mut half = Raw::connect(serving.address);
    half.send([22, 3, 1, 2, 0, 1]);
    assert!(is_served(&serving, &pair));
    assert!(half.is_closed());
}

#[test]
fn who_takes_nothing_is_given_up_within_tls_too() {
    let dir = temporary();
    let pair = Pair::make(dir.path(), &["localhost"]);
    let limits = Limits { stall: SHORT, connections: 1, ..Limits::default() };
    let serving = Serving::start_behind(entrance(&pair), limits);
    for path in ["/large HTTP/1.1\r\n", "/upgraded HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: anything\r\n"] {
        let mut slow = connect(&serving, &pair);
        slow.write_all(format!("GET {path}Host: here\r\n\r\n").as_bytes()).unwrap();
        slow.read_exact(&mut [0]).unwrap();
        // Its place is free again when it is closed, and not before.
        eventually("the slow reader is closed", || is_served(&serving, &pair).then_some(()));
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest);
        assert!(rest.len() < LARGE, "{path}");
    }
}

#[test]
fn where_all_are_in_use_the_new_one_hears_of_it_within_tls() {
    let dir = temporary();
    let pair = Pair::make(dir.path(), &["localhost"]);
    let serving = Serving::start_behind(entrance(&pair), Limits { connections: 1, ..Limits::default() });
    let mut held = connect(&serving, &pair);
    held.write_all(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    held.read_exact(&mut [0]).unwrap();
    let mut refused = connect(&serving, &pair);
    let mut answer = String::new();
    refused.write_all(b"GET /quick HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    let _ = refused.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("too-many-connections"), "{answer}");
}
