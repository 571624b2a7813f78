//! The flags as they are written, with what `--help` says of each.
//!
//! Read by clap, `config/layers.rs` and `cli/`; what their values mean is judged in `config.rs`. Each is also an
//! environment variable and, of `serve`, a key of the file: a field here is all it takes.

use super::secret_file;
use std::path::PathBuf;

/// The flags of `meanwhile serve`, as they were written. Each is also an environment variable and a
/// key of the file; one whose value may hold a password says so by `hide_env_values`.
#[derive(clap::Args)]
pub struct ServeArgs {
    /// Address and port to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", env = "MEANWHILE_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// Where open buckets live: embedded:PATH, redis://HOST:PORT or with TLS `rediss://HOST:PORT?ca=FILE`, with USER:PASSWORD@ before the
    /// host where there is one and /DB behind the port for another database
    #[arg(
        long,
        value_name = "URL",
        env = "MEANWHILE_STORE",
        hide_env_values = true,
        default_value = "embedded:./meanwhile-data"
    )]
    pub store: String,

    /// Reads --store from a file of one line, which only its owner should be able to read
    #[arg(long, value_name = "PATH", env = "MEANWHILE_STORE_FILE")]
    pub store_file: Option<PathBuf>,

    /// Where finished buckets go: csv:DIR or postgres://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(
        long,
        value_name = "URL",
        env = "MEANWHILE_SINK",
        hide_env_values = true,
        default_value = "csv:./meanwhile-data/csv"
    )]
    pub sink: String,

    /// Reads --sink from a file of one line, which only its owner should be able to read
    #[arg(long, value_name = "PATH", env = "MEANWHILE_SINK_FILE")]
    pub sink_file: Option<PathBuf>,

    /// Lengths of the buckets kept: 10s, 1m, 15m, 1h, 1d, 1w, 1mo, 1y, ...
    #[arg(long, value_name = "LIST", env = "MEANWHILE_PERIODS", default_value = "1m,1h,1d")]
    pub periods: String,

    /// Time zone of days, weeks, months and of times written without an offset
    #[arg(long, value_name = "ZONE", env = "MEANWHILE_TIMEZONE", default_value = "UTC")]
    pub timezone: String,

    /// A bucket is first written to the sink this long after its end
    #[arg(long, value_name = "DURATION", env = "MEANWHILE_GRACE", default_value = "5s")]
    pub grace: String,

    /// It closes this long after its end; what comes until then is a correction
    #[arg(long, value_name = "DURATION", env = "MEANWHILE_LATENESS", default_value = "1m")]
    pub lateness: String,

    /// How long a page waits before it goes to the sink, so that a store that forgets its last
    /// seconds is noticed first [default: 3s where the store can forget, else 0s]
    #[arg(long, value_name = "DURATION", env = "MEANWHILE_HOLD")]
    pub hold: Option<String>,

    /// What happens to a reading whose bucket has closed: reopen takes it, refuse names it
    #[arg(long, value_name = "reopen|refuse", env = "MEANWHILE_LATE", default_value = "reopen")]
    pub late: String,

    /// How long an Idempotency-Key is remembered at least; a request may ask for up to 7d
    #[arg(long, value_name = "DURATION", env = "MEANWHILE_IDEMPOTENCY_TTL", default_value = "1h")]
    pub idempotency_ttl: String,

    /// Who must have a reading before it is acknowledged: the store, or also a replica of that Redis
    #[arg(long, value_name = "store|replica", env = "MEANWHILE_ACKS", default_value = "store")]
    pub acks: String,

    /// What this instance does of the work that those on one Redis share: ingest takes readings and has
    /// no sink, rollover has the sink and takes no readings
    #[arg(long, value_name = "all|ingest|rollover", env = "MEANWHILE_ROLE", default_value = "all")]
    pub role: String,

    /// Address by which clients reach this instance, for the others to name [default: that of --listen]
    #[arg(long, value_name = "URL", env = "MEANWHILE_ADVERTISE")]
    pub advertise: Option<String>,

    /// How long rows of a period are kept: 1m=30d,1h=2y; what is not named is kept for ever
    #[arg(long, value_name = "PERIOD=TIME,...", env = "MEANWHILE_RETAIN")]
    pub retain: Option<String>,

    /// File of rules for a store that has none; SIGHUP reads it again and applies it if it differs
    #[arg(long, value_name = "FILE", env = "MEANWHILE_RULES")]
    pub rules: Option<PathBuf>,

    /// Connections at once; at the limit the one unused for longest gives way to a new one
    #[arg(long, value_name = "N", env = "MEANWHILE_MAX_CONNECTIONS", default_value = "10000")]
    pub max_connections: String,

    /// Connections at once from one address; 0: no limit. Loopback addresses and trusted proxies have none
    #[arg(long, value_name = "N", env = "MEANWHILE_MAX_CONNECTIONS_PER_ADDRESS", default_value = "256")]
    pub max_connections_per_address: String,

    /// Proxies that are believed who their clients are (X-Forwarded-For, X-Real-IP): addresses and
    /// networks such as 10.0.0.0/8, and the word loopback
    #[arg(long, value_name = "LIST", env = "MEANWHILE_TRUSTED_PROXIES")]
    pub trusted_proxies: Option<String>,

    /// Connections from trusted proxies begin with a PROXY protocol header, version 1 or 2
    #[arg(long, env = "MEANWHILE_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,

    /// File of those who may use the service, made by `meanwhile token`; without one everybody may
    #[arg(long, value_name = "FILE", env = "MEANWHILE_AUTH_FILE")]
    pub auth_file: Option<PathBuf>,

    /// Listen on other addresses than loopback although everybody who reaches them may do everything
    #[arg(long, env = "MEANWHILE_INSECURE")]
    pub insecure: bool,

    /// Requests per second from one address; 0: no limit
    #[arg(long, value_name = "N", env = "MEANWHILE_RATE_PER_ADDRESS", default_value = "0")]
    pub rate_per_address: String,

    /// A client of Socket.IO that listens to nothing for so long is disconnected, where --auth-file asks who
    /// it is; 0s: never
    #[arg(long, value_name = "DURATION", env = "MEANWHILE_LIVE_IDLE", default_value = "60s")]
    pub live_idle: String,

    /// Tells live clients of sources of which nothing was heard for so long [default: of none]
    #[arg(long, value_name = "DURATION", env = "MEANWHILE_SILENT_AFTER")]
    pub silent_after: Option<String>,

    /// Speaks TLS with this certificate: a file in PEM with the chain behind it; with --tls-key
    #[arg(long, value_name = "FILE", env = "MEANWHILE_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of the certificate, in PEM; which only its owner should be able to read
    #[arg(long, value_name = "FILE", env = "MEANWHILE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Address and port to listen on for plain HTTP as well, which is sent on to https
    #[arg(long, value_name = "ADDR", env = "MEANWHILE_REDIRECT_LISTEN")]
    pub redirect_listen: Option<String>,

    /// Where plain HTTP is sent on to [default: the name that was asked for, if the certificate has it]
    #[arg(long, value_name = "URL", env = "MEANWHILE_PUBLIC_URL")]
    pub public_url: Option<String>,

    /// Path below which everything lies, for a proxy that passes it on: /server1
    #[arg(long, value_name = "PATH", env = "MEANWHILE_BASE_PATH")]
    pub base_path: Option<String>,

    /// Origins whose pages may ask, by HTTP and by Socket.IO: `https://HOST`, several with commas, or *
    #[arg(long, value_name = "LIST", env = "MEANWHILE_CORS_ORIGINS")]
    pub cors_origins: Option<String>,

    /// Greets clients of Socket.IO with a message and sends back what they send as one, to try out
    /// proxies and clients with
    #[arg(long, env = "MEANWHILE_DEMO")]
    pub demo: bool,

    /// What to log: a level such as info or debug, or a list such as warn,meanwhile=debug
    #[arg(long, value_name = "FILTER", env = "MEANWHILE_LOG", default_value = "info")]
    pub log: String,

    /// How to log: lines for people, or one JSON object per line
    #[arg(long, value_name = "text|json", env = "MEANWHILE_LOG_FORMAT", default_value = "text")]
    pub log_format: String,
}

