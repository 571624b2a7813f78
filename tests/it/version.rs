//! Which commit a build says it is of: build.rs against the ways git keeps a branch.

#[allow(dead_code, reason = "its main is for cargo")]
#[path = "../../build.rs"]
mod build;

use crate::servers::temporary;
use crate::service::command;
use std::fs;
use std::path::Path;

const HASH: &str = "5fc955607a1b2c3d4e5f60718293a4b5c6d7e8f9";

/// Writes files of a checkout, and reads its commit.
fn commit(files: &[(&str, &str)]) -> Option<String> {
    let dir = temporary();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    build::commit(&build::git_directory(&dir.path().join("project"))?)
}

#[test]
fn the_commit_of_a_checkout() {
    let check = |files: &[(&str, &str)], expected: Option<&str>| {
        assert_eq!(commit(files).as_deref(), expected, "{files:?}");
    };
    let short = Some("5fc955607");
    let loose = format!("{HASH}\n");
    let packed = format!(
        "# pack-refs with: peeled fully-peeled sorted\n1111111111111111111111111111111111111111 refs/heads/old/main\n{HASH} refs/heads/main\n"
    );
    check(&[("project/.git/HEAD", &loose)], short);
    let head = ("project/.git/HEAD", "ref: refs/heads/main\n");
    check(&[head, ("project/.git/refs/heads/main", &loose)], short);
    check(&[head, ("project/.git/packed-refs", &packed)], short);
    // A work tree beside the main one.
    let beside = [
        ("project/.git", "gitdir: ../main/.git/worktrees/project\n"),
        ("main/.git/worktrees/project/HEAD", head.1),
        ("main/.git/worktrees/project/commondir", "../..\n"),
        ("main/.git/refs/heads/main", &loose),
    ];
    check(&beside, short);
    // No commit yet, something else, nothing at all, and a checkout further up.
    check(&[head], None);
    check(&[("project/.git/HEAD", "nonsense, and long enough")], None);
    check(&[("project/.git/HEAD", "")], None);
    check(&[("project/Cargo.toml", "")], None);
    check(&[("project/Cargo.toml", ""), (".git/HEAD", &loose)], None);
}

#[test]
fn the_program_says_its_commit() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let commit = build::git_directory(project).and_then(|git| build::commit(&git));
    let number = env!("CARGO_PKG_VERSION");
    let expected = commit.map_or(format!("meanwhile {number}\n"), |commit| format!("meanwhile {number} ({commit})\n"));
    let output = command(&["--version"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
