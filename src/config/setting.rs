//! One setting: its key, its value as text, and where it came from.
//!
//! Called by `layers.rs`, which puts the layers together, and by `cli/`, which shows settings. What a
//! value means is judged in `config.rs`. A value that may hold a password is shown masked.

use super::Secret;
use clap::Arg;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

/// Where a value came from; each wins over those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// From 1.
    File {
        path: PathBuf,
        line: usize,
    },
    Environment(String),
    Flag(String),
}

impl Origin {
    /// Larger wins.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One key and its effective value.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// As in the file, with underscores.
    pub key: String,
    pub origin: Origin,
    /// The file of its own that the value was read from.
    pub read_from: Option<PathBuf>,
    /// `None` if it is not set and has no default.
    pub(super) value: Option<OsString>,
    /// Whether the value may hold a password.
    secret: bool,
    /// Whether the flag stands for `true` by itself.
    switch: bool,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?} ({})", self.key, self.shown(), self.origin)
    }
}

impl Setting {
    /// The default of a flag.
    pub(super) fn of(flag: &Arg) -> Self {
        Self {
            key: flag.get_id().to_string(),
            origin: Origin::Default,
            read_from: None,
            value: flag.get_default_values().first().map(clap::builder::OsStr::to_os_string),
            secret: flag.is_hide_env_values_set(),
            switch: !flag.get_action().takes_values(),
        }
    }

    pub(super) fn set(&mut self, origin: Origin, value: OsString) {
        self.origin = origin;
        self.value = Some(value);
    }

    /// As if nobody had written it, for a setting without a default.
    pub(super) fn clear(&mut self) {
        self.origin = Origin::Default;
        self.value = None;
    }

    /// As it is written on a command line; none for what is not set and for a switch that is off.
    pub(super) fn word(&self) -> Option<OsString> {
        let value = self.value.as_ref().filter(|value| !(self.switch && *value == "false"))?;
        let mut word = OsString::from(format!("--{}", self.key.replace('_', "-")));
        // A switch takes no value; anything else than `true` behind it is refused by clap.
        if !self.switch || value != "true" {
            word.push("=");
            word.push(value);
        }
        Some(word)
    }

    /// Whether somebody wrote it, rather than left it at its default.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.origin != Origin::Default
    }

    /// The value as it may be shown: user and password of an address are masked, and what was read
    /// from a file of secrets and is no address is masked as a whole.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        let text = self.value.as_ref()?.to_string_lossy().into_owned();
        Some(match &self.read_from {
            Some(_) if self.key == "sink" => super::sink(&text).map_or("***".to_owned(), |url| url.to_string()),
            Some(_) => super::store(&text).map_or("***".to_owned(), |url| url.to_string()),
            None if self.secret => Secret::new(text).to_string(),
            None => text,
        })
    }

    /// Whether an address with a user or a password stands in the value itself.
    pub(super) fn holds_password(&self) -> bool {
        self.secret && self.read_from.is_none() && self.shown().as_deref().map(OsStr::new) != self.value.as_deref()
    }

    /// Where it was written, for the beginning of an error.
    pub(super) fn place(&self) -> String {
        let Self { key, origin, .. } = self;
        let place = match origin {
            Origin::File { .. } => format!("{origin}: {key}"),
            _ => origin.to_string(),
        };
        match &self.read_from {
            Some(path) => format!("{place} (from {})", path.display()),
            None => place,
        }
    }
}
