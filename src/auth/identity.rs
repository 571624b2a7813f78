//! One who may do something: what, with which sources and channels, until when.
//!
//! Made of the entries of the file (`file.rs`), handed out by `auth.rs`, asked by the routes. Deny is what everything
//! ends in that is not allowed here by name.

use super::allowance::Allowance;
use super::token::Digest;
use crate::stats::Millis;
use crate::stats::glob::{Glob, GlobError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What the channel of an identity begins with.
const OWN: &str = "user:";
/// What the channels of a source begin with.
const LIVE: &str = "live:";
const CLOSED: &str = "closed:";
const SILENT: &str = "silent:";
/// What has a meaning of its own in a pattern.
const SPECIAL: [char; 3] = ['*', '?', '\\'];

/// A kind of thing that may be done. None includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send readings.
    Ingest,
    /// Ask for statistics, sources and metrics.
    Query,
    /// Listen to channels.
    Live,
    /// Speak on channels.
    Publish,
    /// Drain, forget, see the other instances.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Query, Self::Live, Self::Publish, Self::Admin];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Query => "query",
            Self::Live => "live",
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or(format!("\"{text}\" is none of {names}"))
    }
}

/// What is presented, as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Proof {
    Token(Digest),
    /// The hash of a password, with its salt and its parameters.
    Password(Arc<str>),
}

/// See the module. Printing shows no secret.
pub struct Identity {
    /// Never given to another; by it the service tells keys and limits of one from those of others.
    pub id: Arc<str>,
    pub name: Arc<str>,
    pub(super) proof: Proof,
    pub(super) scopes: Vec<Scope>,
    /// `None`: all.
    pub(super) sources: Option<Vec<Allowed>>,
    /// `None`: all but those of other identities.
    pub(super) channels: Option<Vec<Allowed>>,
    pub(super) expires: Option<Millis>,
    /// Outlives this when the file is read again.
    pub allowance: Arc<Allowance>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

impl Identity {
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Whether a source is among its own.
    #[must_use]
    pub fn has_source(&self, source: &str) -> bool {
        self.sources.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(source)))
    }

    /// Whether there are sources that are not its own.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.sources.is_some()
    }

    /// The channel that is its own, which no rights are needed for.
    #[must_use]
    pub fn own_channel(&self) -> String {
        format!("{OWN}{}", self.name)
    }

    /// Whether it may listen to a channel by this name, or to all that the name stands for where it is a pattern.
    #[must_use]
    pub fn may_hear(&self, name: &str, pattern: bool) -> bool {
        if !pattern && name.strip_prefix(OWN) == Some(&*self.name) {
            return true;
        }
        if !self.may(Scope::Live) {
            return false;
        }
        let literal = if pattern { literal(name) } else { name };
        // It could stand for channels of several kinds, which have rules of their own.
        if pattern
            && [OWN, LIVE, CLOSED, SILENT].iter().any(|kind| kind.len() > literal.len() && kind.starts_with(literal))
        {
            return false;
        }
        let source = [LIVE, CLOSED, SILENT].iter().find_map(|kind| name.strip_prefix(kind));
        // Every source has channels of its own; one that may not ask for it may not hear of it either.
        if source.is_some_and(|source| !covers(self.sources.iter().flatten(), source, pattern) && self.is_limited()) {
            return false;
        }
        // What somebody is told in person is only for who is let in by name.
        let personal = literal.starts_with(OWN);
        match &self.channels {
            None => !personal,
            Some(globs) => {
                let globs = globs.iter().filter(|glob| !personal || glob.is_personal());
                covers(globs, name, pattern)
            }
        }
    }

    /// Whether it may speak on a channel.
    #[must_use]
    pub fn may_publish(&self, name: &str) -> bool {
        self.may(Scope::Publish) && self.channels.as_ref().is_none_or(|globs| covers(globs.iter(), name, false))
    }

    #[must_use]
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// When it ends by itself.
    #[must_use]
    pub fn expires(&self) -> Option<Millis> {
        self.expires
    }
}

/// One entry of a list of what is allowed.
#[derive(Debug)]
pub(super) struct Allowed {
    glob: Glob,
    /// What stands before the `*`, where that is all there is: the usual case, and compared at once. A batch has many
    /// sources.
    beginning: Option<Box<str>>,
}

impl Allowed {
    /// # Errors
    /// If it is no pattern.
    pub(super) fn parse(text: &str) -> Result<Self, GlobError> {
        let beginning = text.strip_suffix('*').filter(|beginning| !beginning.contains(SPECIAL));
        Ok(Self { glob: Glob::parse(text)?, beginning: beginning.map(Into::into) })
    }

    fn matches(&self, name: &str) -> bool {
        match &self.beginning {
            Some(beginning) => name.starts_with(&**beginning),
            None => self.glob.matches(name),
        }
    }

    /// Whether everything that a pattern stands for is allowed by this: if it is the same, or begins with all of a
    /// beginning, and then so does everything that it stands for. Others might be covered too; they are refused.
    fn covers(&self, pattern: &str) -> bool {
        let beginning = self.beginning.as_deref();
        self.glob.to_string() == pattern || beginning.is_some_and(|beginning| literal(pattern).starts_with(beginning))
    }

    fn is_personal(&self) -> bool {
        self.glob.to_string().starts_with(OWN)
    }
}

/// Whether a name, or everything that a pattern stands for, is allowed.
fn covers<'g>(mut allowed: impl Iterator<Item = &'g Allowed>, name: &str, pattern: bool) -> bool {
    if pattern { allowed.any(|one| one.covers(name)) } else { allowed.any(|one| one.matches(name)) }
}

