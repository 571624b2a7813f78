//! As much of a client of Socket.IO as the benchmark needs: one WebSocket that subscribes, answers pings and hears.
//!
//! Used by every section through `crowd.rs`, and in the thousands: so it keeps one small buffer, and hands packets out
//! without copying them. Frames are masked with zeros, which the protocol allows and costs nothing.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value as Json, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Connections from one loopback address; there are some 28,000 ports to each.
const PER_ADDRESS: usize = 4_000;
/// A client that is not let in by then will not be.
const PATIENCE: Duration = Duration::from_mins(1);
/// Read in one go.
const READ_BYTES: usize = 4_096;
/// Bits and values of a frame's head.
const LAST: u8 = 0x80;
const MASKED: u8 = 0x80;
const LONG: u8 = 126;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

pub(crate) struct Client {
    stream: TcpStream,
    /// What has come of frames that are not complete.
    buffer: Vec<u8>,
}

impl Client {
    /// The `n`th client; the system buffers at most `buffered` bytes for it, if it is told so.
    pub(crate) async fn connect(server: SocketAddr, n: usize, buffered: Option<u32>) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = buffered {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind((Ipv4Addr::new(127, 0, 1, (n / PER_ADDRESS % 250 + 1) as u8), 0).into())?;
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, buffer: Vec::new() };
        timeout(PATIENCE, client.shake_hands(server)).await.context("the service does not answer")??;
        Ok(client)
    }

    async fn shake_hands(&mut self, server: SocketAddr) -> Result<()> {
        // What the `ws` of Node sends.
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            self.read().await?;
        };
        let rest = self.buffer.split_off(head);
        let head = std::mem::replace(&mut self.buffer, rest);
        ensure!(head.starts_with(b"HTTP/1.1 101 "), "no WebSocket: {}", String::from_utf8_lossy(&head));
        self.send("40").await?;
        let mut connected = false;
        while !connected {
            self.hear(&mut |packet| connected |= packet.starts_with(b"40")).await?;
        }
        Ok(())
    }

    /// Subscribes and returns when that is confirmed; what comes before goes to `each`.
    pub(crate) async fn subscribe(&mut self, to: &Json, each: &mut impl FnMut(&[u8])) -> Result<()> {
        self.send(&format!("420{}", json!(["subscribe", to]))).await?;
        let mut answer = None;
        let answered = async {
            while answer.is_none() {
                self.hear(&mut |packet| match packet.strip_prefix(b"430") {
                    Some(said) => answer = Some(String::from_utf8_lossy(said).into_owned()),
                    None => each(packet),
                })
                .await?;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, answered).await.context("no answer to a subscription")??;
        ensure!(answer.as_deref() == Some(r#"["ok"]"#), "not subscribed: {answer:?}");
        Ok(())
    }

    /// Waits for something to come and hands on the packets that are complete, without pings, which are answered.
    pub(crate) async fn hear(&mut self, each: &mut impl FnMut(&[u8])) -> Result<()> {
        if self.buffer.is_empty() {
            self.read().await?;
        }
        let (mut at, mut pinged) = (0, false);
        while let Some((kind, begin, end)) = frame(&self.buffer[at..]) {
            let packet = &self.buffer[at + begin..at + end];
            match kind {
                TEXT if packet == b"2" => pinged = true,
                TEXT => each(packet),
                CLOSE => bail!("the service closed the connection"),
                _ => {}
            }
            at += end;
        }
        self.buffer.drain(..at);
        if pinged {
            self.send("3").await?;
        }
        if !self.buffer.is_empty() || at == 0 {
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        self.buffer.reserve(READ_BYTES);
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the service closed the connection");
        Ok(())
    }

    async fn send(&mut self, packet: &str) -> Result<()> {
        let mut frame = vec![LAST | TEXT];
        match packet.len() {
            length @ ..126 => frame.push(MASKED | length as u8),
            length => {
                frame.push(MASKED | LONG);
                frame.extend(u16::try_from(length)?.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(packet.as_bytes());
        Ok(self.stream.write_all(&frame).await?)
    }
}

/// The kind of the first frame, and where its content begins and ends; `None` if it is not complete.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (kind, length) = (bytes.first()? & 0x0f, bytes.get(1)? & 0x7f);
    let (begin, length) = match length {
        LONG => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        length => (2, u64::from(length)),
    };
    let end = begin + usize::try_from(length).ok()?;
    (bytes.len() >= end).then_some((kind, begin, end))
}
