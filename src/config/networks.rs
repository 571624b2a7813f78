//! Networks of IP addresses, as `--trusted-proxies` lists them.
//!
//! Made by `config.rs`; asked by `http/server/` for whose word about a client's address counts. An IPv4 address
//! that comes mapped into IPv6 is that IPv4 address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Written instead of `127.0.0.0/8` and `::1`.
const LOOPBACK: &str = "loopback";

/// A list of networks; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// An address of which the first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Networks {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the networks has this address. Costs a comparison for each.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut networks = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if word == LOOPBACK {
                networks.extend(["127.0.0.0/8", "::1"].map(|word| network(word).expect("a network")));
            } else {
                networks.push(network(word)?);
            }
        }
        Ok(Self(networks))
    }
}

fn network(word: &str) -> Result<Network, String> {
    let wrong =
        || format!("\"{word}\" is no address and no network: write 10.0.0.5, 10.0.0.0/8, fd00::/8 or {LOOPBACK}");
    let (address, bits) = word.split_once('/').map_or((word, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(most), str::parse).ok().filter(|&bits| bits <= most).ok_or_else(wrong)?;
    Ok(Network { address, bits })
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Network { address, bits }) in self.0.iter().enumerate() {
            write!(f, "{}{address}/{bits}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_are_in() {
        let check = |networks: &str, inside: &[&str], outside: &[&str]| {
            let list: Networks = networks.parse().unwrap();
            for address in inside {
                assert!(list.contains(address.parse().unwrap()), "{address} in {networks}");
            }
            for address in outside {
                assert!(!list.contains(address.parse().unwrap()), "{address} not in {networks}");
            }
        };
        check("", &[], &["127.0.0.1", "::1", "0.0.0.0"]);
        check("loopback", &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"], &["128.0.0.1", "::2", "::"]);
        check("10.0.0.5", &["10.0.0.5", "::ffff:10.0.0.5"], &["10.0.0.4", "10.0.0.6", "::10.0.0.5"]);
        check("10.0.0.5/8", &["10.255.0.1"], &["11.0.0.5", "9.255.255.255"]);
        check("10.128.0.0/9, fd00::/8", &["10.128.0.0", "10.255.0.1", "fdff::1"], &["10.127.255.255", "fe00::1"]);
        check("0.0.0.0/0", &["1.2.3.4"], &["::1"]);
        check("::/0", &["::1"], &["1.2.3.4"]);
        check("2001:db8::/127", &["2001:db8::", "2001:db8::1"], &["2001:db8::2"]);
    }

    #[test]
    fn what_is_no_network() {
        for text in ["10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0", "proxy", "10.0.0.1 10.0.0.2"] {
            let error = text.parse::<Networks>().unwrap_err();
            assert!(error.contains("10.0.0.0/8"), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_reads_back() {
        let list: Networks = "loopback,10.0.0.5,fd00::/8".parse().unwrap();
        assert_eq!(list.to_string(), "127.0.0.0/8,::1/128,10.0.0.5/32,fd00::/8");
        assert_eq!(list.to_string().parse(), Ok(list));
    }
}
