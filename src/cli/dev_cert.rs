//! `meanwhile dev-cert`: a certificate that nobody has signed, for development and for tests.
//!
//! Runs without a service. The pair is what `serve --tls-cert --tls-key` takes, and the certificate is what `--cacert`
//! of the other commands trusts. Nothing that exists is overwritten.

use super::output;
use crate::clock::Clock;
use anyhow::Context;
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile dev-cert
      For this machine: meanwhile-cert.pem and meanwhile-key.pem in this directory.
  meanwhile dev-cert --out /tmp/tls --name means.test --name 10.0.0.5
      For other names and addresses.

Browsers and other programs trust it only where they are told to. For the world, have a
certificate signed by an authority, and renew it in place: the service notices.";

const CERTIFICATE: &str = "meanwhile-cert.pem";
const KEY: &str = "meanwhile-key.pem";
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Some systems take none that is for longer.
const VALID: TimeDelta = TimeDelta::days(397);
/// The clocks of others may be behind.
const AHEAD: TimeDelta = TimeDelta::days(1);

#[derive(clap::Args)]
pub struct DevCertArgs {
    /// Directory for the two files; made if it is not there
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,

    /// Name or address that the certificate is for; may be repeated [default: this machine]
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
}

/// Writes the pair, and prints what to do with it.
pub fn run(args: &DevCertArgs) -> anyhow::Result<()> {
    let names = if args.names.is_empty() { NAMES.map(str::to_owned).to_vec() } else { args.names.clone() };
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = parameters(&names)?.self_signed(&key).context("cannot make a certificate")?;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let (cert_file, key_file) = (args.out.join(CERTIFICATE), args.out.join(KEY));
    write(&key_file, &key.serialize_pem(), 0o600)?;
    write(&cert_file, &certificate.pem(), 0o644)?;
    let (cert, key, name) = (cert_file.display(), key_file.display(), in_an_address(&names[0]));
    let next = format!(
        "meanwhile serve --tls-cert {cert} --tls-key {key}\n\
         meanwhile sources --url https://{name}:8080 --cacert {cert}\n"
    );
    output::print(next.as_bytes())?;
    Ok(())
}

fn parameters(names: &[String]) -> anyhow::Result<CertificateParams> {
    let wrong = || super::Usage(format!("--name: \"{}\" is not a name or an address", names.join("\", \"")));
    let mut parameters = CertificateParams::new(names).map_err(|_| wrong())?;
    let now = DateTime::<Utc>::from_timestamp_millis(Clock::System.now()).unwrap_or_default();
    let day = |at: DateTime<Utc>| date_time_ymd(at.year(), at.month() as u8, at.day() as u8);
    (parameters.not_before, parameters.not_after) = (day(now - AHEAD), day(now + VALID));
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "meanwhile, for development");
    Ok(parameters)
}

fn in_an_address(name: &str) -> String {
    if name.contains(':') { format!("[{name}]") } else { name.to_owned() }
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}; nothing is overwritten", path.display()))
}
