//! Live clients by the thousand: `make bench-live`, or `cargo bench --bench live`.
//!
//! Starts real servers, opens real connections, prints tables and ends with 1 if a goal is missed. The measured server
//! has a core for itself; CPU seconds are the kernel's, memory is `Pss`. Times by the clock on the wall count only if
//! the machine is idle. docs/benchmarks.md says what the figures mean.

#[expect(dead_code, reason = "the benchmark of the whole service uses all of it")]
#[path = "../service/client.rs"]
mod client;
mod crowd;
mod cursors;
mod cycles;
mod deliver;
mod hold;
mod hot;
mod idle;
#[expect(dead_code, reason = "the benchmark of the whole service uses all of it")]
#[path = "../service/processes.rs"]
mod processes;
#[path = "../service/report.rs"]
mod report;
#[expect(dead_code, reason = "the benchmark of the whole service uses all of it")]
#[path = "../service/resp.rs"]
mod resp;
mod servers;
mod socketio;
mod stalled;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures live clients: their memory, the CPU of what they are sent, and what becomes of slow, returning and many ones.
#[derive(Parser)]
struct Options {
    /// Measure only this; may be given several times
    #[arg(long)]
    only: Vec<Section>,
    /// A smoke run of a minute with a tenth of the clients; no goal counts
    #[arg(long)]
    quick: bool,
    /// For how long tens of thousands of connections are held
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    hold: u64,
    /// Without the peer, which npm has to fetch
    #[arg(long)]
    no_peer: bool,
    /// The program to measure; another build, for a comparison
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_meanwhile"))]
    service: PathBuf,
    /// Holds clients at a server, for a benchmark that has no descriptors left
    #[arg(long, hide = true, num_args = 2, value_names = ["ADDRESS", "CLIENTS"])]
    hold_at: Option<Vec<String>>,
    /// Given by `cargo bench`; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Idle,
    Hold,
    Deliver,
    Hot,
    Stalled,
    Cursors,
    Cycles,
}

/// What all sections are told.
struct Run {
    service: PathBuf,
    /// Whether goals count.
    counts: bool,
    peer: bool,
}

impl Run {
    /// So many, or a tenth in a smoke run.
    fn of(&self, full: usize) -> usize {
        if self.counts { full } else { full / 10 }
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(run(&Options::parse())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what is asked for; returns whether all goals that count are met.
async fn run(options: &Options) -> Result<bool> {
    servers::settle()?;
    if let Some([address, clients]) = options.hold_at.as_deref() {
        hold::at(address.parse::<SocketAddr>()?, clients.parse()?).await?;
        return Ok(true);
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average {} before the run", load.split(' ').next().unwrap_or_default());
    // The service runs in a directory of its own, where a relative path leads nowhere.
    let service = std::path::absolute(&options.service)?;
    let run = Run { service, counts: !options.quick, peer: !options.no_peer };
    let wanted = |section| options.only.is_empty() || options.only.contains(&section);
    let mut goals = Vec::new();
    if wanted(Section::Idle) {
        goals.extend(idle::measure(&run).await?);
    }
    if wanted(Section::Hold) {
        goals.extend(hold::measure(&run, options.hold).await?);
    }
    if wanted(Section::Deliver) {
        goals.extend(deliver::measure(&run).await?);
    }
    if wanted(Section::Hot) {
        goals.extend(hot::measure(&run).await?);
    }
    if wanted(Section::Stalled) {
        goals.extend(stalled::measure(&run).await?);
    }
    if wanted(Section::Cursors) {
        goals.extend(cursors::measure(&run).await?);
    }
    if wanted(Section::Cycles) {
        goals.extend(cycles::measure(&run).await?);
    }
    let missed = report::verdict(&goals);
    for name in &missed {
        eprintln!("bench: goal missed: {name}");
    }
    Ok(missed.is_empty())
}
