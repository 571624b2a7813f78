//! `meanwhile token`: makes, lists and takes back what lets clients in.
//!
//! Works on the file of `--auth-file` (`auth/file.rs`), not through a service: a running one sees the change within a
//! second. A token goes to standard output once, when it is made; nowhere else and never again.

use super::{Usage, output};
use crate::auth::file::{Entries, Entry, check_name};
use crate::auth::{Scope, password, token};
use crate::clock::Clock;
use crate::config::{AuthFileArgs, duration};
use crate::stats::calendar::Zone;
use crate::stats::glob::Glob;
use crate::stats::{Millis, timestamp};
use anyhow::{Context, bail};
use serde::Serialize;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile token create --auth-file auth.toml --name sensors --scope ingest --sources 'greenhouse/*'
      Prints a token that may send readings of the greenhouse, and nothing else.
  meanwhile token create --auth-file auth.toml --name board --scope query,live --expires 30d > board.token
      One for a month, into a file.
  meanwhile token create --auth-file auth.toml --user ann --scope query,live
      A user for a browser; reads her password from standard input.
  meanwhile token list --auth-file auth.toml
      Who there is, and what each may do; no secrets.
  meanwhile token revoke --auth-file auth.toml sensors
      Closes what it has open, too, within a few seconds.

The scopes are ingest, query, live, publish and admin; none includes another.
MEANWHILE_AUTH_FILE stands for --auth-file. docs/security.md tells the rest.";

#[derive(clap::Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(clap::Subcommand)]
enum TokenCommand {
    /// Make a token and print it, once; or a user with a password
    Create(Box<CreateArgs>),
    /// List who there is; never a secret
    List(ListArgs),
    /// Take a token or a user off the file, for good
    Revoke(RevokeArgs),
}

#[derive(clap::Args)]
struct CreateArgs {
    /// What it is called in lists and in the log; 1 to 64 of a-z, A-Z, 0-9, - _ . @
    #[arg(long, value_name = "NAME", required_unless_present = "user")]
    name: Option<String>,

    /// Make a user with a password instead of a token, for browsers and HTTP Basic
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    user: Option<String>,

    /// Reads the password of the user from a file of one line [default: standard input]
    #[arg(long, value_name = "PATH", requires = "user")]
    password_file: Option<PathBuf>,

    /// What it may do: ingest, query, live, publish, admin
    #[arg(long, value_name = "SCOPE,...", required = true, value_delimiter = ',')]
    scope: Vec<Scope>,

    /// Only these sources; may be repeated [default: all]
    #[arg(long, value_name = "GLOB")]
    sources: Vec<String>,

    /// Only these channels; may be repeated [default: all but the personal ones of others]
    #[arg(long, value_name = "GLOB")]
    channels: Vec<String>,

    /// When it ends: 30d, 2026-12-31 or 2026-12-31T12:00:00Z [default: never]
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,

    /// Readings per second, as in 500 or 500/s; ten seconds' worth may come at once [default: no limit]
    #[arg(long, value_name = "N/s")]
    rate: Option<String>,

    /// Sources it may add to those that are known [default: no limit]
    #[arg(long, value_name = "N")]
    max_new_sources: Option<u32>,

    #[command(flatten)]
    file: AuthFileArgs,
}

#[derive(clap::Args)]
struct ListArgs {
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    file: AuthFileArgs,
}

#[derive(clap::Args)]
struct RevokeArgs {
    /// Its id or its name, as `meanwhile token list` shows them
    #[arg(value_name = "ID|NAME")]
    which: String,

