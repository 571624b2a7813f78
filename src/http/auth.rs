//! Who makes a request, and whether he may: one layer that every route of the table passes through.
//!
//! Laid around each route by `mod.rs`, which cannot name a route without saying who may use it ([`Access`]). Handlers
//! ask the [`Caller`] about sources and channels; who may do what is in `auth/`, how guessing and haste are slowed down in
//! `pace.rs`. Guarantees: where `--auth-file` is given, nothing is answered that is not allowed by name; what is
//! presented stands in no log, answer or metric; a refusal says what is missing, and nothing about anybody else.

use super::Service;
use super::body::drain;
use super::pace::Paces;
use super::problem::{Kind, Problem};
use super::server::ClientAddress;
use crate::auth::{Auth, Credentials, Denied, Identity, Scope};
use crate::clock::{self, Clock};
use crate::live::channel::Channel;
use axum::Router;
use axum::extract::{FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// The parameter for clients that cannot set a header: browsers with an `EventSource`, old ones of Socket.IO.
pub(super) const PARAMETER: &str = "token";

/// Who may use a route.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Everybody, as often as he likes; who says who he is may be told more.
    Anyone,
    /// Who has one of these scopes.
    Needs(&'static [Scope]),
    /// Who is known, maybe by the parameter; the handler asks about channels.
    Listens,
    /// The route speaks a protocol of its own, in which it asks who somebody is.
    Asks,
}

/// The route table while it is written.
pub(super) struct Routes {
    router: Router<Service>,
    guard: Arc<Guard>,
}

impl Routes {
    pub(super) fn new(guard: &Arc<Guard>) -> Self {
        Self { router: Router::new(), guard: Arc::clone(guard) }
    }

    pub(super) fn route(self, path: &str, handlers: MethodRouter<Service>, access: Access) -> Self {
        let guard = Arc::clone(&self.guard);
        let layer = from_fn(move |request, next| {
            let guard = Arc::clone(&guard);
            async move { guard.pass(access, request, next).await }
        });
        // A service of its own takes every method; of others a method that they do not take is nobody's secret.
        let handlers = if matches!(access, Access::Asks) { handlers.layer(layer) } else { handlers.route_layer(layer) };
        Self { router: self.router.route(path, handlers), ..self }
    }

    pub(super) fn done(self) -> Router<Service> {
        self.router
    }
}

/// Lets in, or not.
pub struct Guard {
    /// `None`: everybody may do everything.
    auth: Option<Arc<Auth>>,
    paces: Paces,
    live_idle: Option<Duration>,
    clock: Clock,
}

impl Guard {
    /// `rate`: requests per second from one address; 0: no limit. `live_idle`: how long a client of Socket.IO may
    /// listen to nothing where it is asked who it is.
    #[must_use]
    pub fn new(auth: Option<Arc<Auth>>, rate: u32, live_idle: Option<Duration>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { auth, paces: Paces::new(rate), live_idle, clock })
    }

    pub(super) fn live_idle(&self) -> Option<Duration> {
        self.live_idle
    }

    pub(super) fn auth(&self) -> Option<&Arc<Auth>> {
        self.auth.as_ref()
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn pass(&self, access: Access, mut request: Request, next: Next) -> Response {
        match self.caller(access, request.headers(), request.uri(), address(request.extensions())).await {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(problem) => {
                let (parts, body) = request.into_parts();
                drain(&parts.headers, &mut body.into_data_stream()).await;
                problem.into_response()
            }
        }
    }

    async fn caller(&self, access: Access, headers: &HeaderMap, uri: &Uri, client: IpAddr) -> Result<Caller, Problem> {
        if !matches!(access, Access::Anyone) {
            self.paces.request(client, clock::instant()).map_err(|wait| {
                Problem::too_fast("requests come too fast from this address; nothing was done", wait)
            })?;
        }
        if self.auth.is_none() {
            return Ok(Caller::Everybody);
        }
        let needed = match access {
            // Whatever he presents: probes and the page are answered.
            Access::Anyone => return Ok(self.known(headers, client).await.ok().flatten().unwrap_or(Caller::Nobody)),
            Access::Asks => return self.shaking_hands(headers, uri, client).await,
            Access::Listens => &[][..],
            Access::Needs(scopes) => scopes,
        };
        let caller = match (self.known(headers, client).await?, access) {
            (None, Access::Listens) => match in_query(uri) {
                Some(credentials) => Some(Caller::Known(self.identify(&credentials, client).await?)),
                None => None,
            },
            (caller, _) => caller,
        };
        let caller = caller.ok_or_else(|| unauthorized("this needs a token, or a user and a password"))?;
        caller.needs(needed)?;
        Ok(caller)
    }

    /// Who begins with a protocol in which he may say who he is; in the oldest one there is no place for it.
    async fn shaking_hands(&self, headers: &HeaderMap, uri: &Uri, client: IpAddr) -> Result<Caller, Problem> {
        let credentials = match presented(headers)? {
            Some(credentials) => Some(credentials),
            None => in_query(uri),
        };
        match credentials {
            Some(credentials) => Ok(Caller::Known(self.identify(&credentials, client).await?)),
            None if protocol(uri) == Some("4") => Ok(Caller::Nobody),
            None => Err(unauthorized("this needs a token: a header, or ?token= for clients that cannot set one")),
        }
    }

    /// Who says in the headers who he is; `None` if nobody does.
    async fn known(&self, headers: &HeaderMap, client: IpAddr) -> Result<Option<Caller>, Problem> {
        match presented(headers)? {
            Some(credentials) => Ok(Some(Caller::Known(self.identify(&credentials, client).await?))),
            None => Ok(None),
        }
    }

    /// Who presents these. What is not known is as slow to find out as `pace.rs` wants it to be; what is, is not.
    pub(super) async fn identify(&self, credentials: &Credentials, client: IpAddr) -> Result<Arc<Identity>, Problem> {
        let Some(auth) = &self.auth else { return Err(unauthorized("nobody is known here")) };
        let (now, at) = (self.clock.now(), clock::instant());
        let secret = match credentials {
            Credentials::Token(token) => token,
            Credentials::Password { password, .. } => password,
        };
        match auth.by_token(secret, now) {
            Ok(identity) => return Ok(identity),
            Err(error @ Denied::Expired) => return Err(unauthorized(&error.to_string())),
            Err(Denied::Unknown) => {}
        }
        let too_many = |wait| Problem::too_fast("too many wrong tokens or passwords have come from this address", wait);
        let Credentials::Password { user, password } = credentials else {
            self.paces.attempt(client, at).map_err(too_many)?;
            return Err(unauthorized(&Denied::Unknown.to_string()));
        };
        // What is remembered is found fast, so it must not be found by guessing either.
        self.paces.is_heard(client, at).map_err(too_many)?;
        if let Some(identity) = auth.remembered(user, password, now, at) {
            return Ok(identity);
        }
        let turn = auth.turn().await;
        // Many requests of a page may have waited for the first of them.
        if let Some(identity) = auth.remembered(user, password, now, at) {
            return Ok(identity);
        }
        self.paces.attempt(client, at).map_err(too_many)?;
        let found = auth.by_password(turn, user, password, now, at).await;
        if found.as_ref().err() != Some(&Denied::Unknown) {
            self.paces.forgive(client);
        }
        found.map_err(|error| unauthorized(&error.to_string()))
    }
}

/// Whose request it is; where nobody knows, it is the machine's own.
pub(super) fn address(extensions: &axum::http::Extensions) -> IpAddr {
    extensions.get().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |&ClientAddress(address)| address)
}

