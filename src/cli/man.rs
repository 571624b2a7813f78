//! `meanwhile man`: the manual pages, made from the command line's own definition in `cli/mod.rs`.
//!
//! Prints the page of the program, or writes one page per command for a packager to install.

use super::{Cli, output};
use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;
use std::path::PathBuf;
use std::{fs, iter};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile man | man -l -
      Shows the page.
  meanwhile man --dir ~/.local/share/man/man1
      Writes meanwhile.1, meanwhile-query.1, ...: 'man meanwhile-query' finds them.";

#[derive(clap::Args)]
pub struct ManArgs {
    /// Write a page per command into this directory, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the page, or writes the pages.
pub fn run(args: &ManArgs) -> anyhow::Result<()> {
    let pages = pages()?;
    let Some(dir) = &args.dir else {
        output::print(pages[0].1.as_bytes())?;
        return Ok(());
    };
    let failed = || format!("cannot write the manual pages into {}: --dir chooses another place", dir.display());
    fs::create_dir_all(dir).with_context(failed)?;
    for (name, page) in &pages {
        fs::write(dir.join(name), page).with_context(failed)?;
    }
    output::note(&format!("{} pages in {}", pages.len(), dir.display()));
    Ok(())
}

/// The name of the file and the text of each page; the page of the program is the first.
fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let commands: Vec<_> = iter::once(&program).chain(program.get_subcommands()).collect();
    commands.into_iter().map(|command| page(&Man::new(command.clone()))).collect()
}

fn page(man: &Man) -> anyhow::Result<(String, String)> {
    let mut page = Vec::new();
    man.render(&mut page)?;
    // The text after the flags: under its own name, and line by line as it was written, so that a
    // command can be copied.
    let page = String::from_utf8(page)?
        .replace(".SH EXTRA\nEXAMPLES:\n", ".SH EXAMPLES\n.nf\n")
        .replace("\n.SH VERSION\n", "\n.fi\n.SH VERSION\n");
    Ok((man.get_filename(), page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_examples() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..2], ["meanwhile.1", "meanwhile-serve.1"]);
        for (name, page) in &pages {
            assert!(page.contains(".SH EXAMPLES\n.nf\n  ") && page.contains("\n.fi\n.SH VERSION\n"), "{name}: {page}");
            assert!(!page.contains("EXTRA"), "{name}");
        }
    }
}
