//! The command line: one file per command.
//!
//! Called by `main.rs`. `serve` runs the service in this process, `check` and `config` look at what it
//! would run with, `migrate` prepares its sink, `copy` opens sinks itself, `rules` can look into a file, `token` changes the file of tokens, `dev-cert` makes two files, `completions` and `man` print what a
//! shell wants, all others are clients of a running service (`client.rs`). Data goes to standard output, everything else to standard error
//! (`output.rs`). The flags that are also environment variables stand in `config/flags.rs`.

pub mod check;
pub mod client;
pub mod compare;
pub mod completions;
pub mod config;
pub mod copy;
pub mod dev_cert;
pub mod drain;
pub mod errors;
pub mod import;
pub mod man;
pub mod migrate;
pub mod output;
pub mod publish;
pub mod query;
mod reload;
pub mod rules;
pub mod serve;
pub mod sources;
pub mod state;
mod statistics;
pub mod summary;
pub mod token;
pub mod verify;
pub mod watch;
pub mod when;

/// Exact statistics per source and time bucket, folded as the readings arrive.
#[derive(clap::Parser)]
#[command(version = VERSION, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(clap::Subcommand)]
pub enum Command {
    /// Run the service: take readings over HTTP, keep their statistics, write finished buckets
    #[command(after_help = serve::EXAMPLES)]
    Serve(crate::config::Given),

    /// Look whether a service with these settings could run: configuration, store, sink
    #[command(after_help = check::EXAMPLES)]
    Check(crate::config::Given),

    /// Show the settings in force and where each came from
    #[command(after_help = config::EXAMPLES)]
    Config(crate::config::Given),

    /// Make the schema of the Postgres sink, or bring it up to date
    #[command(after_help = migrate::EXAMPLES)]
    Migrate(crate::config::Given),

    /// Bring files of readings into a running service, each reading counted once
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportArgs),

    /// Show the statistics of sources, bucket by bucket
    #[command(after_help = query::EXAMPLES)]
    Query(query::QueryArgs),

    /// Sum up sources over any range of time: all readings of each, of each period, or of all together
    #[command(after_help = summary::EXAMPLES)]
    Summary(summary::SummaryArgs),

    /// Compare two sources, or two times of one: are the means different, are the variances?
    #[command(after_help = compare::EXAMPLES)]
    Compare(compare::CompareArgs),

    /// List the known sources with their first and last bucket
    #[command(after_help = sources::EXAMPLES)]
    Sources(sources::SourcesArgs),

    /// Recompute rows from the files they came from, exactly, and compare what the service has
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),

    /// Show the open state of a source as the store holds it, in decimal
    #[command(after_help = state::EXAMPLES)]
    State(state::StateArgs),

    /// Show sources in the terminal as they change: present buckets, closed ones, a plot
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),

    /// Bring the rows of one sink into another, states and versions included
    #[command(after_help = copy::EXAMPLES)]
    Copy(copy::CopyArgs),

    /// Write and close everything that is open, now: before a change of zone, periods or store
    #[command(after_help = drain::EXAMPLES)]
    Drain(drain::DrainArgs),

    /// Say something to everybody who listens to a channel
    #[command(after_help = publish::EXAMPLES)]
    Publish(publish::PublishArgs),

    /// List unexpected errors of the service, with where they happened and how often
    #[command(after_help = errors::EXAMPLES)]
    Errors(errors::ErrorsArgs),

    /// Look at rules: which groups a source is in, and how often its readings are expected
    #[command(after_help = rules::EXAMPLES)]
    Rules(rules::RulesArgs),

    /// Make, list and take back what lets clients in
    #[command(after_help = token::EXAMPLES)]
    Token(token::TokenArgs),

    /// Make a certificate for development, and its key
    #[command(after_help = dev_cert::EXAMPLES)]
    DevCert(dev_cert::DevCertArgs),

    /// Print the script that lets a shell complete commands and flags
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),

    /// Print the manual page, or write one per command
    #[command(after_help = man::EXAMPLES)]
    Man(man::ManArgs),
}

/// With the commit it was built from, where there is one: see build.rs.
pub const VERSION: &str = env!("MEANWHILE_VERSION");

const EXAMPLES: &str = "EXAMPLES:
  meanwhile serve
      Runs on http://127.0.0.1:8080 and keeps its data in ./meanwhile-data.
  curl -d '{\"source\": \"kitchen\", \"value\": 21.5}' http://127.0.0.1:8080/v1/readings
      Counts one reading.
  meanwhile query kitchen
      Shows its statistics.

'meanwhile COMMAND --help' explains a command. Exit status: 0 done, 1 failed, 2 wrong usage.";

/// The command was used wrongly: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Usage {
    /// A wrong setting is wrong usage.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn of(error: crate::config::LoadError) -> Self {
        Self(error.to_string())
    }
}
