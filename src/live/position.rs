//! A place in the log of acks as clients keep it: `EPOCH.MARK.SOURCE`.
//!
//! One entry of the log may be told of in several events, one for each source: the place is that of the event.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Behind the event of this source in the entry with this mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Of the store; marks of another one mean nothing.
    pub epoch: i64,
    pub mark: i64,
    pub source: Arc<str>,
}

/// A text that no event has had as its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the id of an event: leave it out to begin with what comes now")]
pub struct PositionError;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.mark, self.source)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).filter(|number| *number >= 0);
        let (epoch, mark) = (number().ok_or(PositionError)?, number().ok_or(PositionError)?);
        Ok(Self { epoch, mark, source: parts.next().ok_or(PositionError)?.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back() {
        for source in ["kitchen", "a.b", "Zürich", ""] {
            let position = Position { epoch: 1_790_000_000_000, mark: 7, source: source.into() };
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for text in ["", "1", "1.2", "a.2.x", "1.-2.x", "1.9999999999999999999.x"] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }
}
