//! Tells the program which commit it is built from: `MEANWHILE_VERSION` is `0.1.0 (5fc9556ab)`.
//!
//! Run by cargo. Reads `.git` as files, so that git need not be installed; outside a checkout, in a
//! published crate for instance, the version stands alone. Never fails.

use std::fs;
use std::path::{Path, PathBuf};

/// Enough to tell the commits of one project apart, short enough to be read out.
const DIGITS: usize = 9;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env!("CARGO_PKG_VERSION");
    // Not searched for further up: there it would be the checkout of something else.
    let commit = git_directory(Path::new(env!("CARGO_MANIFEST_DIR"))).and_then(|git| {
        for path in watched(&git) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
        commit(&git)
    });
    let version = commit.map_or(version.to_owned(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=MEANWHILE_VERSION={version}");
}

/// The directory that holds HEAD. In a work tree beside the main one `.git` is a file that names it.
pub(crate) fn git_directory(project: &Path) -> Option<PathBuf> {
    let git = project.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let named = fs::read_to_string(git).ok()?;
    Some(project.join(named.strip_prefix("gitdir:")?.trim()))
}

/// Where the branches are: beside HEAD, or in the directory of the main work tree.
fn shared(git: &Path) -> PathBuf {
    fs::read_to_string(git.join("commondir")).map_or(git.to_owned(), |path| git.join(path.trim()))
}

/// What changes with a commit or another branch. A path that is not there would make cargo run this
/// every time.
fn watched(git: &Path) -> Vec<PathBuf> {
    let shared = shared(git);
    let paths = [git.join("HEAD"), shared.join("refs/heads"), shared.join("packed-refs")];
    paths.into_iter().filter(|path| path.exists()).collect()
}

/// The commit that is checked out, abbreviated.
pub(crate) fn commit(git: &Path) -> Option<String> {
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let hash = match head.trim().strip_prefix("ref: ") {
        None => head.clone(),
        Some(branch) => fs::read_to_string(shared(git).join(branch)).ok().or_else(|| packed(git, branch))?,
    };
    let short = hash.trim().get(..DIGITS)?;
    short.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| short.to_owned())
}

/// git moves branches that rest into one file: a line `HASH NAME` each.
fn packed(git: &Path, branch: &str) -> Option<String> {
    let packed = fs::read_to_string(shared(git).join("packed-refs")).ok()?;
    packed.lines().find_map(|line| Some(line.strip_suffix(branch)?.strip_suffix(' ')?.to_owned()))
}
