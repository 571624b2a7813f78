//! Flags over environment over file over defaults, and where each value came from.
//!
//! [`Given`] stands in the place of [`ServeArgs`] on the command line and adds `--config`. Called by
//! `cli/`. It asks clap for the flags there are, so a new flag is at once also a key of the file and a
//! line of `meanwhile config`. One setting is in `setting.rs`; the file is read by `file.rs`, files of
//! secrets by `secret_file.rs`. No value that may hold a password leaves here unmasked, except
//! in the validated [`Config`].

use super::setting::{Origin, Setting};
use super::{Config, ServeArgs, file, secret_file};
use clap::error::ContextKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use std::path::{Path, PathBuf};

/// A key whose value may come from a file of its own, and the key that says from which.
/// [`Setting::shown`] reads such a value as an address.
const FROM_FILES: [(&str, &str); 2] = [("store", "store_file"), ("sink", "sink_file")];

/// Where the file of settings is; the one flag that is no key of it.
#[derive(Args)]
struct FileArgs {
    /// Reads settings from a TOML file: a key for each flag below, such as grace = "5s"
    #[arg(long, value_name = "FILE", env = "MEANWHILE_CONFIG")]
    config: Option<PathBuf>,
}

/// What was written on the command line and in the environment. The file is read by [`Self::load`],
/// as often as wanted.
#[derive(Clone, Debug)]
pub struct Given {
    file: Option<PathBuf>,
    /// In the order of the flags.
    written: Vec<Setting>,
}

/// All settings in force, as text. It cannot be printed as a whole: `args` holds passwords.
pub struct Effective {
    pub args: ServeArgs,
    /// In the order of the flags.
    pub settings: Vec<Setting>,
    /// What should be changed though it works.
    pub warnings: Vec<String>,
}

/// A setting that cannot be used: where it stands, what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct LoadError {
    pub place: String,
    pub reason: String,
}

impl Given {
    /// The file of settings, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file and puts all layers together.
    ///
    /// # Errors
    /// If the file cannot be read, or a key or the form of a value is wrong. What values mean is
    /// judged by [`Effective::config`].
    pub fn load(&self) -> Result<Effective, LoadError> {
        let flags = flags();
        let mut settings: Vec<Setting> = flags.get_arguments().map(Setting::of).collect();
        if let Some(path) = &self.file {
            for entry in file::read(path)? {
                let origin = Origin::File { path: path.clone(), line: entry.line };
                let setting = find(&mut settings, &entry.key).ok_or_else(|| unknown_key(&origin, &entry.key))?;
                setting.set(origin, entry.value.into());
                // By itself, so that the error is that of this line.
                if let Err(error) = flags.clone().try_get_matches_from(setting.word()) {
                    return Err(LoadError { place: setting.place(), reason: first_line(&error) });
                }
            }
        }
        for written in &self.written {
            if let Some(setting) = find(&mut settings, &written.key) {
                setting.clone_from(written);
            }
        }
        let mut warnings = read_secrets(&mut settings)?;
        if let Some(path) = &self.file
            && settings.iter().any(|setting| matches!(setting.origin, Origin::File { .. }) && setting.holds_password())
        {
            warnings.extend(secret_file::warn_if_open(path));
        }
        let written = settings.iter().filter(|setting| setting.is_written()).filter_map(Setting::word);
        let matches = flags.try_get_matches_from(written);
        let args = matches.and_then(|matches| ServeArgs::from_arg_matches(&matches));
        let args = args.map_err(|error| LoadError { place: "settings".to_owned(), reason: first_line(&error) })?;
        Ok(Effective { args, settings, warnings })
    }
}

impl Effective {
    /// The validated object.
    ///
    /// # Errors
    /// Names the flag, the variable, or the line of the file.
    pub fn config(&self) -> Result<Config, LoadError> {
        Config::try_from(&self.args).map_err(|error| self.wrong(error.flag, error.reason))
    }

