//! `meanwhile rules`: looks at a file of rules before it is used.
//!
//! `check` and `explain --file` read the file themselves and need no service.

use super::{Usage, output};
use crate::config::{RulesError, WrittenRules};
use crate::stats::rules::{Explained, Rules};
use crate::stats::source;
use std::path::PathBuf;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile rules check rules.toml
      Says whether a file of rules, and the table it names, can be used.
  meanwhile rules explain weather.west.temperature --file rules.toml
      Says which rule of the file is for this source, and in which groups it is.";

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

    /// Say which rule is for a source, and in which groups it is
    Explain {
        /// Id of the source
        source: String,

        /// Ask this file
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
}

pub fn run(args: &RulesArgs) -> anyhow::Result<()> {
    match &args.command {
        Command::Check { file } => {
            let (_, rules) = WrittenRules::read(file).map_err(wrong)?;
            let (n, rows) = (rules.rules.len() as u64, rules.table_rows() as u64);
            let table =
                if rows == 0 { String::new() } else { format!(", {} of the table", output::amount(rows, "row")) };
            output::print(format!("{}: {}{table}\n", file.display(), output::amount(n, "rule")).as_bytes())?;
        }
        Command::Explain { source, file } => {
            source::check(source).map_err(|error| Usage(error.to_string()))?;
            let (_, rules) = WrittenRules::read(file).map_err(wrong)?;
            output::print(explained(source, &rules, &rules.explain(source)).as_bytes())?;
        }
    }
    Ok(())
}

/// What is wrong with a file is a failure, and no wrong use of the command.
fn wrong(error: RulesError) -> anyhow::Error {
    error.into()
}

/// A line about the rule, and one for each group.
fn explained(source: &str, rules: &Rules, explained: &Explained) -> String {
    let mut said = match explained.rule {
        None => format!("{source}: no rule is for it\n"),
        Some(index) => format!("{source}: rule {}, match = \"{}\"\n", index + 1, rules.rules[index].pattern),
    };
    if let Some(expect) = explained.rule.and_then(|index| rules.rules[index].expect) {
        said.push_str(&format!("  a reading is expected every {} s\n", expect as f64 / 1_000.0));
    }
    said.extend(explained.groups.iter().map(|group| format!("  in {group}\n")));
    said.extend(explained.dropped.iter().map(|(name, error)| format!("  not in \"{name}\": {error}\n")));
    said
}
