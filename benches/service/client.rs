//! A client so cheap that it hardly disturbs what it measures: HTTP/1.1 on one kept connection.
//!
//! Used by every section to talk to the service. Requests are built whole beforehand; of an answer
//! it reads the status, the length and the body. What the service means by an answer is judged by
//! the callers.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer takes this long unless the service hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// What stands before the key in a request of [`post_readings_under`].
pub(crate) const KEY_HEADER: &str = "idempotency-key: ";

/// One connection; it sends one request at a time.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

/// The bytes of a POST of readings as NDJSON.
pub(crate) fn post_readings(lines: &[u8]) -> Vec<u8> {
    post("", lines)
}

/// The same under an idempotency key.
pub(crate) fn post_readings_under(key: &str, lines: &[u8]) -> Vec<u8> {
    post(&format!("{KEY_HEADER}{key}\r\n"), lines)
}

/// The same with a token.
pub(crate) fn post_readings_as(token: &str, lines: &[u8]) -> Vec<u8> {
    post(&format!("authorization: Bearer {token}\r\n"), lines)
}

fn post(header: &str, lines: &[u8]) -> Vec<u8> {
    let length = lines.len();
    let head = format!(
        "POST /v1/readings HTTP/1.1\r\nhost: bench\r\n{header}content-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), lines].concat()
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream), body: Vec::new() })
    }

    /// Sends a request of [`post_readings`] and returns when all its `readings` are acknowledged.
    pub(crate) fn deliver(&mut self, request: &[u8], readings: usize) -> Result<()> {
        let answer: serde_json::Value = serde_json::from_slice(self.exchange(request)?)?;
        ensure!(answer["accepted"] == readings, "sent {readings} readings, the answer is {answer}");
        Ok(())
    }

    /// The JSON document at `path`.
    pub(crate) fn get(&mut self, path: &str) -> Result<serde_json::Value> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\naccept: application/json\r\n\r\n");
        let body = self.exchange(request.as_bytes()).with_context(|| format!("GET {path}"))?;
        Ok(serde_json::from_slice(body)?)
    }

    /// Sends one request and returns the body of its answer, which has to be a 200.
    fn exchange(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.get_mut().write_all(request).context("the service cut the connection")?;
        let status = self.line()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse()?,
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
            }
        }
        self.body.clear();
        if chunked {
            while self.chunk()? > 0 {}
        } else {
            self.take(length)?;
        }
        if !status.starts_with("HTTP/1.1 200") {
            bail!("the service answered \"{status}\": {}", String::from_utf8_lossy(&self.body));
        }
        Ok(&self.body)
    }

    /// Appends one chunk to the body; returns its length, 0 for the last.
    fn chunk(&mut self) -> Result<usize> {
        let length = usize::from_str_radix(&self.line()?, 16).context("a chunk without a length")?;
        self.take(length)?;
        self.line()?;
        Ok(length)
    }

    fn take(&mut self, length: usize) -> Result<()> {
        let start = self.body.len();
        self.body.resize(start + length, 0);
        self.stream.read_exact(&mut self.body[start..]).context("the answer ends early")
    }

    /// The next line of the answer without its end.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let bytes = self.stream.read_line(&mut line).context("the service did not answer")?;
        ensure!(bytes > 0, "the service closed the connection instead of answering");
        Ok(line.trim_end().to_owned())
    }
}
