//! What clients cost that do harm: ten thousand slow connections, and bodies that are refused.
//!
//! Slow ones send one byte in five seconds, half of them in a head, half in a body, while a few
//! ordinary clients post; then all slow ones have to be gone. A refused body is sent whole and compared
//! with the same one accepted.

use crate::client::{Client, post_readings};
use crate::processes::{Service, StoreKind};
use crate::report::Goal;
use anyhow::{Context, Result, ensure};
use meanwhile::clock;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

/// As many as the service takes unless told otherwise.
const SLOW: usize = 10_000;
/// Each slow connection sends one byte in this time.
const BYTE_EVERY: Duration = Duration::from_secs(5);
/// Slow connections served between two pauses of the thread that has them all: few, because the bytes of ten
/// thousand clients do not come in bursts.
const STEP: usize = 4;
/// Heads are given up after 10 s and bodies after 20 s; longer than that nothing slow may live.
const SHED_TIMEOUT: Duration = Duration::from_secs(40);

/// Ordinary clients, each with a pause between its posts: what changes is not hidden by a full machine.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(4);
const BATCH: usize = 100;
/// Posts before and during: over before the first slow head is given up, unless the machine is very busy.
const POSTS: usize = 1_600;
/// Rounds without and with slow ones; of each kind the round with the smaller p99 counts, because what
/// else the machine does only ever adds.
const ROUNDS: usize = 3;

/// A body of nearly 16 MiB, so often that its CPU seconds are many ticks.
const BODY_READINGS: usize = 180_000;
const BODIES: usize = 12;

/// Prints both and returns the goals.
pub(crate) fn measure(binary: &Path, counts: bool) -> Result<Vec<Goal>> {
    let mut goals = slow_connections(binary, counts)?;
    goals.push(refused_bodies(binary, counts)?);
    Ok(goals)
}

fn slow_connections(binary: &Path, counts: bool) -> Result<Vec<Goal>> {
    println!("\nSlow connections: {SLOW} that send a byte every {} s", BYTE_EVERY.as_secs());
    let service = Service::start(binary, StoreKind::Embedded, &[])?;
    let (mut without, mut with) = (Duration::MAX, Duration::MAX);
    let mut left = 0;
    // Warm: buckets open, memory taken.
    ordinary_posts(&service, POSTS / 4)?;
    for _ in 0..ROUNDS {
        without = without.min(ordinary_posts(&service, POSTS)?);
        let before = service.process.resident_kib()?;
        let slow = Slow::open(service.address)?;
        let each = service.process.resident_kib()?.saturating_sub(before) as f64 / SLOW as f64;
        scope(|scope| -> Result<()> {
            let dripping = scope.spawn(|| slow.drip());
            let p99 = ordinary_posts(&service, POSTS);
            let open = slow.open.load(Ordering::Relaxed);
            let deadline = clock::instant() + SHED_TIMEOUT;
            while slow.open.load(Ordering::Relaxed) > 0 && clock::instant() < deadline {
                sleep(PAUSE);
            }
            slow.done.store(true, Ordering::Relaxed);
            dripping.join().expect("it returns");
            with = with.min(p99?);
            left = left.max(slow.open.load(Ordering::Relaxed));
            println!("{each:5.1} KiB of memory each; {open} were open at the end of the posts");
            Ok(())
        })?;
    }
    let (without, with) = (without.as_secs_f64() * 1e3, with.as_secs_f64() * 1e3);
    println!("p99 of an ordinary post {without:.2} ms without, {with:.2} ms with them; left of them: {left}");
    Ok(vec![
        Goal::new("slow connections: p99 of ordinary posts, times that without", with / without, 1.5, counts),
        Goal::new("slow connections: not closed by the service", left as f64, 0.0, true),
    ])
}

/// The p99 of posts over kept connections.
fn ordinary_posts(service: &Service, posts: usize) -> Result<Duration> {
    let mut lines = String::new();
    for source in 0..BATCH {
        writeln!(lines, r#"{{"source":"ordinary-{source:03}","value":{source}.5}}"#)?;
    }
    let request = &post_readings(lines.as_bytes());
    let mut times = Vec::with_capacity(posts);
    scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let mut client = Client::connect(service.address)?;
                    let mut times = Vec::with_capacity(posts / CLIENTS);
                    for _ in 0..posts / CLIENTS {
                        let sent = clock::instant();
                        client.deliver(request, BATCH)?;
                        times.push(sent.elapsed());
                        sleep(PAUSE);
                    }
                    Ok(times)
                })
            })
            .collect();
        for client in clients {
            times.extend(client.join().expect("a client returns its errors")?);
        }
        Ok(())
    })?;
    times.sort_unstable();
    Ok(times[times.len() * 99 / 100])
}