/// What everything that a pattern stands for begins with.
fn literal(pattern: &str) -> &str {
    pattern.split(SPECIAL).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "an entry may have no list")]
    fn globs(texts: &[&str]) -> Option<Vec<Allowed>> {
        Some(texts.iter().map(|text| Allowed::parse(text).unwrap()).collect())
    }

    fn identity(scopes: &[Scope], sources: Option<Vec<Allowed>>, channels: Option<Vec<Allowed>>) -> Identity {
        Identity {
            id: "0".into(),
            name: "ann".into(),
            proof: Proof::Token(Digest::of(b"")),
            scopes: scopes.to_vec(),
            sources,
            channels,
            expires: None,
            allowance: Arc::default(),
        }
    }

    #[test]
    fn scopes_are_apart() {
        for scope in Scope::ALL {
            let one = identity(&[scope], None, None);
            assert_eq!(Scope::ALL.map(|other| one.may(other)), Scope::ALL.map(|other| other == scope));
            assert_eq!(scope.name().parse(), Ok(scope));
        }
        assert!("root".parse::<Scope>().unwrap_err().contains("ingest, query, live, publish, admin"));
    }

    #[test]
    fn sources_by_glob() {
        let check = |sources: Option<Vec<Allowed>>, source: &str, expected: bool| {
            assert_eq!(identity(&[], sources, None).has_source(source), expected, "{source}");
        };
        check(None, "anything", true);
        check(globs(&[]), "anything", false);
        check(globs(&["a/*", "b"]), "a/1", true);
        check(globs(&["a/*", "b"]), "b", true);
        check(globs(&["a/*", "b"]), "b1", false);
    }

    #[test]
    fn channels_that_may_be_heard() {
        use Scope::{Live, Publish};
        let check = |scopes: &[Scope], channels: Option<Vec<Allowed>>, name: &str, expected: bool| {
            assert_eq!(identity(scopes, globs(&["kitchen"]), channels).may_hear(name, false), expected, "{name}");
        };
        check(&[Live], None, "news", true);
        check(&[Publish], None, "news", false);
        check(&[Live], globs(&[]), "news", false);
        check(&[Live], globs(&["new?"]), "news", true);
        check(&[Live], None, "live:kitchen", true);
        check(&[Live], None, "live:attic", false);
        check(&[Live], None, "closed:attic", false);
        check(&[Live], None, "silent:kitchen", true);
        check(&[Live], None, "silent:attic", false);
        check(&[Live], globs(&["closed:*"]), "closed:kitchen", true);
        check(&[Live], globs(&["closed:*"]), "live:kitchen", false);
        // Its own, whatever else it may; those of others only by name.
        check(&[], globs(&[]), "user:ann", true);
        check(&[Live], None, "user:bob", false);
        check(&[Live], globs(&["*"]), "user:bob", false);
        check(&[Live], globs(&["user:*"]), "user:bob", true);
        check(&[], globs(&["user:*"]), "user:bob", false);
    }

    #[test]
    fn patterns_are_covered_or_refused() {
        let check = |sources: Option<Vec<Allowed>>, channels: Option<Vec<Allowed>>, pattern: &str, expected: bool| {
            let got = identity(&[Scope::Live], sources, channels).may_hear(pattern, true);
            assert_eq!(got, expected, "{pattern}");
        };
        check(None, None, "closed:*", true);
        check(None, globs(&["closed:*"]), "closed:*", true);
        check(None, globs(&["closed:*"]), "closed:a*b?", true);
        check(None, globs(&["*"]), "closed:a*", true);
        check(globs(&[]), None, "closed:a*", false);
        check(globs(&[]), None, "silent:a*", false);
        check(globs(&["a*"]), None, "silent:ab*", true);
        check(None, globs(&["closed:a*"]), "closed:*", false);
        check(None, globs(&["closed:a*"]), "closed:?a*", false);
        // As a name it would match; what it stands for would not.
        check(None, globs(&["closed:a?"]), "closed:a*", false);
        check(None, globs(&["closed:a?"]), "closed:a?", true);
        check(None, globs(&["closed:*b"]), "closed:a*b", false);
        check(globs(&["a*"]), None, "closed:*", false);
        check(globs(&["a*"]), None, "closed:a*", true);
        check(globs(&["a*"]), None, r"closed:\a*", false);
        // Of several kinds.
        for pattern in ["*", "?", "u*", "c*", "live*", "closed?*", "s*", "silent?*"] {
            check(None, None, pattern, false);
            check(None, globs(&["*", pattern]), pattern, false);
        }
        check(None, None, "news*", true);
        check(None, globs(&["new*"]), "news*", true);
        check(None, None, "user:*", false);
        check(None, globs(&["*"]), "user:*", false);
        check(None, globs(&["user:*"]), "user:*", true);
    }

    #[test]
    fn speaking() {
        let check = |scopes: &[Scope], channels: Option<Vec<Allowed>>, name: &str, expected: bool| {
            assert_eq!(identity(scopes, None, channels).may_publish(name), expected, "{name}");
        };
        check(&[Scope::Publish], None, "news", true);
        check(&[Scope::Publish], None, "user:bob", true);
        check(&[Scope::Live], None, "news", false);
        check(&[Scope::Publish], globs(&["news"]), "news", true);
        check(&[Scope::Publish], globs(&["news"]), "user:bob", false);
    }

    #[test]
    fn the_end() {
        let mut one = identity(&[], None, None);
        assert!(!one.is_expired(Millis::MAX));
        one.expires = Some(10);
        assert!(!one.is_expired(9) && one.is_expired(10));
    }
}
