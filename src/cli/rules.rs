//! `meanwhile rules`: looks at a file of rules, applies it to a service, and shows what a service goes by.
//!
//! `check` and `explain --file` read the file themselves and need no service; the others ask `/v1/rules`.

use super::client::Client;
use super::{Usage, output};
use crate::config::{ServerArgs, WrittenRules};
use crate::stats::source;
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::PathBuf;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile rules check rules.toml
      Says whether a file of rules, and the table it names, can be used.
  meanwhile rules apply rules.toml
      Makes it the rules of the service and of all that share its store, and says from when on.
  meanwhile rules show
      Prints the rules of the service.
  meanwhile rules explain weather.west.temperature
      Says which rule is for this source, in which groups it is, and what will change.
  meanwhile rules explain weather.west.temperature --file rules.toml
      The same for a file that is not applied yet.";

#[derive(clap::Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read a file of rules and say what is wrong with it
    Check {
        /// The file; the table that it names is looked for beside it
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },

    /// Make a file the rules of a service, from the next bucket on
    Apply {
        /// The file; the table that it names is looked for beside it
        #[arg(value_name = "FILE")]
        file: PathBuf,

        #[command(flatten)]
        server: ServerArgs,
    },

    /// Print the rules of a service as they were written, or its table of groups
    Show {
        /// Print the table instead
        #[arg(long)]
        groups: bool,

        #[command(flatten)]
        server: ServerArgs,
    },

    /// Say which rule is for a source, and in which groups it is
    Explain {
        /// Id of the source
        source: String,

        /// Ask this file instead of a service
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,

        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Deserialize)]
struct Applied {
    version: u64,
    from: Option<String>,
    changed: bool,
}

#[derive(Deserialize)]
struct Shown {
    version: u64,
    rules: Option<String>,
    groups: Option<String>,
    versions: Vec<ShownVersion>,
}

#[derive(Deserialize)]
struct ShownVersion {
    from: Option<String>,
}

#[derive(Deserialize)]
struct Explained {
    now: Option<ForSource>,
    later: Vec<ForSource>,
}

/// What a version of the rules is for a source.
#[derive(Deserialize)]
struct ForSource {
    version: u64,
    from: Option<String>,
    rule: Option<usize>,
    #[serde(rename = "match")]
    pattern: Option<String>,
    expect_seconds: Option<f64>,
    groups: Vec<String>,
    #[serde(default)]
    dropped: Vec<String>,
}

pub fn run(args: &RulesArgs) -> anyhow::Result<()> {
    match &args.command {
        Command::Check { file } => {
            let (_, rules) = WrittenRules::read(file)?;
            let (n, rows) = (rules.rules.len() as u64, rules.table_rows() as u64);
            let table =
                if rows == 0 { String::new() } else { format!(", {} of the table", output::amount(rows, "row")) };
            output::print(format!("{}: {}{table}\n", file.display(), output::amount(n, "rule")).as_bytes())?;
        }
        Command::Apply { file, server } => {
            // What is wrong is told by the names of the files here.
            let (written, _) = WrittenRules::read(file)?;
            let body = serde_json::to_vec(&written)?;
            let headers = [("Content-Type", "application/json")];
            let Applied { version, from, changed } = Client::new(server)?.post("/v1/rules", &headers, &body)?;
            let since = since(from.as_deref());
            let said = if changed { "version" } else { "nothing has changed: these are version" };
            output::print(format!("{said} {version} of the rules, {since}\n").as_bytes())?;
        }
        Command::Show { groups, server } => {
            let shown: Shown = Client::new(server)?.get("/v1/rules", &[])?;
            let text = if *groups { shown.groups } else { shown.rules };
            match text {
                _ if shown.version == 0 => output::note("there are no rules"),
                None if *groups => output::note("the rules have no table of groups"),
                None => output::note("the text of the rules is for those with the scope admin"),
                Some(text) => output::print(text.as_bytes())?,
            }
            if let Some(newest) = shown.versions.last() {
                output::note(&format!("version {}, {}", shown.version, since(newest.from.as_deref())));
            }
        }
        Command::Explain { source, file: Some(file), .. } => {
            source::check(source).map_err(|error| Usage(error.to_string()))?;
            let (_, rules) = WrittenRules::read(file)?;
            let explained = rules.explain(source);
            let rule = explained.rule.map(|index| &rules.rules[index]);
            let of_file = ForSource {
                version: 0,
                from: None,
                rule: explained.rule.map(|index| index + 1),
                pattern: rule.map(|rule| rule.pattern.to_string()),
                expect_seconds: rule.and_then(|rule| rule.expect).map(|span| span as f64 / 1_000.0),
                groups: explained.groups.iter().map(ToString::to_string).collect(),
                dropped: explained.dropped.iter().map(|(name, error)| format!("{name}: {error}")).collect(),
            };
            output::print(format!("{source}, by {}\n{}", file.display(), lines(&of_file)).as_bytes())?;
        }
        Command::Explain { source, file: None, server } => {
            let explained: Explained = Client::new(server)?.get("/v1/rules/explain", &[("source", source)])?;
            let mut said = String::new();
            if explained.now.is_none() {
                let _ = writeln!(said, "{source}: there are no rules yet");
            }
            for version in explained.now.iter().chain(&explained.later) {
                let (number, since) = (version.version, since(version.from.as_deref()));
                let _ = write!(said, "{source}, by version {number}, {since}\n{}", lines(version));
            }
            output::print(said.as_bytes())?;
        }
    }
    Ok(())
}

/// From when on a version is in force.
fn since(from: Option<&str>) -> String {
    from.map_or_else(|| "for all time".to_owned(), |from| format!("for buckets from {from} on"))
}

/// A line about the rule, and one for each group.
fn lines(explained: &ForSource) -> String {
    let mut said = match (explained.rule, &explained.pattern) {
        (Some(rule), Some(pattern)) => format!("  rule {rule}, match = \"{pattern}\"\n"),
        _ => "  no rule is for it\n".to_owned(),
    };
    if let Some(expect) = explained.expect_seconds {
        let _ = writeln!(said, "  a reading is expected every {expect} s");
    }
    said.extend(explained.groups.iter().map(|group| format!("  in {group}\n")));
    said.extend(explained.dropped.iter().map(|dropped| format!("  not in {dropped}\n")));
    said
}
