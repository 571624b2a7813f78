//! What a connection passes before HTTP is spoken on it: the PROXY protocol, where a trusted proxy speaks it, and TLS.
//!
//! Called by `server.rs` for every connection. A proxy that passes on bytes (a load balancer, `stunnel`) says by a
//! header before the first byte who its client is (the PROXY protocol, versions 1 and 2). Whether one has to come is
//! settled by the address of the peer and never by what it sends (section 2 of the specification: the receiver must
//! not guess). What proxies say within HTTP is in `client.rs`, the certificate in `tls.rs`.

use super::stream::Stream;
use super::tls::Tls;
use crate::config::Networks;
use crate::http::problem::{Kind, Problem};
use proxy_header::{ParseConfig, ProxyHeader};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes of the shortest header of all, `PROXY UNKNOWN\r\n`: so many can be read without reading past it.
const LEAST_BYTES: usize = 15;
/// Bytes of the longest header of version 1 (section 2.1).
const MAX_V1_BYTES: usize = 107;
/// Bytes of a header of version 2 that are not in its length (section 2.2), and how long it may say that it is: addresses
/// have 36 bytes, the names and certificates that a proxy may add some hundred.
const V2_BYTES: usize = 16;
const MAX_V2_LENGTH: usize = 2048;

/// The first byte of a TLS connection (RFC 8446, section 5.1: a handshake).
const TLS_HANDSHAKE: u8 = 22;

/// Who may come in, and how.
#[derive(Clone, Default)]
pub struct Entrance {
    proxies: Networks,
    proxy_protocol: bool,
    tls: Option<Arc<Tls>>,
}

/// A connection that does not come to HTTP.
pub(super) enum Closed {
    /// The client would not understand a word.
    Silently,
    With(TcpStream, Problem),
}

impl Entrance {
    /// `proxies` are believed what they say of their clients; with `proxy_protocol` their connections begin with a PROXY
    /// header.
    #[must_use]
    pub fn new(proxies: Networks, proxy_protocol: bool) -> Self {
        Self { proxies, proxy_protocol, tls: None }
    }

    /// With it every connection is encrypted.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    pub(super) fn proxies(&self) -> &Networks {
        &self.proxies
    }

    /// Whether a connection is one of a proxy, and so of many clients.
    pub(super) fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.contains(peer)
    }

    /// Whether a connection from there has to begin with a PROXY header.
    pub(super) fn announces(&self, peer: IpAddr) -> bool {
        self.proxy_protocol && self.is_proxy(peer)
    }

    /// Whether a connection from there begins with HTTP.
    pub(super) fn is_plain(&self, peer: IpAddr) -> bool {
        self.tls.is_none() && !self.announces(peer)
    }

    /// Goes through what a connection has to begin with, each step within this time. Returns on what HTTP is spoken,
    /// and with whom.
    pub(super) async fn let_in(
        &self,
        mut stream: TcpStream,
        peer: IpAddr,
        time: Duration,
    ) -> Result<(Stream, IpAddr), Closed> {
        let mut client = peer;
        if self.announces(peer) {
            match announced(&mut stream, time).await {
                Ok(named) => client = named.unwrap_or(peer),
                Err(problem) => return Err(Closed::With(stream, problem)),
            }
        }
        let Some(tls) = &self.tls else { return Ok((Stream::Plain(stream), client)) };
        let mut first = [0];
        match timeout(time, stream.peek(&mut first)).await {
            Ok(Ok(1)) if first[0] == TLS_HANDSHAKE => {}
            Ok(Ok(1)) if first[0].is_ascii_uppercase() => {
                let detail = "plain HTTP is not spoken here: use https://";
                return Err(Closed::With(stream, Problem::new(Kind::UnreadableHead, detail)));
            }
            _ => return Err(Closed::Silently),
        }
        match timeout(time, tls.accept(stream)).await {
            Ok(Ok(stream)) => Ok((Stream::Tls(stream), client)),
            // The client has been told within TLS, where it could be.
            _ => Err(Closed::Silently),
        }
    }
}

