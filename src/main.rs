//! The entry: reads the command line, runs the command, maps its result to an exit status.
//!
//! 0 done, 1 failed, 2 wrong usage. The commands are in `cli/`.

use clap::Parser;
use meanwhile::cli::{
    Cli, Command, Usage, check, compare, completions, config, copy, dev_cert, drain, errors, import, man, migrate,
    output, publish, query, rules, serve, sources, state, summary, token, verify, watch,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(given) => check::run(&given),
        Command::Config(given) => config::run(&given),
        Command::Migrate(given) => migrate::run(&given),
        Command::Import(args) => import::run(&args),
        Command::Query(args) => query::run(&args),
        Command::Summary(args) => summary::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Sources(args) => sources::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::State(args) => state::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Copy(args) => copy::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::DevCert(args) => dev_cert::run(&args),
        Command::Errors(args) => errors::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("error: {error:#}"));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}
