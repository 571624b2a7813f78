//! What pages of other origins may do (`--cors-origins`), and the headers that tell browsers what not to do.

use crate::http::Client;
use crate::raw::{Raw, RawAnswer};
use crate::service::{On, Service};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

fn ask(service: &Service, method: &str, path: &str, headers: &str) -> RawAnswer {
    let mut raw = Raw::connect(service.url().trim_start_matches("http://").parse().unwrap());
    raw.send(format!("{method} {path} HTTP/1.1\r\nHost: here:8080\r\n{headers}\r\n"));
    raw.answer_to(method).expect("an answer")
}

fn allowed(answer: &RawAnswer) -> Option<&str> {
    answer.headers.iter().find_map(|line| line.strip_prefix("access-control-allow-origin: "))
}

#[test]
fn without_a_list_no_answer_is_for_other_origins() {
    let service = Service::start(On::Embedded, &[]);
    for (method, path) in
        [("GET", "/v1/sources"), ("OPTIONS", "/v1/readings"), ("GET", POLLING), ("GET", "/v1/stream?channel=a")]
    {
        let answer =
            ask(&service, method, path, "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n");
        assert!(!answer.headers.iter().any(|line| line.starts_with("access-control-")), "{method} {path}: {answer:?}");
    }
    assert_eq!(ask(&service, "GET", SOCKET, &format!("Origin: https://app.example\r\n{UPGRADE}")).status, 101);
}

#[test]
fn listed_origins_may_ask() {
    let service = Service::start(On::Embedded, &["--cors-origins", "https://app.example,http://localhost:3000"]);
    for path in ["/v1/sources", "/nothing", POLLING, "/v1/stream?channel=a"] {
        for origin in ["https://app.example", "http://localhost:3000"] {
            let answer = ask(&service, "GET", path, &format!("Origin: {origin}\r\n"));
            assert_eq!(allowed(&answer), Some(origin), "{path}: {answer:?}");
            assert!(
                answer.headers.iter().any(|line| line.starts_with("vary: ") && line.contains("origin")),
                "{answer:?}"
            );
            assert!(answer.headers.iter().any(|line| line.starts_with("x-instance: ")), "{answer:?}");
        }
        for origin in ["https://evil.example", "http://app.example", "https://app.example.evil", "null"] {
            let answer = ask(&service, "GET", path, &format!("Origin: {origin}\r\n"));
            assert_eq!(allowed(&answer), None, "{path}: {answer:?}");
        }
    }
    let asking =
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: idempotency-key,content-type\r\n";
    let answer = ask(&service, "OPTIONS", "/v1/readings", &format!("Origin: https://app.example\r\n{asking}"));
    assert!(answer.status == 200 && allowed(&answer) == Some("https://app.example"), "{answer:?}");
    let says = |name: &str, word: &str| answer.headers.iter().any(|line| line.starts_with(name) && line.contains(word));
    assert!(says("access-control-allow-methods: ", "post") && says("access-control-max-age: ", "3600"), "{answer:?}");
    assert!(says("access-control-allow-headers: ", "idempotency-key"), "{answer:?}");
    let answer = ask(&service, "OPTIONS", "/v1/readings", &format!("Origin: https://evil.example\r\n{asking}"));
    assert_eq!(allowed(&answer), None, "{answer:?}");

    // Browsers let every page open a WebSocket.
    let socket = |headers: &str| ask(&service, "GET", SOCKET, &format!("{headers}{UPGRADE}"));
    assert_eq!(socket("").status, 101);
    assert_eq!(socket("Origin: https://app.example\r\n").status, 101);
    assert_eq!(socket("Origin: http://here:8080\r\n").status, 101);
    assert_eq!(socket("Origin: https://means.example\r\nX-Forwarded-Host: means.example\r\n").status, 101);
    let refused = socket("Origin: https://evil.example\r\n");
    assert_eq!((refused.status, refused.problem()), (403, "forbidden".to_owned()), "{refused:?}");
}

#[test]
fn all_origins_may_be_let_in() {
    let service = Service::start(On::Embedded, &["--cors-origins", "*"]);
    assert_eq!(allowed(&ask(&service, "GET", "/v1/sources", "Origin: https://any.example\r\n")), Some("*"));
    assert_eq!(ask(&service, "GET", SOCKET, &format!("Origin: https://any.example\r\n{UPGRADE}")).status, 101);
}

#[test]
fn every_answer_says_what_browsers_must_not_do() {
    let service = Service::start(On::Embedded, &[]);
    let client: Client = service.client();
    for path in ["/v1/sources", "/nothing", "/healthz", "/metrics", "/openapi.json", POLLING] {
        let headers = client.get(path).headers;
        let said = |name: &str| headers.get(name).map_or("", String::as_str);
        assert_eq!(said("x-content-type-options"), "nosniff", "{path}");
        assert!(said("cache-control").contains("no-store"), "{path}: {headers:?}");
        assert!(!headers.contains_key("strict-transport-security"), "{path}");
    }
    let headers = client.get("/").headers;
    assert_eq!(headers["cache-control"], "no-cache");
    assert!(headers["content-security-policy"].starts_with("default-src 'none'; script-src 'self'"));
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert!(headers["permissions-policy"].contains("camera=()"));
}