    /// An error about the value of a flag, which names the place where it was written.
    #[must_use]
    pub fn wrong(&self, flag: &str, reason: String) -> LoadError {
        let key = flag.replace('-', "_");
        let Some(setting) = self.settings.iter().find(|setting| setting.key == key) else {
            return LoadError { place: format!("--{flag}"), reason };
        };
        let secret = setting.read_from.as_ref().and(setting.value.as_ref()).map(|value| value.to_string_lossy());
        let reason = match secret {
            // A file that holds only a password, for example.
            Some(secret) if reason.contains(&*secret) => {
                let valid = match key.as_str() {
                    "sink" => "postgres://USER:PASSWORD@HOST:PORT/DATABASE",
                    _ => "redis://USER:PASSWORD@HOST:PORT",
                };
                format!("what it holds is no address of a {key}: write {valid} into it")
            }
            _ => reason,
        };
        LoadError { place: setting.place(), reason }
    }

    /// Takes over one setting of another load.
    pub fn take(&mut self, other: &Self, key: &str) {
        for (here, there) in self.settings.iter_mut().zip(&other.settings).filter(|(here, _)| here.key == key) {
            here.clone_from(there);
        }
    }

    /// The settings of `self` that have another value in `other`.
    pub fn changed(&self, other: &Self) -> impl Iterator<Item = &Setting> {
        self.settings
            .iter()
            .zip(&other.settings)
            .filter(|(here, there)| here.value != there.value)
            .map(|(here, _)| here)
    }
}

/// The flags as a command of their own, without a name of a program before them.
fn flags() -> Command {
    let bare = Command::new("settings").no_binary_name(true).disable_help_flag(true).disable_version_flag(true);
    ServeArgs::augment_args(bare)
}

fn find<'s>(settings: &'s mut [Setting], key: &str) -> Option<&'s mut Setting> {
    settings.iter_mut().find(|setting| setting.key == key)
}

/// Puts what a file of its own holds in the place of a value, unless the value itself was written
/// in a layer that wins over it. Returns warnings.
fn read_secrets(settings: &mut [Setting]) -> Result<Vec<String>, LoadError> {
    let mut warnings = Vec::new();
    for (key, file_key) in FROM_FILES {
        let named = find(settings, file_key).expect("a flag for the file").clone();
        let Some(path) = named.value.as_ref().map(PathBuf::from) else { continue };
        let setting = find(settings, key).expect("a flag for the value");
        match setting.origin.rank().cmp(&named.origin.rank()) {
            std::cmp::Ordering::Greater => {
                find(settings, file_key).expect("seen above").clear();
            }
            std::cmp::Ordering::Equal => {
                let reason = format!("{} gives the same: keep one of them", setting.place());
                return Err(LoadError { place: named.place(), reason });
            }
            std::cmp::Ordering::Less => {
                let content = secret_file::read(&path);
                let content = content.map_err(|reason| LoadError { place: named.place(), reason })?;
                warnings.extend(secret_file::warn_if_open(&path));
                setting.set(named.origin, content.into());
                setting.read_from = Some(path);
            }
        }
    }
    Ok(warnings)
}

fn unknown_key(origin: &Origin, key: &str) -> LoadError {
    let guess = flags().try_get_matches_from([format!("--{}", key.replace('_', "-"))]);
    let near = guess.err().and_then(|error| error.get(ContextKind::SuggestedArg).map(ToString::to_string));
    let reason = if let Some(near) = near {
        let near = near.split_whitespace().next().unwrap_or_default().trim_start_matches('-').replace('-', "_");
        format!("there is no key {key}: did you mean {near}?")
    } else {
        let keys: Vec<String> = flags().get_arguments().map(|flag| flag.get_id().to_string()).collect();
        format!("there is no key {key}; there are {}", keys.join(", "))
    };
    LoadError { place: origin.to_string(), reason }
}

/// What clap says, without its decoration.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        ServeArgs::augment_args(FileArgs::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut written = Vec::new();
        for flag in flags().get_arguments() {
            let key = flag.get_id().to_string();
            let origin = match matches.value_source(&key) {
                Some(ValueSource::CommandLine) => Origin::Flag(key.replace('_', "-")),
                Some(ValueSource::EnvVariable) => {
                    Origin::Environment(flag.get_env().unwrap_or_default().to_string_lossy().into_owned())
                }
                _ => continue,
            };
            let value = matches.get_raw(&key).and_then(|mut values| values.next()).unwrap_or_default();
            let mut setting = Setting::of(flag);
            setting.set(origin, value.to_owned());
            written.push(setting);
        }
        Ok(Self { file: FileArgs::from_arg_matches(matches)?.config, written })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