/// Where those who may use a service are listed, for the commands that change it.
#[derive(clap::Args)]
pub struct AuthFileArgs {
    /// File of tokens and users; --auth-file of the service. It is made if it is not there
    #[arg(long, value_name = "FILE", env = "MEANWHILE_AUTH_FILE")]
    pub auth_file: PathBuf,
}

/// The flags every command has that talks to a running service.
#[derive(clap::Args)]
pub struct ServerArgs {
    /// Address of the service; a path prefix is allowed
    #[arg(
        long,
        value_name = "URL",
        env = "MEANWHILE_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    pub url: String,

    /// Token for a service that asks who its clients are; better in the variable or in a file, because others on the
    /// machine can see command lines
    #[arg(long, value_name = "TOKEN", env = "MEANWHILE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Reads the token from a file of one line, which only its owner should be able to read
    #[arg(long, value_name = "PATH", env = "MEANWHILE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Trusts the authorities of this file alone, in PEM, for https; the certificate of meanwhile dev-cert,
    /// for example [default: those that browsers trust]
    #[arg(long, value_name = "FILE", env = "MEANWHILE_CACERT")]
    pub cacert: Option<PathBuf>,
}

impl ServerArgs {
    /// What the requests say of who sends them; `None` if nothing was given. The token itself wins over the file.
    ///
    /// # Errors
    /// If the file cannot be read, or holds something else than a line.
    pub fn token(&self) -> Result<Option<String>, String> {
        let read = || {
            let path = self.token_file.as_ref()?;
            Some(secret_file::read(path).map_err(|reason| format!("--token-file: {reason}")))
        };
        // An empty variable is one that is not set.
        let given = self.token.clone().filter(|token| !token.is_empty());
        given.map(Ok).or_else(read).transpose()
    }
}