/// What the headers say: `Bearer TOKEN`, `Token TOKEN`, or `Basic` with a user and a password, or a token in its place.
pub(super) fn presented(headers: &HeaderMap) -> Result<Option<Credentials>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let unreadable = || unauthorized("the header Authorization is not Bearer TOKEN, Token TOKEN or Basic");
    if values.next().is_some() {
        return Err(unreadable());
    }
    let (scheme, rest) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(unreadable)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return Ok(Some(Credentials::Token(rest.to_owned())));
    }
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(rest).ok()).flatten();
    let pair = pair.and_then(|pair| String::from_utf8(pair).ok()).ok_or_else(unreadable)?;
    let (user, password) = pair.split_once(':').ok_or_else(unreadable)?;
    Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
}

/// The parameter `token`, if it is there.
pub(super) fn in_query(uri: &Uri) -> Option<Credentials> {
    in_parameter(uri, PARAMETER).map(Credentials::Token)
}

/// The version of Engine.IO, as the library reads it: it does not decode the name.
fn protocol(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("EIO="))
}

fn in_parameter(uri: &Uri, name: &str) -> Option<String> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    pairs.into_iter().find(|(given, _)| given == name).map(|(_, value)| value)
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Kind::Unauthorized, detail)
}

pub(super) fn forbidden(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::Forbidden, detail)
}

