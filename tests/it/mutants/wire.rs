//! A wire to Redis on which one thing said can be held up, and one answer lost.
//!
//! Used by `requests.rs`. What is looked for must come in one piece, as short calls and answers do.

use crate::service::eventually;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

/// Longer than any call or answer here.
const PIECE: usize = 64 * 1024;
const POLL: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Orders {
    /// What holds up the call that it is in, until it is taken away.
    hold: Mutex<Option<&'static str>>,
    held: AtomicBool,
    /// The answer that it is in is lost, and the connection with it; once.
    lose: Mutex<Option<&'static str>>,
}

pub(super) struct Wire {
    port: u16,
    orders: Arc<Orders>,
}

impl Wire {
    pub(super) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self { port: listener.local_addr().unwrap().port(), orders: Arc::default() };
        let orders = Arc::clone(&wire.orders);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let [calls, answers] = [(&client, &server), (&server, &client)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()));
                let [to_server, to_client] = [Arc::clone(&orders), Arc::clone(&orders)];
                thread::spawn(move || pass(calls, |piece| to_server.let_through(piece)));
                thread::spawn(move || pass(answers, |piece| !to_client.is_lost(piece)));
            }
        });
        wire
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Holds up the calls with this text in them.
    pub(super) fn hold(&self, text: &'static str) {
        *self.orders.hold.lock().unwrap() = Some(text);
    }

    pub(super) fn wait_until_held(&self) {
        eventually("a call is held up", || self.orders.held.load(Ordering::SeqCst).then_some(()));
    }

    pub(super) fn release(&self) {
        *self.orders.hold.lock().unwrap() = None;
    }

    /// Loses the next answer with this text in it.
    pub(super) fn lose(&self, text: &'static str) {
        *self.orders.lose.lock().unwrap() = Some(text);
    }

    /// Whether it was lost.
    pub(super) fn has_lost(&self) -> bool {
        self.orders.lose.lock().unwrap().is_none()
    }
}

impl Orders {
    /// Returns when the call may go on.
    fn let_through(&self, piece: &[u8]) -> bool {
        while self.hold.lock().unwrap().is_some_and(|text| contains(piece, text)) {
            self.held.store(true, Ordering::SeqCst);
            sleep(POLL);
        }
        true
    }

    fn is_lost(&self, piece: &[u8]) -> bool {
        self.lose.lock().unwrap().take_if(|text| contains(piece, text)).is_some()
    }
}

fn contains(piece: &[u8], text: &str) -> bool {
    piece.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Passes on pieces as long as they may go on and both ends are there, then closes both.
fn pass((mut from, mut to): (TcpStream, TcpStream), may_go_on: impl Fn(&[u8]) -> bool) {
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        if !may_go_on(&piece[..length]) || to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // It may have ended before.
        let _ = stream.shutdown(Shutdown::Both);
    }
}
