//! What a service runs with, in two stages: what the user wrote, and the validated [`Config`].
//!
//! The only place that reads the environment: every flag is also `MEANWHILE_<FLAG>`, and a key of the
//! TOML file; `config/layers.rs` puts the three together. Called by `cli/`; `app.rs` gets the
//! validated object. A value that is wrong is refused by the name of its flag, with what would be
//! right. Passwords in addresses are never printed: not in errors, not in `--help`, not by `Debug`.

mod access;
mod encryption;
mod file;
mod flags;
mod layers;
mod networks;
mod retention;
mod rules;
mod secret_file;
mod setting;
mod sharing;
mod web;

pub use encryption::{Encryption, TlsFiles};
pub use flags::{AuthFileArgs, ServeArgs, ServerArgs};
pub use layers::{Effective, Given, LoadError};
pub use networks::Networks;
pub use rules::{RulesError, WrittenRules};
pub use secret_file::warn_if_open;
pub use setting::{Origin, Setting};
pub use sharing::{Acks, Role};
pub use web::{Origins, Web};

use crate::stats::Millis;
use crate::stats::calendar::{Calendar, Zone};
use crate::stats::policy::{Late, MAX_IDEMPOTENCY_TTL, Policy, Retention};
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A day or two of waiting is a choice, more than a year a slip of the unit.
const MAX_DURATION: Millis = 366 * 86_400_000;
/// The store refuses frames older than half of it, and a request may be under way for 30 s.
const MIN_IDEMPOTENCY_TTL: Millis = 60_000;
/// Connections at once unless told otherwise: some 20 KiB each, and as many descriptors.
pub const MAX_CONNECTIONS: usize = 10_000;
/// Connections at once from one address unless told otherwise: far more than one program opens, few
/// enough that no single machine takes all places.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 256;

/// More than a process can have descriptors for.
const MOST_CONNECTIONS: usize = 1_000_000;

/// Whether texts in this environment may hold more than ASCII. The first of the three that is set
/// decides, as in the C library.
#[must_use]
pub fn locale_is_utf8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
    set.is_some_and(|value| {
        let value = value.to_string_lossy().to_ascii_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    })
}

/// Where the service manager that has started this process wants to hear of it, if it does.
#[must_use]
pub fn manager_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
}

/// Where a debug build is to end itself, for tests of crashes (`failpoint.rs`); a release build does not ask.
#[must_use]
pub fn failpoint() -> Option<String> {
    if cfg!(debug_assertions) { std::env::var_os("MEANWHILE_FAILPOINT")?.into_string().ok() } else { None }
}

/// Which rule a debug build is to break, for tests of the tests (`mutant.rs`); a release build does not ask.
#[must_use]
pub fn mutant() -> Option<String> {
    if cfg!(debug_assertions) { std::env::var_os("MEANWHILE_MUTANT")?.into_string().ok() } else { None }
}

/// Everything a service needs to know, valid as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listen: SocketAddr,
    pub store: StoreUrl,
    pub sink: SinkUrl,
    pub calendar: Calendar,
    pub policy: Policy,
    /// `None`: as the durability of the store asks for.
    pub hold: Option<Millis>,
    pub acks: Acks,
    pub role: Role,
    /// Without a slash at the end; `None`: where it listens.
    pub advertise: Option<String>,
    /// Which rows go, and when; empty: none.
    pub retain: Vec<Retention>,
    /// Of rules, for a store without any.
    pub rules: Option<PathBuf>,
    /// At least 1.
    pub max_connections: usize,
    /// 0: not limited.
    pub max_connections_per_address: usize,
    /// Who is believed what it says of its clients.
    pub trusted_proxies: Networks,
    /// Whether their connections begin with a PROXY header; only with some of them.
    pub proxy_protocol: bool,
    /// `None`: everybody may do everything.
    pub auth_file: Option<PathBuf>,
    /// Requests per second; 0: not limited.
    pub rate_per_address: u32,
    /// How long a client may listen to nothing; 0: for ever.
    pub live_idle: Millis,
    /// After how long sources count as silent; `None`: never.
    pub silent_after: Option<Millis>,
    /// `None`: plain HTTP.
    pub encryption: Option<Encryption>,
    pub web: Web,
    /// Clients of Socket.IO are greeted, and get back what they send.
    pub demo: bool,
}

