//! The HTTP client of the commands: one service, one connection kept alive, plain errors.
//!
//! Called by every command but `serve`. It never repeats a request by itself: `import/send.rs` does,
//! with an idempotency key. A problem document is shown as its title, its detail and its lines.

use super::Usage;
use crate::config::{Secret, ServerArgs};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;
use ureq::RequestBuilder;
use ureq::http::HeaderValue;
use ureq::http::header::AUTHORIZATION;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The service answers after 30 s at the latest; beyond twice that nobody is there.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// A page of 10,000 rows with the longest ids is some 8 MB.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// A service, by its address.
pub struct Client {
    agent: ureq::Agent,
    /// Without a slash at the end.
    base: String,
    /// The header `Authorization`.
    authorization: Option<HeaderValue>,
}

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there: certainly not carried out.
    #[error("no server at {0}: start one with `meanwhile serve` or set MEANWHILE_URL")]
    NoServer(Secret),
    /// The connection broke or timed out: carried out or not.
    #[error("no answer from {url}: {reason}; try again, or set MEANWHILE_URL if the service is elsewhere")]
    NoAnswer { url: Secret, reason: String },
    /// Certainly not carried out.
    #[error("{url} is not trusted: {reason}; --cacert FILE or MEANWHILE_CACERT names a certificate that is")]
    Distrusted { url: Secret, reason: String },
    #[error("{0}")]
    Problem(Box<Problem>),
    /// A 200 that this client cannot read.
    #[error("{url} does not answer like a meanwhile service: set MEANWHILE_URL to the address of one ({reason})")]
    Strange { url: Secret, reason: String },
}

/// A problem document, or what stands in its place.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    #[serde(skip)]
    pub status: u16,
    pub title: String,
    pub detail: Option<String>,
    pub errors: Vec<LineProblem>,
    /// Of an instance that can do what this one cannot.
    pub address: Option<String>,
    /// How many errors there are; `errors` holds the first ones.
    pub error_count: Option<u64>,
}

/// What is wrong with one line of a request.
#[derive(Clone, Debug, Deserialize)]
pub struct LineProblem {
    /// From 1.
    pub line: u64,
    pub field: Option<String>,
    pub reason: String,
}