/// The slow connections, in the hands of one thread.
struct Slow {
    streams: Vec<TcpStream>,
    open: AtomicUsize,
    done: AtomicBool,
}

impl Slow {
    fn open(address: SocketAddr) -> Result<Self> {
        let body = "POST /v1/readings HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-ndjson\r\ncontent-length: 100000\r\n\r\n";
        let head = "POST /v1/readings HTTP/1.1\r\nhost: bench\r\nx-slow: ";
        let open = |n: usize| -> Result<TcpStream> {
            let mut stream = TcpStream::connect(address).context("a slow connection: is ulimit -n above 10,100?")?;
            stream.write_all(if n.is_multiple_of(2) { head } else { body }.as_bytes())?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let streams = (0..SLOW).map(open).collect::<Result<Vec<_>>>()?;
        Ok(Self { open: AtomicUsize::new(streams.len()), streams, done: AtomicBool::new(false) })
    }

    /// Sends a byte on each in turn, and counts those that the service has closed, until told to end. All of it
    /// is spread over time: the ordinary clients share the machine.
    fn drip(&self) {
        let mut streams: Vec<Option<&TcpStream>> = self.streams.iter().map(Some).collect();
        for first in (0..SLOW).step_by(STEP).cycle() {
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            sleep(BYTE_EVERY * STEP as u32 / SLOW as u32);
            for slow in &mut streams[first..first + STEP] {
                let Some(mut stream) = *slow else { continue };
                // An error is seen by the look.
                let _ = stream.write(b"x");
                if !is_open(stream) {
                    *slow = None;
                    self.open.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Whether the service has not closed it, whatever it answered before.
fn is_open(mut stream: &TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn refused_bodies(binary: &Path, counts: bool) -> Result<Goal> {
    println!("\nRefused bodies: {BODIES} of {BODY_READINGS} readings, CPU ms of the service per body");
    let service = Service::start(binary, StoreKind::Embedded, &[])?;
    let mut lines = String::new();
    for n in 0..BODY_READINGS {
        writeln!(lines, r#"{{"source":"station-{:04}.temperature","value":{}.25}}"#, n % 1_000, n % 40)?;
    }
    // Of the same length as what is accepted, and wrong in every line.
    let all_lines_bad = lines.replace("value", "valve");
    let last_line_bad = format!("{lines}nonsense\n");
    let cost = |name: &str, request: Vec<u8>, status: &str| -> Result<f64> {
        let request = close_after(&request);
        send(service.address, &request, status)?;
        let before = service.process.cpu_seconds()?;
        for _ in 0..BODIES {
            send(service.address, &request, status)?;
        }
        let each = (service.process.cpu_seconds()? - before) * 1e3 / BODIES as f64;
        println!("{name:60}{each:>10.1}");
        Ok(each)
    };
    let taken = cost("accepted", post_readings(lines.as_bytes()), "200")?;
    let unknown = String::from_utf8(post_readings(lines.as_bytes()))?.replacen("x-ndjson", "x-what", 1);
    let refused = [
        cost("refused by its content type", unknown.into_bytes(), "415")?,
        cost("refused by its length, 17 MiB", post_readings(&vec![b'\n'; 17 << 20]), "413")?,
        cost("refused line by line", post_readings(all_lines_bad.as_bytes()), "400")?,
        cost("refused by its last line", post_readings(last_line_bad.as_bytes()), "400")?,
    ];
    let worst = refused.into_iter().fold(0.0, f64::max);
    Ok(Goal::new("refused bodies: CPU of the worst, part of an accepted one", worst / taken, 1.0, counts))
}

fn close_after(request: &[u8]) -> Vec<u8> {
    let line = request.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    [&request[..line], b"connection: close\r\n", &request[line..]].concat()
}

/// Sends a request on a connection of its own and sees that it is answered so.
fn send(address: SocketAddr, request: &[u8], status: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let got = answer.lines().next().unwrap_or_default();
    ensure!(got.starts_with(&format!("HTTP/1.1 {status}")), "{got} instead of {status}");
    Ok(())
}
