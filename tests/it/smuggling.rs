//! Requests that two parsers could cut in two ways: what is ambiguous is refused or ends its connection, so
//! that no bytes of one request are taken for another.
//!
//! Each case is sent together with what an attacker would want to be read as a request of its own, and
//! nothing may be counted that was not meant.

use crate::raw::Raw;
use crate::service::{On, Service};

/// Counts a reading if anybody takes it for a request.
const SMUGGLED: &str = "POST /v1/readings HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n\
                        Content-Length: 34\r\n\r\n{\"source\":\"smuggled\",\"value\":1.00}";

/// Statuses of all answers until the connection is closed.
fn answers(service: &Service, request: &str) -> Vec<u16> {
    let mut raw = Raw::connect(service.url().trim_start_matches("http://").parse().unwrap());
    raw.send(request);
    std::iter::from_fn(|| raw.answer()).map(|answer| answer.status).collect()
}

fn post(headers: &[&str], body: &str) -> String {
    let lines = [&["POST /v1/readings HTTP/1.1", "Host: here", "Content-Type: application/json"], headers].concat();
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}

#[test]
fn what_could_be_cut_in_two_ways_is_cut_in_none() {
    let service = Service::start(On::Embedded, &[]);
    let check = |headers: &[&str], body: &str, expected: &[u16]| {
        let request = format!("{}{SMUGGLED}", post(headers, body));
        assert_eq!(answers(&service, &request), expected, "{headers:?} {body:?}");
        assert_eq!(service.client().get("/v1/stats?source=smuggled").status, 404, "{headers:?} {body:?}");
    };
    let array = "2\r\n[]\r\n0\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked";
    // Both lengths: chunks count, and the connection ends behind them.
    check(&["Content-Length: 4", chunked], array, &[200]);
    check(&[chunked, "Content-Length: 4"], array, &[200]);
    check(&["Content-Length: 2", "Content-Length: 3"], "[]", &[400]);
    check(&["Content-Length: 2, 3"], "[]", &[400]);
    check(&["Content-Length: +2"], "[]", &[400]);
    check(&["Content-Length: -2"], "[]", &[400]);
    check(&["Content-Length: 0x2"], "[]", &[400]);
    check(&["Content-Length: 18446744073709551618"], "[]", &[400]);
    check(&["Content-Length : 2"], "[]", &[400]);
    check(&[" Content-Length: 2"], "[]", &[400]);
    check(&["X-Folded: a\r\n Content-Length: 2"], "[]", &[400]);
    check(&["X-Bare: a\rContent-Length: 2"], "[]", &[400]);
    check(&["X-Nul: a\0"], "[]", &[400]);
    check(&["Transfer-Encoding: xchunked"], array, &[400]);
    check(&["Transfer-Encoding: chunked, identity"], array, &[400]);
    check(&[chunked, "Transfer-Encoding: identity"], array, &[400]);
    check(&["Transfer-Encoding : chunked"], array, &[400]);
    check(&["Transfer-Encoding:\x0bchunked"], array, &[400]);
    for bad in [
        "2;\n[]\r\n0\r\n\r\n",
        "x\r\n[]\r\n0\r\n\r\n",
        "-2\r\n[]\r\n0\r\n\r\n",
        "2\r\n[]0\r\n\r\n",
        "11111111111111111\r\n",
    ] {
        check(&[chunked], bad, &[400]);
    }
    let old = post(&[chunked], array).replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(answers(&service, &format!("{old}{SMUGGLED}")), [400]);
    // The service goes on, and what is clear is cut where it should be.
    let clear = [post(&[chunked], array), post(&["Content-Length: 2"], "[]"), SMUGGLED.to_owned()].concat();
    let last = "GET /v1/sources HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    assert_eq!(answers(&service, &format!("{clear}{last}")), [200; 4]);
    assert_eq!(service.client().total("smuggled", "1m"), (1, 1.0));
}

/// Another protocol on the port gets a quick end.
#[test]
fn what_is_not_http_is_closed() {
    let service = Service::start(On::Embedded, &[]);
    for bytes in
        ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", "*1\r\n$4\r\nPING\r\n"]
    {
        assert!(answers(&service, bytes).iter().all(|&status| status == 400), "{bytes:?}");
    }
}
