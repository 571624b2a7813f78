//! Scenario 7: stunnel takes TLS on one port and hands on to `haproxy`, which gives the service what is for it and everything else to
//! another web application.

use super::stage::{Program, Proxy, curl, port, server, tell};
use crate::servers::{RedisServer, free_port};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

/// A web application that answers everything with the same words.
fn application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let body = "the main application\n";
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
    port
}

#[test]
fn one_port_for_two_applications() {
    println!("7. stunnel on 443, HAProxy on 8443, and another web application");
    let redis = RedisServer::start_durable();
    let service = server(&redis, &[]);
    let [tls, behind] = [free_port(), free_port()];
    let changes = [
        ("127.0.0.1:8443", format!("127.0.0.1:{behind}")),
        ("127.0.0.1:8000", format!("127.0.0.1:{}", port(&service))),
        ("127.0.0.1:8001", format!("127.0.0.1:{}", application())),
    ];
    let _haproxy = Proxy::start("haproxy", "haproxy.cfg", &changes, behind);
    let changes = [("127.0.0.1:443", format!("127.0.0.1:{tls}")), ("127.0.0.1:8443", format!("127.0.0.1:{behind}"))];
    let _stunnel = Proxy::start("stunnel", "stunnel.conf", &changes, tls);
    let url = format!("https://127.0.0.1:{tls}");

    assert_eq!(curl(&["-k", &format!("{url}/")]), (200, "the main application\n".to_owned()));
    tell("https://HOST/ is the main application, which knows nothing of all this.");
    let (status, body) = curl(&["-k", "-d", r#"{"source": "kitchen", "value": 21.5}"#, &format!("{url}/v1/readings")]);
    assert!(status == 200 && body.contains("\"accepted\":1"), "{status}: {body}");
    tell("https://HOST/v1/readings takes readings, on the same port.");

    let (status, body) = curl(&["-k", &format!("{url}/socket.io/?EIO=4&transport=polling")]);
    assert!(status == 200 && body.starts_with("0{"), "{status}: {body}");
    let direct = Program::script("client.js", &[&service.url(), "my channel", "2"]);
    direct.subscribed("my channel");
    redis.cli(&["PUBLISH", "my channel", "first message"]);
    direct.says("first message");
    tell(
        "https://HOST/socket.io/ begins a session of Socket.IO: three ways to one service, and a fourth for somebody else.",
    );
}