    #[command(flatten)]
    file: AuthFileArgs,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Changes or shows the file.
pub fn run(args: &TokenArgs) -> anyhow::Result<()> {
    match &args.command {
        TokenCommand::Create(args) => create(args, Clock::System.now()),
        TokenCommand::List(args) => list(args),
        TokenCommand::Revoke(args) => revoke(args),
    }
}

fn create(args: &CreateArgs, now: Millis) -> anyhow::Result<()> {
    let mut entry = entry(args, now).map_err(Usage)?;
    let secret = if args.user.is_some() {
        entry.password = Some(password::hash(&password(args.password_file.as_deref())?).map_err(Usage)?);
        None
    } else {
        let secret = token::generate();
        entry.hash = Some(token::hash(&secret));
        Some(secret)
    };
    let path = &args.file.auth_file;
    Entries::change(path, |entries| {
        if entries.iter().any(|other| other.name == entry.name) {
            bail!("there is a token or a user \"{}\" already: choose another name, or revoke it first", entry.name);
        }
        // Whatever the random numbers say.
        while entry.id.is_empty() || entries.iter().any(|other| [&other.id, &other.name].contains(&&entry.id)) {
            entry.id = token::id();
        }
        let list = if secret.is_some() { &mut entries.tokens } else { &mut entries.users };
        list.push(entry.clone());
        Ok(())
    })?;
    output::note(&format!("{} ({}) is in {}", entry.name, entry.id, path.display()));
    if let Some(secret) = secret {
        output::note("keep the token now, it is not shown again:");
        output::print(format!("{secret}\n").as_bytes())?;
    }
    Ok(())
}

/// All but what it is recognised by.
fn entry(args: &CreateArgs, now: Millis) -> Result<Entry, String> {
    let (flag, name) = match (&args.user, &args.name) {
        (Some(user), _) => ("--user", user),
        (None, name) => ("--name", name.as_ref().expect("clap asks for one of them")),
    };
    check_name(name).map_err(|reason| format!("{flag}: {reason}"))?;
    let mut scopes: Vec<Scope> = Vec::new();
    for scope in &args.scope {
        if !scopes.contains(scope) {
            scopes.push(*scope);
        }
    }
    Ok(Entry {
        name: name.clone(),
        scopes,
        sources: globs("--sources", &args.sources)?,
        channels: globs("--channels", &args.channels)?,
        expires: args.expires.as_deref().map(|text| expires(text, now)).transpose()?,
        rate: args.rate.as_deref().map(rate).transpose()?,
        max_new_sources: args.max_new_sources,
        created: Some(timestamp::format(now - now.rem_euclid(1_000))),
        ..Entry::default()
    })
}

fn globs(flag: &str, texts: &[String]) -> Result<Option<Vec<String>>, String> {
    for text in texts {
        Glob::parse(text).map_err(|error| format!("{flag}: {error}"))?;
    }
    Ok((!texts.is_empty()).then(|| texts.to_vec()))
}

fn expires(text: &str, now: Millis) -> Result<String, String> {
    let time = duration(text).ok().map(|span| now + span).or_else(|| timestamp::parse(text, &Zone::utc()));
    let unknown = || format!("--expires: \"{text}\" is no time: write 30d, 2026-12-31 or 2026-12-31T12:00:00Z");
    let time = time.ok_or_else(unknown)?;
    if time <= now {
        return Err(format!("--expires: {text} is over already"));
    }
    Ok(timestamp::format(time - time.rem_euclid(1_000)))
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok().filter(|rate| *rate > 0);
    number.ok_or_else(|| format!("--rate: \"{text}\" is no number of readings per second: write 500 or 500/s"))
}

/// Reads a password, without the end of its line.
fn password(path: Option<&Path>) -> anyhow::Result<String> {
    let mut text = String::new();
    match path {
        Some(path) => {
            text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        }
        None if io::stdin().is_terminal() => {
            output::note(
                "type the password and Enter; it is shown while you type, --password-file reads it from a file",
            );
            io::stdin().read_line(&mut text)?;
        }
        None => drop(io::stdin().take(2 * password::MAX_BYTES as u64).read_to_string(&mut text)?),
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.contains('\n') {
        bail!(Usage("a password is one line".to_owned()));
    }
    Ok(text.to_owned())
}

/// An entry without what it is recognised by.
#[derive(Serialize)]
struct Listed<'e> {
    id: &'e str,
    name: &'e str,
    kind: &'static str,
    scopes: &'e [Scope],
    /// Null: all.
    sources: Option<&'e [String]>,
    channels: Option<&'e [String]>,
    expires: Option<&'e str>,
    rate: Option<u32>,
    max_new_sources: Option<u32>,
    created: Option<&'e str>,
}

impl<'e> Listed<'e> {
    fn of(entry: &'e Entry) -> Self {
        Self {
            id: &entry.id,
            name: &entry.name,
            kind: if entry.hash.is_some() { "token" } else { "user" },
            scopes: &entry.scopes,
            sources: entry.sources.as_deref(),
            channels: entry.channels.as_deref(),
            expires: entry.expires.as_deref(),
            rate: entry.rate,
            max_new_sources: entry.max_new_sources,
            created: entry.created.as_deref(),
        }
    }

