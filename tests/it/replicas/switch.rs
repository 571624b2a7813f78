//! An address behind which the server can be changed, as a failover does: connections are cut, new ones
//! lead to the new server.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

pub(super) struct Switch {
    port: u16,
    target: Arc<AtomicU16>,
    /// Both ends of every connection so far.
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Switch {
    pub(super) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let switch = Self {
            port: listener.local_addr().unwrap().port(),
            target: Arc::new(AtomicU16::new(port)),
            streams: Arc::default(),
        };
        let (target, streams) = (Arc::clone(&switch.target), Arc::clone(&switch.streams));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A server that is away closes the connection, as its own port would refuse it.
                let Ok(server) = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst))) else { continue };
                let ends = [&client, &server].map(|end| end.try_clone().unwrap());
                streams.lock().unwrap().extend(ends);
                let back = [&server, &client].map(|end| end.try_clone().unwrap());
                pass(client, server);
                let [from, to] = back;
                pass(from, to);
            }
        });
        switch
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn turn_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            // It may have ended before.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Passes on bytes until one end is closed, then closes the other.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
