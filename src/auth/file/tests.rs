//! The file of tokens: what is read, what is refused, and that a change is whole.

use super::*;

const TOKEN: &str = r#"
[[token]]
id = "0a"
name = "sensors"
hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
scopes = ["ingest"]
"#;

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_an_entry_says() {
    let more = "sources = [\"a/*\"]\nchannels = []\nexpires = \"2026-12-31\"\nrate = 10\nmax_new_sources = 5\n";
    let entries = Entries::parse(&format!("{TOKEN}{more}")).unwrap();
    let [(identity, limits)] = &entries.identities().unwrap()[..] else { panic!("one") };
    assert_eq!((&*identity.id, &*identity.name), ("0a", "sensors"));
    assert!(identity.may(Scope::Ingest) && !identity.may(Scope::Query));
    assert!(identity.has_source("a/1") && !identity.has_source("b"));
    assert_eq!(identity.expires(), Some(1_798_675_200_000));
    assert_eq!((limits.rate, limits.new_sources), (Some(10.0), Some(5)));
    assert!(Entries::parse("").unwrap().identities().unwrap().is_empty(), "nobody may do anything");
}

#[test]
fn what_has_no_meaning_is_refused_by_name() {
    let check = |text: &str, line: Option<usize>, part: &str| {
        let (at, reason) = Entries::parse(text).unwrap_err();
        assert_eq!(at, line, "{text}: {reason}");
        assert!(reason.contains(part), "{text}: {reason}");
        assert!(!reason.contains("ba7816"), "{reason}");
    };
    check("[[token]]\nid = ", Some(2), "");
    check(&format!("{TOKEN}scope = [\"query\"]"), Some(7), "unknown field");
    check(&TOKEN.replace("\"ingest\"", "\"root\""), Some(6), "unknown variant");
    check(&TOKEN.replace("[[token]]", "[[tokens]]"), Some(2), "unknown field");
    check(&TOKEN.replace("ba78", "ba7"), None, "token \"sensors\": hash: ");
    check(&TOKEN.replace("hash", "password"), None, "a token has a hash");
    check(&TOKEN.replace("[[token]]", "[[user]]"), None, "a user has a password");
    check(&TOKEN.replace("token", "user").replace("hash", "password"), None, "user \"sensors\": password: ");
    check(&format!("{TOKEN}rate = 0"), None, "rate: at least 1");
    check(&format!("{TOKEN}sources = [\"\"]"), None, "sources: ");
    check(&format!("{TOKEN}expires = \"soon\""), None, "expires: ");
    check(&TOKEN.replace("sensors", "two words"), None, "a name is");
    check(&format!("{TOKEN}{}", TOKEN.replace("0a", "0b")), None, "another with this name or id");
    check(&format!("{TOKEN}{}", TOKEN.replace("sensors", "others")), None, "another with this name or id");
    check(
        &format!("{TOKEN}{}", TOKEN.replace("sensors", "0a").replace("\"0a\"\nn", "\"0b\"\nn")),
        None,
        "another with",
    );
}

#[test]
fn names() {
    for name in ["a", "A-1_b.c@d", &"x".repeat(MAX_NAME)] {
        assert_eq!(check_name(name), Ok(()));
    }
    let hostile = ["", "-a", "a b", "a*", "a\nb", "a\"b", "a/b", "a:b", "ä", "\u{1b}[31m", &"x".repeat(MAX_NAME + 1)];
    for name in hostile {
        assert!(check_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn others_keep_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.toml");
    write(&path, TOKEN, 0o600);
    assert!(Entries::read(&path).unwrap().1.is_none());
    write(&path, TOKEN, 0o640);
    assert!(Entries::read(&path).unwrap().1.unwrap().contains("chmod 600"));
    for mode in [0o620, 0o602, 0o666] {
        write(&path, TOKEN, mode);
        assert!(Entries::read(&path).unwrap_err().to_string().contains("can write"), "{mode:o}");
    }
    assert!(matches!(Entries::read(&dir.path().join("other")), Err(FileError::Read { .. })));
    assert!(Entries::read(dir.path()).is_err());
}

fn entry(name: &str) -> Entry {
    let hash = Digest::of(name.as_bytes()).to_string();
    Entry { id: format!("0{name}"), name: name.to_owned(), hash: Some(hash), ..Entry::default() }
}

fn add(path: &Path, name: &str) -> anyhow::Result<()> {
    Entries::change(path, |entries| {
        entries.tokens.push(entry(name));
        Ok(())
    })
}

#[test]
fn a_change_is_whole_and_keeps_owner_and_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.toml");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    add(&path, "a").unwrap();
    assert_eq!(mode(&path), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    // What was left by one that was broken off.
    fs::write(dir.path().join("auth.toml.new"), "half").unwrap();
    add(&path, "b").unwrap();
    assert_eq!(mode(&path), 0o640);
    let before = fs::read_to_string(&path).unwrap();
    assert!(add(&path, "b").is_err(), "there is one already");
    assert!(add(&path, "not a name").is_err());
    let refused = Entries::change(&path, |_| -> anyhow::Result<()> { anyhow::bail!("no") });
    assert!(refused.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    let there: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(there, ["auth.toml"], "nothing is left beside it");
    // A link stays one.
    let link = dir.path().join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    add(&link, "c").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Entries::read(&path).unwrap().0.tokens.len(), 3);
}

#[test]
fn those_who_change_it_at_once_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.toml");
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let path = &path;
            scope.spawn(move || (0..5).for_each(|n| add(path, &format!("w{writer}n{n}")).unwrap()));
        }
    });
    assert_eq!(Entries::read(&path).unwrap().0.tokens.len(), 40);
}
