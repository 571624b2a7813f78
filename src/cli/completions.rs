//! `meanwhile completions`: the script that lets a shell complete commands, flags and values.
//!
//! Made from the command line's own definition in `cli/mod.rs`, so it knows what the program knows.

use super::{Cli, output};
use clap::CommandFactory;
use clap_complete::Shell;

pub const EXAMPLES: &str = "EXAMPLES:
  source <(meanwhile completions bash)
      For this shell; in ~/.bashrc for every new one.
  meanwhile completions zsh > \"${fpath[1]}/_meanwhile\"
  meanwhile completions fish > ~/.config/fish/completions/meanwhile.fish";

#[derive(clap::Args)]
pub struct CompletionsArgs {
    /// The shell to write it for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "meanwhile", &mut script);
    output::print(&script)?;
    Ok(())
}
