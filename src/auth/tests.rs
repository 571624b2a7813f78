//! Who is let in, who is not any more, and what a change of the file does.

use super::*;
use crate::clock;
use file::Entry;
use std::os::unix::fs::PermissionsExt;

struct World {
    dir: tempfile::TempDir,
    auth: Arc<Auth>,
}

fn entry(name: &str, expires: Option<&str>) -> Entry {
    let id = format!("id{}", name.len());
    Entry { id, name: name.to_owned(), expires: expires.map(str::to_owned), ..Entry::default() }
}

fn token(name: &str, secret: &str, expires: Option<&str>) -> Entry {
    Entry { hash: Some(Digest::of(secret.as_bytes()).to_string()), ..entry(name, expires) }
}

fn user(name: &str, password: &str) -> Entry {
    Entry { password: Some(password::hash(password).unwrap()), ..entry(name, None) }
}

impl World {
    fn new(entries: Entries) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.toml");
        Entries::change(&path, |file| {
            *file = entries;
            Ok(())
        })
        .unwrap();
        Self { auth: Auth::open(&path).unwrap(), dir }
    }

    fn change(&self, change: impl FnOnce(&mut Entries)) {
        Entries::change(&self.dir.path().join("auth.toml"), |entries| {
            change(entries);
            Ok(())
        })
        .unwrap();
    }

    fn named(&self, token: &str) -> Result<String, Denied> {
        self.auth.by_token(token, 1_000).map(|identity| identity.name.to_string())
    }
}

#[test]
fn a_token_is_found_by_all_of_it() {
    let secret = token::generate();
    let tokens = vec![token("a", &secret, None), token("past", "old", Some("1970-01-01T00:00:01Z"))];
    let world = World::new(Entries { tokens, users: vec![] });
    assert_eq!(world.named(&secret), Ok("a".to_owned()));
    for at in 0..secret.len() {
        assert_eq!(world.named(&secret[..at]), Err(Denied::Unknown));
    }
    assert_eq!(world.named(&format!("{secret} ")), Err(Denied::Unknown));
    assert_eq!(world.named(&Digest::of(secret.as_bytes()).to_string()), Err(Denied::Unknown), "its hash is no token");
    assert_eq!(world.named("old"), Err(Denied::Expired));
    assert!(world.auth.by_token("old", 999).is_ok());
}

#[test]
fn a_change_counts_and_a_wrong_one_changes_nothing() {
    let world = World::new(Entries { tokens: vec![token("a", "x", None)], users: vec![] });
    let ann = world.auth.by_token("x", 0).unwrap();
    ann.allowance.note::<&str>(&["seen"], &[]).unwrap();
    world.change(|entries| entries.tokens[0].scopes = vec![Scope::Query]);
    world.auth.read().unwrap();
    let now = world.auth.still(&ann, 0).unwrap();
    assert!(now.may(Scope::Query) && !ann.may(Scope::Query));
    assert!(Arc::ptr_eq(&now.allowance, &ann.allowance), "what was used up stays used up");

    let path = world.dir.path().join("auth.toml");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("scopes", "scope")).unwrap();
    assert!(world.auth.read().is_err());
    fs::write(&path, &good).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(world.auth.read().is_err());
    fs::remove_file(&path).unwrap();
    assert!(world.auth.read().is_err());
    assert!(world.named("x").is_ok());

    fs::write(&path, good).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    // Another token under the same name and id.
    world.change(|entries| entries.tokens[0] = token("a", "y", None));
    world.auth.read().unwrap();
    assert_eq!(world.auth.still(&ann, 0).unwrap_err(), Denied::Unknown);
    assert_eq!((world.named("x"), world.named("y")), (Err(Denied::Unknown), Ok("a".to_owned())));
}

#[tokio::test]
async fn passwords_are_remembered_until_the_file_changes() {
    let world = World::new(Entries { tokens: vec![], users: vec![user("ann", "correct horse")] });
    let start = clock::instant();
    let auth = &world.auth;
    assert!(auth.remembered("ann", "correct horse", 0, start).is_none());
    assert_eq!(auth.by_password(auth.turn().await, "ann", "wrong horse", 0, start).await.unwrap_err(), Denied::Unknown);
    assert_eq!(
        auth.by_password(auth.turn().await, "bob", "correct horse", 0, start).await.unwrap_err(),
        Denied::Unknown
    );
    assert_eq!(&*auth.by_password(auth.turn().await, "ann", "correct horse", 0, start).await.unwrap().name, "ann");
    assert!(auth.remembered("ann", "correct horse", 0, start).is_some());
    assert!(auth.remembered("ann", "wrong horse", 0, start).is_none());
    assert!(auth.remembered("ann", "correct horse", 0, start + REMEMBERED).is_none());
    world.change(|entries| entries.users[0].password = Some(password::hash("another horse").unwrap()));
    auth.read().unwrap();
    assert!(auth.remembered("ann", "correct horse", 0, start).is_none());
    assert_eq!(
        auth.by_password(auth.turn().await, "ann", "correct horse", 0, start).await.unwrap_err(),
        Denied::Unknown
    );
}