/// Why somebody does not hear a channel.
pub(super) fn not_heard(channel: &Channel) -> String {
    format!("the channel {:?} is not among those this token may listen to", channel.to_string())
}

/// Why somebody does not speak on a channel.
pub(super) fn not_published(channel: &str) -> String {
    format!("the channel {channel:?} is not among those this token may publish to")
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// Whoever it is: nobody is asked.
    Everybody,
    /// Who has not said who he is, where others have to.
    Nobody,
    Known(Arc<Identity>),
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // A route that was not laid into the table above lets nobody in.
        Ok(parts.extensions.get().cloned().unwrap_or(Self::Nobody))
    }
}

impl Caller {
    /// # Errors
    /// If he has none of these scopes; without any, only nobody is refused.
    fn needs(&self, scopes: &[Scope]) -> Result<(), Problem> {
        if scopes.is_empty() && !matches!(self, Self::Nobody) || scopes.iter().any(|scope| self.may(*scope)) {
            return Ok(());
        }
        let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
        Err(forbidden(format!("this needs the scope {}", names.join(" or "))))
    }

    pub(super) fn may(&self, scope: Scope) -> bool {
        match self {
            Self::Everybody => true,
            Self::Nobody => false,
            Self::Known(identity) => identity.may(scope),
        }
    }

    /// Whether a source is among his own.
    pub(super) fn has_source(&self, source: &str) -> bool {
        match self {
            Self::Everybody => true,
            Self::Nobody => false,
            Self::Known(identity) => identity.has_source(source),
        }
    }

    /// # Errors
    /// If one of these is not.
    pub(super) fn needs_sources<S: AsRef<str>>(&self, sources: &[S]) -> Result<(), Problem> {
        match sources.iter().map(AsRef::as_ref).find(|source| !self.has_source(source)) {
            None => Ok(()),
            Some(source) => Err(forbidden(format!("the source {source:?} is not among those of this token"))
                .with("source", source.into())),
        }
    }

    pub(super) fn may_publish(&self, channel: &str) -> bool {
        match self {
            Self::Everybody => true,
            Self::Nobody => false,
            Self::Known(identity) => identity.may_publish(channel),
        }
    }

    /// Whether he may listen to a channel.
    pub(super) fn may_hear(&self, channel: &Channel) -> bool {
        let identity = match self {
            Self::Everybody => return true,
            Self::Nobody => return false,
            Self::Known(identity) => identity,
        };
        match channel {
            Channel::Messages(name) => identity.may_hear(name, false),
            Channel::Live(source) => identity.may_hear(&format!("live:{source}"), false),
            Channel::Closed(source) => identity.may_hear(&format!("closed:{source}"), false),
            Channel::ClosedLike(pattern) => identity.may_hear(&format!("closed:{pattern}"), true),
            Channel::Silent(pattern) => match pattern.exact() {
                Some(source) => identity.may_hear(&format!("silent:{source}"), false),
                None => identity.may_hear(&format!("silent:{pattern}"), true),
            },
        }
    }

    /// # Errors
    /// If he may not listen to one of these.
    pub(super) fn needs_channels(&self, channels: &[Channel]) -> Result<(), Problem> {
        match channels.iter().find(|channel| !self.may_hear(channel)) {
            None => Ok(()),
            Some(channel) => Err(forbidden(not_heard(channel))),
        }
    }

    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        if let Self::Known(identity) = self { Some(identity) } else { None }
    }

    /// What keeps the idempotency keys of one from those of another.
    pub(super) fn key_scope(&self) -> &str {
        self.identity().map_or("", |identity| &identity.id)
    }
}

#[cfg(test)]
mod tests;
