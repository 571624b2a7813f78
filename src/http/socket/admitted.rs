//! Who a client of Socket.IO is, and what he may listen to while he is connected.
//!
//! Used by `session.rs`. Who somebody is comes with the first request (`http/auth.rs` has looked at it) or, from clients
//! of today, as `auth: {token}` or `auth: {user, password}`. Guarantees: nothing is heard or said that is not allowed by
//! name; rights that go take along what was subscribed to by them; who listens to nothing does not stay.

use crate::auth::{Credentials, Denied};
use crate::clock;
use crate::http::auth::{Caller, Guard, address, not_heard, not_published};
use crate::http::standing::Standing;
use crate::live::channel::Channel;
use axum::http::request::Parts;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What a client says of itself when it connects.
#[derive(Deserialize)]
pub(super) struct Payload {
    token: Option<String>,
    user: Option<String>,
    password: Option<String>,
}

impl Payload {
    fn credentials(self) -> Option<Credentials> {
        match self {
            Self { token: Some(token), .. } => Some(Credentials::Token(token)),
            Self { user: Some(user), password: Some(password), .. } => Some(Credentials::Password { user, password }),
            _ => None,
        }
    }
}

/// Who it is.
///
/// # Errors
/// Why he is not let in, for the client.
pub(super) async fn admit(guard: &Guard, request: &Parts, payload: Option<Payload>) -> Result<Caller, String> {
    if guard.auth().is_none() {
        return Ok(Caller::Everybody);
    }
    if let Some(credentials) = payload.and_then(Payload::credentials) {
        let identity = guard.identify(&credentials, address(&request.extensions)).await;
        return identity.map(Caller::Known).map_err(|problem| problem.detail().to_owned());
    }
    match request.extensions.get() {
        Some(caller @ Caller::Known(_)) => Ok(caller.clone()),
        _ => Err("this needs a token, or a user and a password: auth: {token} or auth: {user, password}".to_owned()),
    }
}

/// A client that was let in.
pub(super) struct Admitted {
    standing: Standing,
    /// What it has asked for and hears; its own channel is not among them unless it has. Nothing where nobody asks who
    /// it is: then nothing can happen to it.
    channels: BTreeSet<Channel>,
    idle: Option<Duration>,
    /// Since it listens to nothing.
    since: Instant,
}

/// What happens to a client that has not asked for it.
pub(super) enum Change {
    /// It may not hear these any more.
    Refused(Vec<Channel>),
    /// It may do nothing any more.
    Ended(Denied),
    /// It has listened to nothing for so long.
    Idle(Duration),
}

impl Admitted {
    pub(super) fn new(guard: &Arc<Guard>, caller: Caller) -> Self {
        // Who is not known is not asked to be of use either.
        let idle = guard.live_idle().filter(|_| caller.identity().is_some());
        Self { standing: Standing::new(guard, caller), channels: BTreeSet::new(), idle, since: clock::instant() }
    }

    /// The channel of its own, which it hears from the beginning.
    pub(super) fn own_channel(&self) -> Option<Channel> {
        let name = self.standing.caller().identity()?.own_channel();
        Some(Channel::Messages(name.into()))
    }

    /// # Errors
    /// Which channel it may not hear, for the client.
    pub(super) fn may_hear(&self, channels: &[Channel]) -> Result<(), String> {
        let refused = channels.iter().find(|channel| !self.standing.caller().may_hear(channel));
        refused.map_or(Ok(()), |channel| Err(not_heard(channel)))
    }

    /// # Errors
    /// That it may not speak there, for the client.
    pub(super) fn may_publish(&self, channel: &Channel) -> Result<(), String> {
        let name = channel.to_string();
        if self.standing.caller().may_publish(&name) { Ok(()) } else { Err(not_published(&name)) }
    }

    /// It hears these from now on.
    pub(super) fn joined(&mut self, channels: Vec<Channel>) {
        if self.is_known() {
            self.channels.extend(channels);
        }
    }

    /// It does not hear these any more.
    pub(super) fn left(&mut self, channels: &[Channel]) {
        let had = self.channels.len();
        self.channels.retain(|channel| !channels.contains(channel));
        if self.channels.is_empty() && had > 0 {
            self.since = clock::instant();
        }
    }

    fn is_known(&self) -> bool {
        self.standing.caller().identity().is_some()
    }

    /// What happens next to it; may be dropped and called again.
    pub(super) async fn changed(&mut self) -> Change {
        if self.is_known() { Box::pin(self.known_changed()).await } else { pending().await }
    }

    async fn known_changed(&mut self) -> Change {
        loop {
            let deadline = self.idle.filter(|_| self.channels.is_empty()).map(|idle| (idle, self.since + idle));
            let idle = async {
                match deadline {
                    Some((idle, end)) => {
                        sleep_until(end).await;
                        idle
                    }
                    None => pending().await,
                }
            };
            tokio::select! {
                changed = self.standing.changed() => {
                    if let Err(denied) = changed {
                        return Change::Ended(denied);
                    }
                    let caller = self.standing.caller();
                    let refused = self.channels.iter().filter(|channel| !caller.may_hear(channel));
                    let refused: Vec<Channel> = refused.cloned().collect();
                    if !refused.is_empty() {
                        self.left(&refused);
                        return Change::Refused(refused);
                    }
                }
                idle = idle => return Change::Idle(idle),
            }
        }
    }
}
