//! A connection that sends whatever bytes a test wants, when it wants, and reads answers one by one.
//!
//! Used where a proper client would be in the way: half requests, several at once, requests that are
//! none. `http.rs` is the proper one.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than the service takes for any answer.
const TIMEOUT: Duration = Duration::from_mins(1);

pub(crate) struct Raw {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    /// All header lines, in lower case.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl RawAnswer {
    /// The last part of the problem document's type, and nothing if there is no document.
    pub(crate) fn problem(&self) -> String {
        let document: Value = serde_json::from_str(&self.body).unwrap_or_default();
        document["type"].as_str().unwrap_or_default().trim_start_matches("/problems/").to_owned()
    }

    pub(crate) fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|line| line == header)
    }
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes; whether they could be sent is for the answer to tell.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// The next answer; `None` if the connection is closed instead.
    pub(crate) fn answer(&mut self) -> Option<RawAnswer> {
        self.answer_to("GET")
    }

    pub(crate) fn answer_to(&mut self, method: &str) -> Option<RawAnswer> {
        let status = self.line()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<String> =
            std::iter::from_fn(|| self.line().filter(|line| !line.is_empty())).map(|l| l.to_lowercase()).collect();
        let length = headers.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let length = if method == "HEAD" { 0 } else { length.unwrap_or(0) };
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(RawAnswer { status, headers, body: String::from_utf8(body).unwrap() })
    }

    /// The socket, for nothing but to be kept open.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// Whether a byte of an answer has come.
    pub(crate) fn answer_is_there(&mut self) -> bool {
        self.stream.get_ref().set_nonblocking(true).unwrap();
        let there = self.stream.fill_buf().is_ok();
        self.stream.get_ref().set_nonblocking(false).unwrap();
        there
    }

    /// Reads so many bytes and returns their number, less if the connection is closed.
    pub(crate) fn take(&mut self, bytes: usize) -> usize {
        let mut taken = Vec::new();
        // What came before a reset counts.
        let _ = self.stream.by_ref().take(bytes as u64).read_to_end(&mut taken);
        taken.len()
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("a byte");
        byte[0]
    }

    /// Whether the service closes the connection without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        // A reset is a close as well, but a timeout is not.
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Reads all that comes until the connection is closed.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // What came before a reset counts.
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }
}