impl Config {
    /// How long a client may listen to nothing; `None`: for ever.
    #[must_use]
    pub fn live_idle(&self) -> Option<Duration> {
        (self.live_idle > 0).then(|| Duration::from_millis(self.live_idle as u64))
    }
}

/// Which store, and where.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreUrl {
    /// The directory of the embedded store.
    Embedded(PathBuf),
    Redis(Secret),
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(path) => write!(f, "embedded:{}", path.display()),
            Self::Redis(url) => write!(f, "{url}"),
        }
    }
}

/// Which sink, and where.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkUrl {
    /// The directory of the CSV files.
    Csv(PathBuf),
    Postgres(Secret),
}

impl fmt::Display for SinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Csv(path) => write!(f, "csv:{}", path.display()),
            Self::Postgres(url) => write!(f, "{url}"),
        }
    }
}

/// An address that may hold a password: printing shows `***` in the place of user and password, and
/// of parameters that may be one.
#[derive(Clone, PartialEq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The whole address, for connecting; not for messages.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last `@`, because a password may hold one that was not escaped.
        let (start, rest) = match self.0.rfind('@') {
            Some(at) => (self.0[..at].find("://").map_or(0, |i| i + "://".len()), &self.0[at..]),
            None => (0, self.0.as_str()),
        };
        if start > 0 || rest.starts_with('@') {
            write!(f, "{}***", &self.0[..start])?;
        }
        match rest.split_once('?') {
            // An escaped name may be any.
            Some((address, query)) if query.contains('%') || query.to_ascii_lowercase().contains("pass") => {
                write!(f, "{address}?***")
            }
            _ => f.write_str(rest),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A flag whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {reason}")]
pub struct ConfigError {
    pub flag: &'static str,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Gives an error the name of its flag.
fn named<T, E: fmt::Display>(flag: &'static str, result: Result<T, E>) -> Result<T, ConfigError> {
    result.map_err(|error| ConfigError { flag, reason: error.to_string() })
}

impl TryFrom<&ServeArgs> for Config {
    type Error = ConfigError;

    fn try_from(args: &ServeArgs) -> Result<Self, ConfigError> {
        let zone: Zone = named("timezone", args.timezone.parse())?;
        let periods: Result<_, _> = args.periods.split(',').map(|period| period.trim().parse()).collect();
        let calendar = named("periods", periods.and_then(|periods| Calendar::new(periods, zone)))?;
        let idempotency_ttl = named("idempotency-ttl", duration(&args.idempotency_ttl))?;
        if !(MIN_IDEMPOTENCY_TTL..=MAX_IDEMPOTENCY_TTL).contains(&idempotency_ttl) {
            let reason = format!("{} is not between 1m and 7d", args.idempotency_ttl);
            return Err(ConfigError { flag: "idempotency-ttl", reason });
        }
        let policy = Policy {
            grace: named("grace", duration(&args.grace))?,
            lateness: named("lateness", duration(&args.lateness))?,
            late: named("late", late(&args.late))?,
            idempotency_ttl,
        };
        let store = named("store", store(&args.store))?;
        let shared = matches!(store, StoreUrl::Redis(_));
        let trusted_proxies: Networks =
            named("trusted-proxies", args.trusted_proxies.as_deref().unwrap_or_default().parse())?;
        if args.proxy_protocol && trusted_proxies.is_empty() {
            let reason = "only proxies may say who their clients are: add --trusted-proxies, such as loopback";
            return Err(ConfigError { flag: "proxy-protocol", reason: reason.to_owned() });
        }
        let retain = args.retain.as_deref().map(|rules| retention::parse(rules, &calendar, &policy));
        Ok(Self {
            retain: named("retain", retain.transpose())?.unwrap_or_default(),
            rules: args.rules.clone(),
            listen: named("listen", access::listen(&args.listen, args.auth_file.is_some(), args.insecure))?,
            store,
            sink: named("sink", sink(&args.sink))?,
            calendar,
            policy,
            hold: named("hold", args.hold.as_deref().map(duration).transpose())?,
            acks: named("acks", args.acks.parse().and_then(|acks| only_shared(acks, shared)))?,
            role: named("role", args.role.parse().and_then(|role| only_shared(role, shared)))?,
            advertise: named("advertise", args.advertise.as_deref().map(sharing::advertised).transpose())?,
            max_connections: named("max-connections", connections(&args.max_connections, 1))?,
            max_connections_per_address: named(
                "max-connections-per-address",
                connections(&args.max_connections_per_address, 0),
            )?,
            trusted_proxies,
            proxy_protocol: args.proxy_protocol,
            auth_file: args.auth_file.clone(),
            rate_per_address: named("rate-per-address", access::rate(&args.rate_per_address))?,
            live_idle: named("live-idle", duration(&args.live_idle))?,
            silent_after: named("silent-after", args.silent_after.as_deref().map(access::silence).transpose())?,
            web: Web {
                base_path: named("base-path", web::base_path(args.base_path.as_deref().unwrap_or_default()))?,
                origins: named("cors-origins", args.cors_origins.as_deref().unwrap_or_default().parse())?,
                encrypted: args.tls_cert.is_some(),
            },
            encryption: encryption::of(args)?,
            demo: args.demo,
        })
    }
}

fn store(url: &str) -> Result<StoreUrl, String> {
    const VALID: &str = "write embedded:PATH, redis://HOST:PORT or rediss://HOST:PORT?ca=FILE";
    match url.split_once(':') {
        Some(("embedded", "")) => Err("embedded: needs a directory: write embedded:./meanwhile-data".to_owned()),
        Some(("embedded", path)) => Ok(StoreUrl::Embedded(path.into())),
        Some((scheme @ ("redis" | "rediss"), address)) if address.len() > 2 && address.starts_with("//") => {
            let behind_password = address.rfind('@').map_or(address, |at| &address[at..]);
            let ca = behind_password.split_once('?').map(|(_, query)| query);
            match ca.map(|query| query.strip_prefix("ca=").unwrap_or_default()) {
                _ if behind_password.contains('#') => {
                    Err("a certificate is always looked at: leave out what begins with #".to_owned())
                }
                Some(_) if scheme == "redis" && behind_password.contains("?ca=") => {
                    Err("?ca= says whom to trust with TLS: write rediss://".to_owned())
                }
                Some("") if scheme == "rediss" => {
                    Err("there is no other parameter than ?ca=FILE, a file of certificates in PEM".to_owned())
                }
                _ => Ok(StoreUrl::Redis(Secret::new(url))),
            }
        }
        Some((scheme @ "redis+cluster", _)) => Err(format!("{scheme}:// is not supported yet: {VALID}")),
        _ => Err(format!("\"{}\" is not a store: {VALID}", Secret::new(url))),
    }
}

/// Reads the address of a sink. The reason says what would be right and holds no password.
pub fn sink(url: &str) -> Result<SinkUrl, String> {
    const VALID: &str = "write csv:DIR or postgres://USER:PASSWORD@HOST:PORT/DATABASE";
    match url.split_once(':') {
        Some(("csv", "")) => Err("csv: needs a directory: write csv:./meanwhile-data/csv".to_owned()),
        Some(("csv", path)) => Ok(SinkUrl::Csv(path.into())),
        Some(("postgres" | "postgresql", address)) if address.len() > 2 && address.starts_with("//") => {
            postgres_parameters(url)?;
            Ok(SinkUrl::Postgres(Secret::new(url)))
        }
        _ => Err(format!("\"{}\" is not a sink: {VALID}", Secret::new(url))),
    }
}

/// Refuses what would be ignored, a parameter with a slip in its name.
fn postgres_parameters(url: &str) -> Result<(), String> {
    const KNOWN: [&str; 7] = ["host", "port", "user", "dbname", "options", "sslmode", "sslrootcert"];
    const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
    let behind_password = url.rfind('@').map_or(url, |at| &url[at..]);
    let Some((_, query)) = behind_password.split_once('?') else {
        let escape = "write %3F for a ? in user or password, and %40 for an @ behind the host".to_owned();
        return if url.contains('?') { Err(escape) } else { Ok(()) };
    };
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name == "password" {
            return Err("write the password before the host: postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned());
        }
        if !KNOWN.contains(&name) {
            return Err(format!("there is no parameter \"{name}\" for PostgreSQL; there are {}", KNOWN.join(", ")));
        }
        if name == "sslmode" && !MODES.contains(&value) {
            return Err(format!("there is no sslmode \"{value}\"; there are {}", MODES.join(", ")));
        }
    }
    Ok(())
}

/// A value that is not the default asks for a store that others can reach.
fn only_shared<T: Default + PartialEq + fmt::Display>(value: T, shared: bool) -> Result<T, String> {
    if shared || value == T::default() {
        return Ok(value);
    }
    Err(format!(
        "{value} needs a store on Redis, the embedded one is of a single process: add --store redis://HOST:PORT"
    ))
}

fn connections(text: &str, least: usize) -> Result<usize, String> {
    let valid = |n: &usize| (least..=MOST_CONNECTIONS).contains(n);
    let wrong = || format!("\"{text}\" is not a number from {least} to {MOST_CONNECTIONS}");
    text.parse().ok().filter(valid).ok_or_else(wrong)
}

fn late(text: &str) -> Result<Late, String> {
    match text {
        "reopen" => Ok(Late::Reopen),
        "refuse" => Ok(Late::Refuse),
        _ => Err(format!("\"{text}\" is neither reopen nor refuse")),
    }
}

/// Reads a duration of whole units: `250ms`, `5s`, `1m`, `1h`, `7d`.
pub fn duration(text: &str) -> Result<Millis, String> {
    let unknown =
        || format!("\"{text}\" is not a duration: write a whole number and a unit, as in 250ms, 5s, 1m, 1h or 7d");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(unknown)?;
    let (number, unit) = text.split_at(unit_at);
    let length: Millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(unknown()),
    };
    if number.is_empty() {
        return Err(unknown());
    }
    let too_long = || format!("\"{text}\" is longer than a year: at most 366d are allowed");
    let n: Millis = number.parse().map_err(|_| too_long())?;
    n.checked_mul(length).filter(|&span| span <= MAX_DURATION).ok_or_else(too_long)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::calendar::Period;
    use clap::Parser;
    use std::path::Path;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn config(flags: &[&str]) -> Result<Config, String> {
        let command = Command::try_parse_from([&["serve"], flags].concat()).map_err(|e| e.to_string())?;
        Config::try_from(&command.serve).map_err(|e| e.to_string())
    }

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<Millis>| assert_eq!(duration(text).ok(), expected, "{text}");
        check("250ms", Some(250));
        check("5s", Some(5_000));
        check("1m", Some(60_000));
        check("1h", Some(3_600_000));
        check("7d", Some(7 * 86_400_000));
        check("0s", Some(0));
        check("366d", Some(MAX_DURATION));
        check("367d", None);
        check("99999999999999999999s", None);
        check("9223372036854775807d", None);
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "5S", "1mo", "1h30m", "ms"] {
            check(text, None);
        }
        for text in ["5x", "s"] {
            assert!(duration(text).unwrap_err().contains("250ms, 5s, 1m, 1h or 7d"), "{text}");
        }
    }

    #[test]
    fn without_flags_the_defaults_stand() {
        let config = config(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.store.to_string(), "embedded:./meanwhile-data");
        assert_eq!(config.sink.to_string(), "csv:./meanwhile-data/csv");
        let periods: Vec<_> = config.calendar.periods().iter().map(ToString::to_string).collect();
        assert_eq!((periods.join(","), config.calendar.zone().to_string()), ("1m,1h,1d".to_owned(), "UTC".to_owned()));
        let policy = Policy { grace: 5_000, lateness: 60_000, late: Late::Reopen, idempotency_ttl: 3_600_000 };
        assert_eq!((config.policy, config.hold), (policy, None));
        assert_eq!((config.acks, config.role, config.advertise), (Acks::Store, Role::All, None));
        assert_eq!((config.retain, config.rules), (vec![], None));
        let connections = (config.max_connections, config.max_connections_per_address);
        assert_eq!(connections, (MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS));
        assert_eq!((config.trusted_proxies, config.proxy_protocol), (Networks::default(), false));
        assert_eq!((config.auth_file, config.rate_per_address, config.live_idle), (None, 0, 60_000));
        assert_eq!((config.encryption, config.web), (None, Web::default()));
        assert!(!config.demo);
    }

    #[test]
    fn every_flag_arrives() {
        let config = config(&[
            "--listen=[::1]:0",
            "--store=redis://h:6379/1",
            "--sink=csv:/data",
            "--periods=10s, 1h",
            "--timezone=Europe/Berlin",
            "--grace=1s",
            "--lateness=2h",
            "--hold=250ms",
            "--late=refuse",
            "--idempotency-ttl=7d",
            "--acks=replica",
            "--role=ingest",
            "--advertise=http://10.0.0.5:8080",
            "--retain=1h=2y",
            "--rules=rules.toml",
            "--max-connections=1",
            "--max-connections-per-address=0",
            "--trusted-proxies=10.0.0.0/8",
            "--proxy-protocol",
            "--auth-file=auth.toml",
            "--rate-per-address=50",
            "--live-idle=5m",
            "--silent-after=10m",
            "--tls-cert=cert.pem",
            "--tls-key=key.pem",
            "--redirect-listen=127.0.0.1:80",
            "--public-url=https://means.example",
            "--base-path=/server1",
            "--cors-origins=*",
            "--demo",
        ])
        .unwrap();
        assert_eq!(config.listen.to_string(), "[::1]:0");
        assert_eq!(config.store, StoreUrl::Redis(Secret::new("redis://h:6379/1")));
        assert_eq!(config.sink, SinkUrl::Csv("/data".into()));
        assert_eq!(config.calendar.periods().len(), 2);
        assert_eq!(config.calendar.zone().to_string(), "Europe/Berlin");
        let policy =
            Policy { grace: 1_000, lateness: 7_200_000, late: Late::Refuse, idempotency_ttl: MAX_IDEMPOTENCY_TTL };
        assert_eq!((config.policy, config.hold), (policy, Some(250)));
        let advertised = config.advertise.as_deref();
        assert_eq!((config.acks, config.role, advertised), (Acks::Replica, Role::Ingest, Some("http://10.0.0.5:8080")));
        let kept = Retention { period: Period::Seconds(3600), keep: 732 * 86_400_000 };
        assert_eq!((config.retain.as_slice(), config.rules.as_deref()), (&[kept][..], Some(Path::new("rules.toml"))));
        assert_eq!((config.max_connections, config.max_connections_per_address), (1, 0));
        assert_eq!((config.trusted_proxies.to_string().as_str(), config.proxy_protocol), ("10.0.0.0/8", true));
        assert_eq!((config.live_idle(), config.silent_after), (Some(Duration::from_mins(5)), Some(600_000)));
        assert_eq!((config.auth_file, config.rate_per_address), (Some("auth.toml".into()), 50));
        let web = Web { base_path: Some("/server1".to_owned()), origins: Origins::Any, encrypted: true };
        assert_eq!(config.web, web);
        let encryption = config.encryption.unwrap();
        let files = TlsFiles { cert: "cert.pem".into(), key: "key.pem".into() };
        let redirect = encryption.redirect.map(|address| address.to_string());
        assert_eq!((encryption.files, redirect.as_deref()), (files, Some("127.0.0.1:80")));
        assert_eq!(encryption.public_url.as_deref(), Some("https://means.example"));
        assert!(config.demo);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let check = |flag: &str, parts: &[&str]| {
            let error = config(&[flag]).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{flag}: {error}");
            }
        };
        check("--listen=8080", &["--listen: ", "127.0.0.1:8080"]);
        check("--store=rediss://h#insecure", &["--store: ", "always looked at"]);
        check("--store=rediss://h?cert=a.pem", &["--store: ", "?ca=FILE"]);
        check("--store=redis://h?ca=a.pem", &["--store: ", "rediss://"]);
        check("--store=redis+cluster://a:1,b:2", &["redis+cluster:// is not supported yet"]);
        check("--store=redis://", &["--store: ", "embedded:PATH"]);
        check("--store=embedded:", &["needs a directory"]);
        check("--store=/tmp/x", &["is not a store", "embedded:PATH"]);
        check("--sink=postgres:h/db", &["--sink: ", "is not a sink", "postgres://USER:PASSWORD@HOST:PORT/DATABASE"]);
        check("--sink=postgres://", &["is not a sink"]);
        check("--sink=postgres://h/db?sslmode=verify", &["--sink: ", "no sslmode \"verify\"", "verify-full"]);
        check("--sink=postgres://h/db?port=1&ssl_mode=prefer", &["no parameter \"ssl_mode\"", "sslmode"]);
        check("--sink=postgres://h/db?password=x", &["before the host"]);
        check("--sink=csv:", &["needs a directory"]);
        check("--periods=1m,7m", &["--periods: ", "7m does not divide a day"]);
        check("--periods=", &["--periods: ", "write 10s, 1m"]);
        check("--timezone=Mars", &["--timezone: ", "Europe/Berlin"]);
        check("--grace=5", &["--grace: ", "250ms"]);
        check("--lateness=-1s", &["--lateness: "]);
        check("--hold=x", &["--hold: "]);
        check("--late=drop", &["--late: ", "reopen nor refuse"]);
        check("--idempotency-ttl=8d", &["--idempotency-ttl: ", "between 1m and 7d"]);
        check("--idempotency-ttl=59s", &["between 1m and 7d"]);
        check("--acks=two", &["--acks: ", "neither store nor replica"]);
        check("--acks=replica", &["--acks: replica needs a store on Redis", "--store redis://HOST:PORT"]);
        check("--role=writer", &["--role: ", "neither all nor ingest nor rollover"]);
        check("--role=ingest", &["--role: ingest needs a store on Redis"]);
        check("--advertise=host:80", &["--advertise: ", "http://HOST:PORT"]);
        check("--retain=1m=30", &["--retain: ", "30d"]);
        check("--retain=1w=1y", &["--retain: 1w is not stored", "1m, 1h, 1d"]);
        check("--listen=0.0.0.0:80", &["--listen: ", "--auth-file", "--insecure"]);
        check("--live-idle=soon", &["--live-idle: ", "is not a duration"]);
        check("--silent-after=0s", &["--silent-after: ", "at least 1s"]);
        check("--rate-per-address=x", &["--rate-per-address: ", "from 0 to 1000000"]);
        check("--max-connections=0", &["--max-connections: ", "from 1 to 1000000"]);
        check("--trusted-proxies=proxy", &["--trusted-proxies: ", "10.0.0.0/8", "loopback"]);
        check("--base-path=server1", &["--base-path: ", "/server1"]);
        check("--cors-origins=app.example", &["--cors-origins: ", "https://HOST"]);
        check("--tls-cert=a.pem", &["--tls-cert: ", "--tls-key FILE"]);
        check("--tls-key=a.pem", &["--tls-key: ", "--tls-cert FILE"]);
        check("--redirect-listen=127.0.0.1:80", &["--redirect-listen: ", "--tls-cert"]);
        check("--public-url=https://h", &["--public-url: ", "--redirect-listen"]);
        check("--proxy-protocol", &["--proxy-protocol: ", "--trusted-proxies"]);
        check("--max-connections-per-address=x", &["--max-connections-per-address: ", "from 0 to 1000000"]);
    }

    #[test]
    fn passwords_are_never_printed() {
        let check = |url: &str, expected: &str| {
            let secret = Secret::new(url);
            assert_eq!((format!("{secret}"), format!("{secret:?}")), (expected.to_owned(), expected.to_owned()));
            assert_eq!(secret.reveal(), url);
        };
        check("redis://h:6379/0", "redis://h:6379/0");
        check("redis://me:hush@h:6379", "redis://***@h:6379");
        check("redis://:hu/s@h@h:6379", "redis://***@h:6379");
        check("me:hush@h", "***@h");
        check("postgres://me:hu?sh@h/db", "postgres://***@h/db");
        check("postgres://h/db?user=me&password=hush", "postgres://h/db?***");
        check("postgres://me:hush@h/db?p%61ssword=hush", "postgres://***@h/db?***");
        check("postgres://me:hush@h/db?sslmode=prefer", "postgres://***@h/db?sslmode=prefer");
        for flag in [
            "--store=redis://:hush@h",
            "--store=valkey://:hush@h",
            "--store=hush@h",
            "--sink=mysql://me:hush@h",
            "--sink=postgres://me:hush@h/db",
            "--sink=postgresql://me:hush@h/db",
            "--sink=postgres://me:?hush@h/db",
            "--sink=postgres://h/db?password=hush",
            "--sink=postgres://h/db?user=me&pasword=hush",
        ] {
            let shown = |config: Config| format!("{config:?} {} {}", config.store, config.sink);
            let shown = config(&[flag]).map_or_else(|e| e, shown);
            assert!(!shown.contains("hush"), "{shown}");
        }
    }
}
