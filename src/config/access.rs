//! Where the service listens, and who may come: other addresses than loopback need a decision about that.
//!
//! Called by `config.rs`. What those may do who come is in the file of tokens (`auth/`).

use super::duration;
use crate::stats::Millis;
use std::net::SocketAddr;

/// More is no limit that anybody would notice.
const MOST_REQUESTS: u32 = 1_000_000;

/// Reads an address. One that others can reach needs a file of tokens, or somebody who has said that it does not.
pub(super) fn listen(text: &str, has_tokens: bool, insecure: bool) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("\"{text}\" is not an address and a port: write 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080")
    })?;
    if has_tokens || insecure || address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(format!(
        "{address} can be reached from other machines, and everybody who does may read, write and forget everything: add \
         --auth-file FILE (`meanwhile token create` makes one), or --insecure where the network lets nobody else in"
    ))
}

pub(super) fn rate(text: &str) -> Result<u32, String> {
    let rate = text.parse().ok().filter(|rate| *rate <= MOST_REQUESTS);
    rate.ok_or_else(|| format!("\"{text}\" is not a number of requests per second from 0 to {MOST_REQUESTS}"))
}

/// After how long nothing heard of a source is told of. Sources are looked at once a second at most.
pub(super) fn silence(text: &str) -> Result<Millis, String> {
    let silence = duration(text)?;
    if silence >= 1_000 {
        Ok(silence)
    } else {
        Err(format!("{text} is too short: at least 1s can be told from a pause"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_let_in_by_decision_alone() {
        let check = |text: &str, has_tokens: bool, insecure: bool, expected: bool| {
            assert_eq!(listen(text, has_tokens, insecure).is_ok(), expected, "{text}");
        };
        for loopback in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            check(loopback, false, false, true);
        }
        for open in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[::ffff:10.0.0.1]:80", "128.0.0.1:80"] {
            check(open, false, false, false);
            check(open, true, false, true);
            check(open, false, true, true);
        }
        check("localhost", true, true, false);
    }
}
