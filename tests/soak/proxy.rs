//! The wire between the service and its Redis, which can be cut, slow, or lead nowhere for a while.
//!
//! Used by `faults.rs`. What is held back while the wire leads nowhere is delivered afterwards, late: a
//! frame that was given up long ago may still arrive. Two threads a connection; they end with it.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

const POLL: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Wire {
    /// Nothing gets through.
    dark: AtomicBool,
    /// Milliseconds by which everything is late.
    delay: AtomicU64,
    /// The port it leads to.
    to: AtomicU16,
    open: Mutex<Vec<TcpStream>>,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    wire: Arc<Wire>,
}

impl Proxy {
    /// Listens on a free port and leads to this one, as long as the process lives.
    pub(crate) fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let wire = Arc::new(Wire { to: AtomicU16::new(to), ..Wire::default() });
        let proxy = Self { port, wire: Arc::clone(&wire) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let wire = Arc::clone(&wire);
                thread::spawn(move || wire.lead(&client));
            }
        });
        Ok(proxy)
    }

    /// Cuts every connection, in the middle of whatever is on it.
    pub(crate) fn cut(&self) {
        for stream in self.wire.open.lock().expect("no panic while it is held").drain(..) {
            // One that is closed already needs no cut.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Leads to another server from now on.
    pub(crate) fn turn_to(&self, port: u16) {
        self.wire.to.store(port, Ordering::SeqCst);
        self.cut();
    }

    pub(crate) fn set_delay(&self, milliseconds: u64) {
        self.wire.delay.store(milliseconds, Ordering::SeqCst);
    }

    pub(crate) fn set_dark(&self, dark: bool) {
        self.wire.dark.store(dark, Ordering::SeqCst);
    }
}

impl Wire {
    fn lead(self: &Arc<Self>, client: &TcpStream) {
        self.wait();
        let to = self.to.load(Ordering::SeqCst);
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { return };
        let clones = || -> std::io::Result<[TcpStream; 4]> {
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            Ok([client.try_clone()?, server.try_clone()?, client.try_clone()?, server.try_clone()?])
        };
        let Ok([from_client, to_server, kept_client, kept_server]) = clones() else { return };
        self.open.lock().expect("no panic while it is held").extend([kept_client, kept_server]);
        let wire = Arc::clone(self);
        let there = thread::spawn(move || wire.copy(from_client, to_server));
        if let (Ok(server), Ok(client)) = (server.try_clone(), client.try_clone()) {
            self.copy(server, client);
        }
        // It ends when the other side has; both are shut down by then.
        let _ = there.join();
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut bytes).unwrap_or(0);
            self.wait();
            if read == 0 || to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    fn wait(&self) {
        sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst)));
        while self.dark.load(Ordering::SeqCst) {
            sleep(POLL);
        }
    }
}