impl fmt::Display for LineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most reasons of the service begin with the field; a column of a table they do not know.
        let named = |field: &&String| self.reason.strip_prefix(*field).is_some_and(|rest| rest.starts_with(' '));
        match self.field.as_ref().filter(|field| !named(field)) {
            Some(field) => write!(f, "{}: {field}: {}", self.line, self.reason),
            None => write!(f, "{}: {}", self.line, self.reason),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.title, self.status)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(address) = &self.address {
            write!(f, "; here with --url {address} or MEANWHILE_URL")?;
        }
        for error in &self.errors {
            write!(f, "\n  line {error}")?;
        }
        match self.error_count.unwrap_or(0).saturating_sub(self.errors.len() as u64) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl Client {
    /// # Errors
    /// Wrong usage, if the address is none.
    pub fn new(args: &ServerArgs) -> Result<Self, Usage> {
        let base = args.url.trim_end_matches('/').to_owned();
        let shown = Secret::new(&base);
        match base.split_once("://") {
            Some(("http" | "https", host)) if !host.is_empty() => {}
            _ => return Err(Usage(format!("--url: \"{shown}\" is not an address: write http://HOST:PORT[/PREFIX]"))),
        }
        let trusted = args.cacert.as_deref().map(authorities).transpose()?.unwrap_or(RootCerts::WebPki);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A proxy set for the web does not know the services of this machine and this network.
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(trusted).build())
            .user_agent(concat!("meanwhile/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_send_body(Some(ANSWER_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_recv_body(Some(ANSWER_TIMEOUT))
            .build();
        let token = args.token().map_err(Usage)?;
        let header = |token: String| {
            let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Usage("the token has characters that no token has".to_owned()))?;
            header.set_sensitive(true);
            Ok(header)
        };
        Ok(Self { agent: config.new_agent(), base, authorization: token.map(header).transpose()? })
    }

    /// With what says who asks.
    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    /// Asks for `path` (which begins with a slash) and reads the JSON of the answer.
    pub fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, ClientError> {
        let request =
            self.authorized(self.agent.get(format!("{}{path}", self.base))).header("Accept", "application/json");
        self.answer(request.query_pairs(query.iter().copied()).call())
    }

    /// Sends `body` to `path` and reads the JSON of the answer.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<T, ClientError> {
        let request = self.authorized(self.agent.post(format!("{}{path}", self.base)));
        let mut request = request.header("Accept", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.answer(request.send(body))
    }

    /// Sends `body` to `path`; the answer has nothing more to say.
    pub fn send(&self, path: &str, query: &[(&str, &str)], body: &[u8]) -> Result<(), ClientError> {
        let request = self.authorized(self.agent.post(format!("{}{path}", self.base)));
        let request = request.header("Accept", "application/json");
        self.answer::<IgnoredAny>(request.query_pairs(query.iter().copied()).send(body)).map(drop)
    }

    /// Asks for an answer without an end, and returns when it has begun. Reading it fails with `TimedOut` if nothing
    /// comes for `silence`.
    pub fn stream(
        &self,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &[u8])],
        silence: Duration,
    ) -> Result<impl Read + Send + use<>, ClientError> {
        let request = self.authorized(self.agent.get(format!("{}{path}", self.base)));
        let mut request = request.query_pairs(query.iter().copied());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.config().timeout_recv_body(None).timeout_per_read(Some(silence)).build();
        let mut response = request.call().map_err(|error| self.no_answer(&error))?;
        if response.status().is_success() {
            return Ok(Stream(response.into_body().into_reader()));
        }
        Err(self.problem(&mut response))
    }

    fn answer<T: DeserializeOwned>(
        &self,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let mut response = result.map_err(|error| self.no_answer(&error))?;
        if !response.status().is_success() {
            return Err(self.problem(&mut response));
        }
        serde_json::from_slice(&self.body(&mut response)?)
            .map_err(|error| ClientError::Strange { url: Secret::new(&self.base), reason: error.to_string() })
    }

    fn body(&self, response: &mut ureq::http::Response<ureq::Body>) -> Result<Vec<u8>, ClientError> {
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        body.map_err(|error| self.no_answer(&error))
    }

    /// What an answer says that is no success.
    fn problem(&self, response: &mut ureq::http::Response<ureq::Body>) -> ClientError {
        let status = response.status();
        let body = match self.body(response) {
            Ok(body) => body,
            Err(error) => return error,
        };
        let mut problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
        problem.status = status.as_u16();
        if problem.title.is_empty() {
            // A proxy in between, or another service altogether.
            let phrase = status.canonical_reason().unwrap_or("something unknown");
            problem.title = format!("{} answered {phrase}", Secret::new(&self.base));
            problem.detail = Some("set MEANWHILE_URL if this is not the address of a meanwhile service".to_owned());
        }
        ClientError::Problem(Box::new(problem))
    }

    fn no_answer(&self, error: &ureq::Error) -> ClientError {
        let url = Secret::new(&self.base);
        match error {
            ureq::Error::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused => ClientError::NoServer(url),
            ureq::Error::Io(io) if io.to_string().contains("certificate") => {
                ClientError::Distrusted { url, reason: io.to_string() }
            }
            // Without the prefix ureq gives it.
            ureq::Error::Io(io) => ClientError::NoAnswer { url, reason: io.to_string() },
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => ClientError::NoServer(url),
            other => ClientError::NoAnswer { url, reason: other.to_string() },
        }
    }
}

