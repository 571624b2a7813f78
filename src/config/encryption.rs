//! What the service needs to speak TLS itself: its certificate, its key, and where plain HTTP is sent on from.
//!
//! Made by `config.rs` of `--tls-cert`, `--tls-key`, `--redirect-listen` and `--public-url`; the files are read by
//! `http/server/tls.rs`.

use super::{ConfigError, ServeArgs, access, named};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A certificate and where plain HTTP is sent on to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    pub files: TlsFiles,
    /// Listens there for plain HTTP, to answer where https is.
    pub redirect: Option<SocketAddr>,
    /// `https://HOST` or `https://HOST:PORT`, where that leads; `None`: the name that was asked for, if it is one of the
    /// certificate's.
    pub public_url: Option<String>,
}

/// A certificate with the chain behind it, and its private key; both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Puts the flags together; `None`: no TLS.
pub(super) fn of(args: &ServeArgs) -> Result<Option<Encryption>, ConfigError> {
    let wrong = |flag, reason: &str| Err(ConfigError { flag, reason: reason.to_owned() });
    let files = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => TlsFiles { cert: cert.clone(), key: key.clone() },
        (Some(_), None) => return wrong("tls-cert", "a certificate needs its private key: add --tls-key FILE"),
        (None, Some(_)) => return wrong("tls-key", "a key needs its certificate: add --tls-cert FILE"),
        (None, None) if args.redirect_listen.is_some() => {
            return wrong("redirect-listen", "there is no https to send anybody to: add --tls-cert and --tls-key");
        }
        (None, None) if args.public_url.is_some() => {
            return wrong("public-url", "it says where plain HTTP is sent on to: add --redirect-listen");
        }
        (None, None) => return Ok(None),
    };
    if args.public_url.is_some() && args.redirect_listen.is_none() {
        return wrong("public-url", "it says where plain HTTP is sent on to: add --redirect-listen");
    }
    // Who comes there learns where https is, and nothing else.
    let listen = |address: &str| access::listen(address, false, true);
    Ok(Some(Encryption {
        files,
        redirect: named("redirect-listen", args.redirect_listen.as_deref().map(listen).transpose())?,
        public_url: named("public-url", args.public_url.as_deref().map(public).transpose())?,
    }))
}

fn public(url: &str) -> Result<String, String> {
    let address = url.strip_suffix('/').unwrap_or(url);
    match address.strip_prefix("https://") {
        Some(host) if !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c)) => {
            Ok(address.to_owned())
        }
        _ => Err("write https://HOST or https://HOST:PORT, without a path".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses() {
        let check = |url: &str, expected: Option<&str>| assert_eq!(public(url).ok().as_deref(), expected, "{url}");
        check("https://means.example/", Some("https://means.example"));
        check("https://[::1]:8443", Some("https://[::1]:8443"));
        check("http://means.example", None);
        check("https://means.example/a", None);
        check("https://me:hush@means.example", None);
        check("https://", None);
    }
}