    fn row(&self) -> Vec<String> {
        let list = |list: Option<&[String]>| list.map_or("all".to_owned(), |globs| globs.join(" "));
        let number = |n: Option<u32>| n.map_or(String::new(), |n| n.to_string());
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.name()).collect();
        vec![
            self.id.to_owned(),
            self.name.to_owned(),
            self.kind.to_owned(),
            scopes.join(","),
            list(self.sources),
            list(self.channels),
            self.expires.unwrap_or("never").to_owned(),
            number(self.rate),
            number(self.max_new_sources),
        ]
    }
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let (entries, warning) = Entries::read(&args.file.auth_file)?;
    if let Some(warning) = warning {
        output::note(&format!("warning: {warning}"));
    }
    let listed: Vec<Listed> = entries.iter().map(Listed::of).collect();
    match args.format {
        Format::Table if listed.is_empty() => output::note("no tokens and no users"),
        Format::Table => {
            let header = ["id", "name", "kind", "scopes", "sources", "channels", "expires", "rate", "new sources"];
            let rows = listed.iter().map(Listed::row).collect();
            output::print(output::table(&header, &["rate", "new sources"], rows).as_bytes())?;
        }
        Format::Json => {
            let mut json = serde_json::to_vec_pretty(&listed)?;
            json.push(b'\n');
            output::print(&json)?;
        }
    }
    Ok(())
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let path = &args.file.auth_file;
    // Else it would be made, and then say that nobody is in it.
    Entries::read(path)?;
    let which = &args.which;
    let gone = Entries::change(path, |entries| {
        let found = entries.iter().find(|entry| entry.id == *which || entry.name == *which);
        let Some(gone) = found.cloned() else {
            bail!("there is no token or user \"{which}\" in {}: `meanwhile token list` shows all", path.display());
        };
        entries.tokens.retain(|entry| entry.id != gone.id);
        entries.users.retain(|entry| entry.id != gone.id);
        Ok(gone)
    })?;
    output::note(&format!("{} ({}) is not in {} any more", gone.name, gone.id, path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_795_150_800_123;

    #[test]
    fn ends() {
        let check = |text: &str, expected: Result<&str, &str>| match (expires(text, NOW), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            (got, _) => panic!("{text}: {got:?}"),
        };
        check("30d", Ok("2026-12-20T05:00:00Z"));
        check("2026-12-31", Ok("2026-12-31T00:00:00Z"));
        check("2026-12-31T12:00:00+01:00", Ok("2026-12-31T11:00:00Z"));
        check("2026-11-19", Err("over already"));
        check("0s", Err("over already"));
        check("soon", Err("write 30d"));
    }

    #[test]
    fn rates() {
        for (text, expected) in [("500", Some(500)), ("500/s", Some(500)), ("0", None), ("5/m", None), ("-1", None)] {
            assert_eq!(rate(text).ok(), expected, "{text}");
        }
    }
}