/// Reads the PROXY header that a connection has to begin with, and nothing behind it. Returns the client; `None` if the
/// proxy speaks for itself, as it does to see whether the service is alive.
async fn announced(stream: &mut TcpStream, time: Duration) -> Result<Option<IpAddr>, Problem> {
    let reason = match timeout(time, header(stream)).await {
        Ok(Ok(client)) => return Ok(client),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("nothing complete came within {} s", time.as_secs()),
    };
    let detail = format!(
        "a connection from this address has to begin with a PROXY header (--proxy-protocol, --trusted-proxies): {reason}"
    );
    Err(Problem::new(Kind::UnreadableHead, detail))
}

async fn header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let mut bytes = vec![0; LEAST_BYTES];
    stream.read_exact(&mut bytes).await?;
    loop {
        match ProxyHeader::parse(&bytes, config) {
            Ok((header, _)) => return Ok(header.proxied_address().map(|address| address.source.ip().to_canonical())),
            Err(proxy_header::Error::BufferTooShort) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        let more = missing(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is too long"))?;
        let read = bytes.len();
        bytes.resize(read + more, 0);
        stream.read_exact(&mut bytes[read..]).await?;
    }
}

/// How many bytes certainly belong to a header that is not complete; `None` if they are too many.
fn missing(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'P') {
        // Ends with its line, wherever that is.
        return (bytes.len() < MAX_V1_BYTES).then_some(1);
    }
    let Some(length) = bytes.get(V2_BYTES - 2..V2_BYTES) else { return Some(V2_BYTES - bytes.len()) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    (length <= MAX_V2_LENGTH).then(|| (V2_BYTES + length).saturating_sub(bytes.len())).filter(|&more| more > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proxy_header::{Protocol, ProxiedAddress, Tlv};
    use std::net::SocketAddr;

    /// What is read of these bytes, and how many are left.
    fn read(bytes: &[u8]) -> (io::Result<Option<IpAddr>>, usize) {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(header(&mut rest));
        (read, rest.len())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn headers_name_the_client() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            let (client, left) = read(&[bytes, b"GET / HTTP/1.1\r\n"].concat());
            assert_eq!((client.unwrap(), left), (expected.map(ip), 16), "{bytes:?}");
        };
        check(b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 80\r\n", Some("198.51.100.7"));
        check(b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n", Some("2001:db8::1"));
        check(b"PROXY TCP6 ::ffff:198.51.100.7 ::1 4711 80\r\n", Some("198.51.100.7"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None);
        // LOCAL, without and with addresses.
        check(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", None);
        check(b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02", None);
        check(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02", Some("1.2.3.4"));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let check = |bytes: &[u8]| assert!(read(bytes).0.is_err(), "{bytes:?}");
        check(b"GET /healthz HTTP/1.1\r\n\r\n");
        check(b"POST /v1/readings HTTP/1.1\r\n\r\n");
        check(b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 80");
        check(b"PROXY TCP4 2001:db8::1 ::1 4711 80\r\n");
        check(b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 65536\r\n");
        check(&[&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat());
        check(b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02");
        let long = u16::try_from(MAX_V2_LENGTH + 1).unwrap().to_be_bytes();
        check(&[&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &long, &[0; 4096]].concat());
    }

    proptest! {
           #[test]
           fn what_proxies_write_is_read_and_nothing_behind_it(
               source: SocketAddr,
               port: u16,
               v2: bool,
               noise in prop::option::of(0_usize..500),
               behind in prop::collection::vec(any::<u8>(), 0..100),
           ) {
               let destination = SocketAddr::new(source.ip(), port);
               let address = ProxiedAddress { protocol: Protocol::Stream, source, destination };
               let mut header = ProxyHeader::with_address(address);
               let mut bytes = Vec::new();
               if v2 {
                   if let Some(bytes) = noise {
    header.append_tlv(Tlv::Noop(bytes));
    }
                   header.encode_v2(&mut bytes).unwrap();
               } else {
                   header.encode_v1(&mut bytes).unwrap();
               }
               bytes.extend_from_slice(&behind);
               let (client, left) = read(&bytes);
               prop_assert_eq!((client.unwrap(), left), (Some(source.ip().to_canonical()), behind.len()));
           }

           #[test]
           fn arbitrary_bytes_end_in_an_answer_or_an_error(
               begin in prop::sample::select(vec![&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x21"]),
               rest in prop::collection::vec(any::<u8>(), 0..300),
           ) {
               let bytes = [begin, &rest].concat();
               let (_, left) = read(&bytes);
               prop_assert!(left <= bytes.len());
           }
       }
}
