//! Many clients of Socket.IO over WebSocket, which come back by themselves as the official ones do, and keep books: where
//! they are, how long they were away, and which row of each second they heard last.
//!
//! Used by `balance.rs` and `dying.rs`. The official clients themselves are in `sockets.rs`; of these, hundreds have
//! room in one process.

use crate::service::eventually;
use futures_util::{SinkExt, StreamExt};
use meanwhile::clock;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

/// A service that says nothing for so long is gone, as the official clients see it (25 s and 20 s).
const SILENCE: Duration = Duration::from_secs(45);
/// What the official clients wait before they come back: half to one and a half of it, twice as much each time.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Which version of a row: generation and revision.
type Version = (u64, u64);

#[derive(Default)]
pub(super) struct Books {
    /// Where it is connected, and subscribed if it is to be.
    pub(super) instance: Option<String>,
    /// Since when it is not.
    lost: Option<Instant>,
    /// The longest time without a connection.
    pub(super) away: Duration,
    /// By the start of the second: the newest version with its count.
    rows: BTreeMap<String, (Version, u64)>,
    /// The first second it heard of.
    first: Option<String>,
    position: Option<String>,
    /// `gap`, and `recovered` with false.
    pub(super) holes: u64,
}

pub(super) struct Crowd {
    clients: Vec<Arc<Mutex<Books>>>,
    _runtime: Runtime,
}

impl Crowd {
    /// So many clients at an address, each with a key of its own, who listen to the closed rows of a source.
    pub(super) fn gather(url: &str, size: usize, source: Option<&str>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let clients: Vec<Arc<Mutex<Books>>> = (0..size).map(|_| Arc::default()).collect();
        let host: Arc<str> = url.strip_prefix("http://").unwrap().into();
        for (n, books) in clients.iter().enumerate() {
            let (host, source, books) = (Arc::clone(&host), source.map(str::to_owned), Arc::clone(books));
            runtime.spawn(async move { stay(&host, n, source.as_deref(), &books).await });
        }
        let crowd = Self { clients, _runtime: runtime };
        eventually("all clients are connected", || crowd.all(|books| books.instance.is_some()));
        crowd
    }

    /// Whether it is so with all of them.
    pub(super) fn all(&self, is: impl Fn(&Books) -> bool) -> Option<()> {
        self.books().all(|books| is(&books)).then_some(())
    }

    pub(super) fn books(&self) -> impl Iterator<Item = MutexGuard<'_, Books>> {
        self.clients.iter().map(|books| books.lock().unwrap())
    }

    /// How many are connected to each instance.
    pub(super) fn by_instance(&self) -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for books in self.books() {
            *counted.entry(books.instance.clone().expect("all are connected")).or_default() += 1;
        }
        counted
    }

    /// Waits until everybody has heard of a closed row.
    pub(super) fn have_heard(&self) {
        eventually("all have heard of a row", || self.all(|books| books.first.is_some()));
    }

    /// How many rows of those a client should have heard of it has not, in the newest version, over all clients; zero as
    /// soon as all have.
    pub(super) fn missed(&self, rows: &[Value]) -> usize {
        let missed = |books: MutexGuard<'_, Books>| {
            let first = books.first.clone().expect("it has heard of one");
            let due = rows.iter().filter(|row| row["start"].as_str() >= Some(&first));
            due.filter(|row| books.rows.get(row["start"].as_str().unwrap()).is_none_or(|heard| *heard != read(row)))
                .count()
        };
        self.books().map(missed).sum()
    }
}

fn read(row: &Value) -> (Version, u64) {
    let number = |name: &str| row[name].as_u64().unwrap();
    ((number("generation"), number("revision")), number("count"))
}

/// Connects again and again.
async fn stay(host: &str, n: usize, source: Option<&str>, books: &Mutex<Books>) {
    // Half to one and a half of the pause, not all at once.
    let share = 0.5 + (n * 37 % 100) as f64 / 100.0;
    let mut pause = PAUSE;
    loop {
        let ended = listen(host, n, source, books).await;
        let connected = {
            let mut books = books.lock().unwrap();
            let connected = books.instance.take().is_some();
            if connected {
                books.lost = Some(clock::instant());
            }
            connected
        };
        if let (Err(error), false) = (ended, connected) {
            eprintln!("client {n}: {error}");
        }
        pause = if connected { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        sleep(pause.mul_f64(share)).await;
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// One connection, until it ends.
async fn listen(host: &str, n: usize, source: Option<&str>, books: &Mutex<Books>) -> Result<(), Broken> {
    let stream = TcpStream::connect(host).await?;
    let url = format!("ws://{host}/socket.io/?EIO=4&transport=websocket&client=k{n}");
    let (mut socket, _) = timeout(SILENCE, tokio_tungstenite::client_async(url, stream)).await??;
    let mut welcomed = None;
    loop {
        let Some(message) = timeout(SILENCE, socket.next()).await? else { return Ok(()) };
        let Message::Text(text) = message? else { continue };
        let answer = match text.as_str() {
            "2" => Some("3".to_owned()),
            open if open.starts_with('0') => Some("40".to_owned()),
            done if done.starts_with("430") => {
                if done != r#"430["ok"]"# {
                    return Err(done.into());
                }
                arrived(books, welcomed.take());
                None
            }
            event if event.starts_with("42") => {
                let event: Value = serde_json::from_str(&event[2..])?;
                if event[0] == "welcome" {
                    welcomed = event[1]["instance"].as_str().map(str::to_owned);
                    let since = books.lock().unwrap().position.clone();
                    if source.is_none() {
                        arrived(books, welcomed.take());
                    }
                    source.map(|source| subscription(source, since))
                } else {
                    note(&mut books.lock().unwrap(), &event);
                    None
                }
            }
            _ => None,
        };
        if let Some(answer) = answer {
            socket.send(Message::text(answer)).await?;
        }
    }
}

fn subscription(source: &str, since: Option<String>) -> String {
    let mut wanted = json!({"channel": format!("closed:{source}")});
    if let Some(since) = since {
        wanted["since"] = since.into();
    }
    format!("420{}", json!(["subscribe", wanted]))
}

fn arrived(books: &Mutex<Books>, instance: Option<String>) {
    let mut books = books.lock().unwrap();
    books.instance = instance;
    if let Some(lost) = books.lost.take() {
        books.away = books.away.max(lost.elapsed());
    }
}

fn note(books: &mut Books, event: &Value) {
    let data = &event[1];
    match event[0].as_str() {
        Some("closed") => {
            books.position = data["id"].as_str().map(str::to_owned);
            if data["row"]["period"] != "1s" {
                return;
            }
            let (start, heard) = (data["row"]["start"].as_str().unwrap().to_owned(), read(&data["row"]));
            books.first.get_or_insert_with(|| start.clone());
            let newest = books.rows.entry(start).or_insert(heard);
            if heard.0 > newest.0 {
                *newest = heard;
            }
        }
        Some("gap") => books.holes += 1,
        Some("recovered") if data["recovered"] == false => books.holes += 1,
        _ => {}
    }
}