/// Whom to trust: the certificates of a file.
fn authorities(path: &Path) -> Result<RootCerts, Usage> {
    let wrong = |reason: String| Usage(format!("--cacert: {}: {reason}", path.display()));
    let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(wrong("there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// Tells a silence from other ends of a stream, whoever has noticed it: the system or the library.
struct Stream<R>(R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<ureq::Error>());
            if matches!(cause, Some(ureq::Error::Timeout(_))) { io::ErrorKind::TimedOut.into() } else { error }
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread::JoinHandle;

    fn args(url: String) -> ServerArgs {
        ServerArgs { url, token: None, token_file: None, cacert: None }
    }

    /// A service with prepared answers.
    pub(crate) struct Served {
        address: SocketAddr,
        thread: JoinHandle<Vec<String>>,
    }

    impl Served {
        /// Ends the service; the requests it got, head and body in one text.
        pub(crate) fn requests(self) -> Vec<String> {
            // A connection without a request, so that a test with fewer requests than answers ends.
            drop(TcpStream::connect(self.address).unwrap());
            self.thread.join().unwrap()
        }
    }

    /// A service that gives these answers, (status line, body), one connection each, and 404 after
    /// them. An empty status line stands for a connection that breaks before the answer.
    pub(crate) fn serve(answers: Vec<(&'static str, &'static str)>) -> (Client, Served) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            std::iter::from_fn(|| serve_one(&listener, || answers.next().unwrap_or(("404 Not Found", "{}")))).collect()
        });
        let url = format!("http://{address}/prefix/");
        (Client::new(&args(url)).unwrap(), Served { address, thread })
    }

    fn serve_one(listener: &TcpListener, answer: impl FnOnce() -> (&'static str, &'static str)) -> Option<String> {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if stream.read_line(&mut request).unwrap() == 0 {
                return None;
            }
        }
        let length =
            request.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut content = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut content).unwrap();
        let (status, body) = answer();
        if !status.is_empty() {
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
        Some(request + &String::from_utf8(content).unwrap())
    }

    #[test]
    fn a_stream_without_a_sign_of_life_is_broken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n:\n\r\n").unwrap();
            stream
        });
        let client = Client::new(&args(url)).unwrap();
        let mut stream = client.stream("/v1/stream", &[], &[], Duration::from_millis(200)).unwrap();
        let _open = thread.join().unwrap();
        let mut buffer = [0; 16];
        assert_eq!(stream.read(&mut buffer).unwrap(), 2, "what came is there before the rest has come");
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    fn get_error(status: &'static str, body: &'static str) -> String {
        let (client, served) = serve(vec![(status, body)]);
        let error = client.get::<serde_json::Value>("/v1/sources", &[]).unwrap_err().to_string();
        served.requests();
        error
    }

    #[test]
    fn a_path_prefix_and_odd_ids_arrive() {
        let (client, served) = serve(vec![("200 OK", "[1]")]);
        let got: Vec<u32> = client.get("/v1/stats", &[("source", "a+b &c{x=é}"), ("source", "d")]).unwrap();
        assert_eq!(got, [1]);
        let request = served.requests().remove(0);
        let line = "GET /prefix/v1/stats?source=a%2Bb%20%26c%7Bx%3D%C3%A9%7D&source=d HTTP/1.1";
        assert_eq!(request.lines().next(), Some(line));
    }

    #[test]
    fn a_problem_is_shown_with_its_lines() {
        let body = r#"{"type": "/problems/x", "title": "Invalid readings", "status": 400, "detail": "Nothing was counted.",
            "errors": [{"line": 3, "field": "value", "reason": "not a number"}, {"line": 4, "reason": "cut off"}],
            "error_count": 5}"#;
        let expected = "Invalid readings (400): Nothing was counted.\n  line 3: value: not a number\n  line 4: cut off\n  and 3 more";
        assert_eq!(get_error("400 Bad Request", body), expected);
    }

    #[test]
    fn a_line_names_its_field_once() {
        let check = |field: Option<&str>, reason: &str, expected: &str| {
            let problem = LineProblem { line: 7, field: field.map(str::to_owned), reason: reason.to_owned() };
            assert_eq!(problem.to_string(), expected);
        };
        check(Some("value"), "value is missing", "7: value is missing");
        check(Some("wind"), "value is missing", "7: wind: value is missing");
        check(Some("v"), "value is missing", "7: v: value is missing");
        check(Some("value"), "\"x\" is not a finite number", "7: value: \"x\" is not a finite number");
        check(None, "the line is not UTF-8", "7: the line is not UTF-8");
    }

    #[test]
    fn an_answer_that_is_no_problem_document_names_its_status() {
        let error = get_error("502 Bad Gateway", "<html>");
        assert!(error.contains("/prefix answered Bad Gateway (502): set MEANWHILE_URL if"), "{error}");
        assert!(get_error("200 OK", "<html>").contains("does not answer like a meanwhile service"));
        let broken = get_error("", "");
        assert!(broken.starts_with("no answer from http://127.0.0.1:") && !broken.contains(": io: "), "{broken}");
    }

    #[test]
    fn a_missing_server_is_said_with_the_remedy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let client = Client::new(&args(url.clone())).unwrap();
        let error = client.get::<serde_json::Value>("/v1/sources", &[]).unwrap_err();
        let expected = format!("no server at {url}: start one with `meanwhile serve` or set MEANWHILE_URL");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn addresses_that_are_none() {
        let check = |url: &str, expected: &str| {
            let error = Client::new(&args(url.to_owned())).err().unwrap();
            assert!(error.0.contains(expected), "{url}: {error}");
        };
        check("localhost:8080", "write http://HOST:PORT");
        check("http://", "write http://HOST:PORT");
        check("ftp://me:hush@h", "\"ftp://***@h\" is not an address");
    }
}
