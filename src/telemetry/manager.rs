//! What a service manager such as systemd is told: ready, reading the settings again, stopping.
//!
//! The address of the manager comes from `config.rs` by way of `cli/serve.rs`; without one nothing is
//! told. Called by `app.rs` and `cli/reload.rs`. A manager that cannot be told is logged and changes nothing
//! for the service. There is no watchdog: a process that hangs is not one of its failures, a part that
//! has died ends it (`app.rs`), and a store that is away is not mended by a restart.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

/// Longer than a manager at work takes to read; a start must not hang because of one that does not.
const PATIENCE: Duration = Duration::from_secs(1);

static SOCKET: OnceLock<UnixDatagram> = OnceLock::new();

/// Says whom to tell: the value of `NOTIFY_SOCKET`, a path or, behind an `@`, an abstract name.
pub fn install(address: Option<OsString>) {
    let Some(address) = address else { return };
    match connect(&address) {
        Ok(socket) => drop(SOCKET.set(socket)),
        Err(error) => tracing::warn!("the service manager at {} cannot be told: {error}", address.display()),
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&abstract_name(name)?)?,
        _ => socket.connect(address)?,
    }
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn abstract_name(name: &[u8]) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_name(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Requests are taken; `status` is a line for `systemctl status`.
pub fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// The settings are read again; [`reloaded`] follows.
pub fn reloading() {
    tell("RELOADING=1");
}

pub fn reloaded() {
    tell("READY=1");
}

/// No new requests are taken.
pub fn stopping() {
    tell("STOPPING=1\nSTATUS=stopping: what is in flight is finished first");
}

fn tell(what: &str) {
    if let Some(socket) = SOCKET.get()
        && let Err(error) = socket.send(what.as_bytes())
    {
        tracing::warn!("the service manager cannot be told {}: {error}", what.lines().next().unwrap_or_default());
    }
}
