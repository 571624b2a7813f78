//! Tens of thousands of connections that stay: 15,000 at one instance, then 30,000 at two on one Redis.
//!
//! A process may open fewer files than that, so each instance has its clients in a process of their own: this program
//! once more, with `--hold-at`. Its last line says how many have lost their connection.

use crate::Run;
use crate::crowd::Crowd;
use crate::processes::free_port;
use crate::report::Goal;
use crate::servers::{Server, World};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::io::{BufRead, BufReader, Write, stdin};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::time::sleep;

const CLIENTS: usize = 15_000;
const CHANNELS: usize = 100;

/// Prints what was held and what was lost, and returns the goals.
pub(crate) async fn measure(run: &Run, seconds: u64) -> Result<Vec<Goal>> {
    let clients = run.of(CLIENTS);
    println!("\nHold: {clients} clients for each instance, for {seconds} s");
    println!("{:>10}{:>12}{:>12}{:>14}{:>14}", "instances", "clients", "lost", "KiB each", "CPU, cores");
    let mut goals = Vec::new();
    for instances in [1, 2] {
        let world = World::start("everysec")?;
        let lost = held(run, &world, instances, clients, Duration::from_secs(seconds)).await?;
        let name = format!("hold: connections lost of {}, {instances} instances", instances * clients);
        goals.push(Goal::new(name, lost as f64, 0.0, run.counts));
    }
    Ok(goals)
}

async fn held(run: &Run, world: &World, instances: usize, clients: usize, time: Duration) -> Result<usize> {
    let mut servers: Vec<Server> = Vec::new();
    for n in 0..instances {
        // Who only hears messages needs no sink.
        let flags: &[&str] = if n == 0 { &[] } else { &["--role", "ingest"] };
        servers.push(world.service(&run.service, free_port()?, flags)?);
    }
    let memory = || servers.iter().map(Server::memory_kib).sum::<Result<f64>>();
    let cpu = || servers.iter().map(|server| server.process.cpu_seconds()).sum::<Result<f64>>();
    let before = memory()?;
    let crowds: Vec<Elsewhere> =
        servers.iter().map(|server| Elsewhere::gather(server.address, clients)).collect::<Result<_>>()?;
    let worked = cpu()?;
    sleep(time).await;
    let cores = (cpu()? - worked) / time.as_secs_f64();
    let all = instances * clients;
    let each = (memory()? - before) / all as f64;
    let counted = servers.iter().map(Server::clients).sum::<Result<usize>>()?;
    let mut lost = all - counted.min(all);
    for crowd in crowds {
        lost = lost.max(crowd.end()?);
    }
    println!("{instances:10}{all:12}{lost:12}{each:14.2}{cores:14.3}");
    Ok(lost)
}

/// Clients in a process of their own.
struct Elsewhere {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Elsewhere {
    /// Returns when they are connected.
    fn gather(server: SocketAddr, clients: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--hold-at", &server.to_string(), &clients.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut crowd = Self { child, said };
        let line = crowd.line()?;
        ensure!(line == "all", "the clients did not connect");
        Ok(crowd)
    }

    /// Lets them go; how many had lost their connection.
    fn end(mut self) -> Result<usize> {
        self.child.stdin.take().context("it is piped")?.write_all(b"enough\n")?;
        self.line()?.parse().context("the clients have ended early")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process: connects, says so, waits for a line, says how many were lost.
pub(crate) async fn at(server: SocketAddr, clients: usize) -> Result<()> {
    let crowd = Crowd::gather(server, 0..clients, |n| json!(format!("held-{}", n % CHANNELS)), |_, _| {}).await?;
    println!("all");
    tokio::task::spawn_blocking(|| stdin().read_line(&mut String::new())).await??;
    println!("{}", crowd.lost());
    Ok(())
}
