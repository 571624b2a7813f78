//! Names of channels, and what stands behind them.
//!
//! Used by the hub and by the routes that take names from clients. Pure.

use crate::stats::glob::{Glob, escape};
use crate::stats::source;
use std::fmt;
use std::sync::Arc;

/// Longest name of a channel, in bytes: that of a source, and what stands before it.
pub const MAX_CHANNEL_BYTES: usize = 1_024;

const LIVE: &str = "live:";
const CLOSED: &str = "closed:";
const SILENT: &str = "silent:";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// A channel of Redis Pub/Sub: whatever anybody publishes there.
    Messages(Arc<str>),
    /// The present buckets of a source, as they change.
    Live(Arc<str>),
    /// The rows of a source, whenever one was written to the sink.
    Closed(Arc<str>),
    /// The same of all sources of a pattern.
    ClosedLike(Arc<Glob>),
    /// Which sources of a pattern, or which one, have not been heard of for too long, and which are back.
    Silent(Arc<Glob>),
}

/// Why a name is not one of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    #[error("a channel has a name")]
    Empty,
    #[error("the name of a channel is at most {MAX_CHANNEL_BYTES} bytes long")]
    TooLong,
    #[error("live:, closed: and silent: take the id of a source behind them")]
    NoSource,
    #[error(
        "live: takes the id of one source, patterns are for closed: and silent: only; before a * or ? of the id itself goes a backslash"
    )]
    LivePattern,
    #[error("names that begin with live:, closed: or silent: are the service's own")]
    Reserved,
}

impl Channel {
    /// What a client may subscribe to.
    ///
    /// # Errors
    /// If no channel can have this name.
    pub fn subscribed(name: &str) -> Result<Self, ChannelError> {
        check_length(name)?;
        if let Some(sources) = name.strip_prefix(SILENT) {
            let glob = Glob::parse(sources).map_err(|_| ChannelError::NoSource)?;
            let is_source = glob.exact().is_none_or(|id| source::check_known(&id).is_ok());
            return if is_source { Ok(Self::Silent(glob.into())) } else { Err(ChannelError::NoSource) };
        }
        let of = if name.starts_with(LIVE) { Self::Live } else { Self::Closed };
        let Some(sources) = name.strip_prefix(LIVE).or(name.strip_prefix(CLOSED)) else {
            return Self::published(name);
        };
        let glob = Glob::parse(sources).map_err(|_| ChannelError::NoSource)?;
        match glob.exact() {
            Some(id) if source::check_known(&id).is_ok() => Ok(of(id.into())),
            Some(_) => Err(ChannelError::NoSource),
            None if name.starts_with(LIVE) => Err(ChannelError::LivePattern),
            None => Ok(Self::ClosedLike(glob.into())),
        }
    }

    /// What a client may publish to.
    ///
    /// # Errors
    /// If no channel can have this name, or only the service speaks there.
    pub fn published(name: &str) -> Result<Self, ChannelError> {
        check_length(name)?;
        if [LIVE, CLOSED, SILENT].iter().any(|own| name.starts_with(own)) {
            return Err(ChannelError::Reserved);
        }
        Ok(Self::Messages(name.into()))
    }
}

fn check_length(name: &str) -> Result<(), ChannelError> {
    match name.len() {
        0 => Err(ChannelError::Empty),
        1..=MAX_CHANNEL_BYTES => Ok(()),
        _ => Err(ChannelError::TooLong),
    }
}

impl Channel {
    /// Whether closed buckets are told of there.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::ClosedLike(_))
    }

    /// Whether the rows of this source are told of there when they are written.
    #[must_use]
    pub fn tells_of(&self, source: &str) -> bool {
        match self {
            Self::Messages(_) | Self::Live(_) | Self::Silent(_) => false,
            Self::Closed(id) => **id == *source,
            Self::ClosedLike(glob) => glob.matches(source),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages(name) => f.write_str(name),
            Self::Live(source) => write!(f, "{LIVE}{}", escape(source)),
            Self::Closed(source) => write!(f, "{CLOSED}{}", escape(source)),
            Self::ClosedLike(glob) => write!(f, "{CLOSED}{glob}"),
            Self::Silent(glob) => write!(f, "{SILENT}{glob}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_stand_for() {
        let check = |name: &str, channel: Channel| {
            assert_eq!(Channel::subscribed(name), Ok(channel.clone()));
            assert_eq!(channel.to_string(), name);
        };
        check("my channel", Channel::Messages("my channel".into()));
        check("Zürich/*", Channel::Messages("Zürich/*".into()));
        check("Live:kitchen", Channel::Messages("Live:kitchen".into()));
        check("live:kitchen", Channel::Live("kitchen".into()));
        check("live:a:b", Channel::Live("a:b".into()));
        check(r"live:a\*b", Channel::Live("a*b".into()));
        check(r"closed:\\server\a", Channel::Closed(r"\\server\a".into()));
        check("closed:*", Channel::ClosedLike(Arc::new(Glob::parse("*").unwrap())));
        check(r"closed:a\*?", Channel::ClosedLike(Arc::new(Glob::parse(r"a\*?").unwrap())));
        check("closed:kitchen", Channel::Closed("kitchen".into()));
        check("silent:a*", Channel::Silent(Arc::new(Glob::parse("a*").unwrap())));
        check(r"silent:a\*", Channel::Silent(Arc::new(Glob::parse(r"a\*").unwrap())));
        let long = "x".repeat(MAX_CHANNEL_BYTES);
        check(&long, Channel::Messages(long.as_str().into()));
    }

    #[test]
    fn names_that_are_none() {
        let check = |name: &str, error: ChannelError| assert_eq!(Channel::subscribed(name), Err(error), "{name}");
        check("", ChannelError::Empty);
        check(&"x".repeat(MAX_CHANNEL_BYTES + 1), ChannelError::TooLong);
        check("live:", ChannelError::NoSource);
        check("closed:", ChannelError::NoSource);
        check("closed:group:", ChannelError::NoSource);
        check("silent:", ChannelError::NoSource);
        check("silent:group:", ChannelError::NoSource);
        check("live:*", ChannelError::LivePattern);
        assert_eq!(Channel::published("silent:a"), Err(ChannelError::Reserved));
        assert_eq!(Channel::published("live:kitchen"), Err(ChannelError::Reserved));
        assert_eq!(Channel::published("closed:"), Err(ChannelError::Reserved));
        assert!(Channel::published("closed").is_ok());
    }
}
