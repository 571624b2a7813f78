//! Who a request comes from: the other end of the connection, or whom a trusted proxy names.
//!
//! Called by `request.rs` for every request; who is trusted comes from `--trusted-proxies`. What a client says of
//! itself never counts: a name is taken only from the right of `X-Forwarded-For`, where the proxies write, and only
//! as far as each of them is trusted. The PROXY protocol, which names a client before HTTP begins, is in `entrance.rs`.

use crate::config::Networks;
use axum::http::{HeaderMap, HeaderName};
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Who sends a request; every request has it among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct ClientAddress(pub(in crate::http) IpAddr);

/// The client of a request that came over a connection from `connected`.
pub(super) fn client(connected: IpAddr, headers: &HeaderMap, proxies: &Networks) -> ClientAddress {
    let mut client = connected.to_canonical();
    if !proxies.contains(client) {
        return ClientAddress(client);
    }
    if !headers.contains_key(X_FORWARDED_FOR) {
        return ClientAddress(headers.get(X_REAL_IP).and_then(|value| address(value.to_str().ok()?)).unwrap_or(client));
    }
    // Several headers are one list, in their order.
    for list in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        // In bytes: what a client wrote at the left may be anything, and does not hide what stands at the right.
        for hop in list.as_bytes().rsplit(|&byte| byte == b',') {
            let Some(named) = str::from_utf8(hop).ok().and_then(address) else { return ClientAddress(client) };
            client = named;
            if !proxies.contains(client) {
                return ClientAddress(client);
            }
        }
    }
    ClientAddress(client)
}

/// An address as proxies write it: some add the port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let address: Option<IpAddr> = text.parse().ok();
    address.or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(connected: &str, headers: &[(&'static str, &str)], expected: &str) {
        let proxies: Networks = "10.0.0.0/8,::1".parse().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let ClientAddress(found) = client(connected.parse().unwrap(), &map, &proxies);
        assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{connected} {headers:?}");
    }

    #[test]
    fn only_proxies_name_clients() {
        check("192.0.2.1", &[], "192.0.2.1");
        check("192.0.2.1", &[("x-forwarded-for", "198.51.100.7"), ("x-real-ip", "198.51.100.7")], "192.0.2.1");
        check("10.0.0.1", &[("x-forwarded-for", "198.51.100.7")], "198.51.100.7");
        check("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:198.51.100.7")], "198.51.100.7");
        check("10.0.0.1", &[("x-real-ip", "198.51.100.7")], "198.51.100.7");
        check("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn the_list_is_read_from_the_right_as_far_as_it_is_trusted() {
        check("10.0.0.1", &[("x-forwarded-for", "1.2.3.4, 198.51.100.7, 10.0.0.2")], "198.51.100.7");
        check("10.0.0.1", &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "198.51.100.7,::1")], "198.51.100.7");
        check("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        // X-Real-IP may be what a client sent and its proxy passed on.
        check("10.0.0.1", &[("x-forwarded-for", "198.51.100.7"), ("x-real-ip", "1.2.3.4")], "198.51.100.7");
    }

    #[test]
    fn what_is_no_address_ends_the_list() {
        check("10.0.0.1", &[("x-forwarded-for", "unknown")], "10.0.0.1");
        check("10.0.0.1", &[("x-forwarded-for", "1.2.3.4, nonsense, 10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[("x-forwarded-for", "\u{e9}, 198.51.100.7")], "198.51.100.7");
        check("10.0.0.1", &[("x-forwarded-for", "")], "10.0.0.1");
        check("10.0.0.1", &[("x-real-ip", "localhost")], "10.0.0.1");
    }

    #[test]
    fn addresses_as_proxies_write_them() {
        for (text, expected) in [
            ("198.51.100.7", Some("198.51.100.7")),
            (" 198.51.100.7:4711 ", Some("198.51.100.7")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("198.51.100.7:x", None),
            ("", None),
        ] {
            assert_eq!(address(text), expected.map(|text| text.parse().unwrap()), "{text:?}");
        }
    }
}
