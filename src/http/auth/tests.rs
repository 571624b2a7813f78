//! The layer by itself: what is presented in which form, which routes let whom in, and that nothing of it is told.

use super::*;
use crate::auth::file::{Entries, Entry};
use crate::auth::{password, token};
use axum::body::{Body, to_bytes};
use axum::http::StatusCode;

fn headers(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
}

#[test]
fn what_headers_say() {
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let token = |text: &str| Some(Some(Credentials::Token(text.to_owned())));
    let user = |user: &str, password: &str| {
        Some(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
    };
    let check = |values: &[&str], expected: Option<Option<Credentials>>| {
        assert!(presented(&headers(values)).ok() == expected, "{values:?}");
    };
    check(&[], Some(None));
    check(&["Bearer abc"], token("abc"));
    check(&["bearer  abc "], token("abc"));
    check(&["Token abc"], token("abc"));
    check(&[&basic("ann:a:b")], user("ann", "a:b"));
    check(&[&basic("é:ü")], user("é", "ü"));
    for wrong in ["abc", "Bearer", "Digest abc", "Basic", "Basic ?", &basic("ann"), ""] {
        check(&[wrong], None);
    }
    check(&["Bearer abc", "Bearer abc"], None);
    assert!(in_query(&"/v1/stream?channel=a&token=a%2Bb".parse().unwrap()) == Some(Credentials::Token("a+b".into())));
    assert!(in_query(&"/v1/stream?channel=a".parse().unwrap()).is_none());
}

struct World {
    guard: Arc<Guard>,
    _dir: tempfile::TempDir,
}

/// One identity, with a token and, as `ann`, with a password.
fn world(secret: &str, change: impl FnOnce(&mut Entry)) -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.toml");
    let mut entry = Entry { id: "1".into(), name: "one".into(), hash: Some(token::hash(secret)), ..Entry::default() };
    change(&mut entry);
    let hash = password::hash("correct horse").unwrap();
    let user = Entry { id: "2".into(), name: "ann".into(), hash: None, password: Some(hash), ..entry.clone() };
    let done = Entries::change(&path, |entries| {
        (entries.tokens, entries.users) = (vec![entry], vec![user]);
        Ok(())
    });
    done.unwrap();
    World { guard: Guard::new(Some(Auth::open(&path).unwrap()), 0, None, Clock::manual(1_000)), _dir: dir }
}

impl World {
    async fn ask(&self, access: Access, values: &[&str], uri: &str) -> Result<String, Problem> {
        let uri: Uri = uri.parse().unwrap();
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let caller = self.guard.caller(access, &headers(values), &uri, client).await?;
        Ok(match caller {
            Caller::Everybody => "everybody".to_owned(),
            Caller::Nobody => "nobody".to_owned(),
            Caller::Known(identity) => identity.name.to_string(),
        })
    }

    async fn check(&self, access: Access, values: &[&str], uri: &str, expected: Result<&str, Kind>) {
        let got = self.ask(access, values, uri).await.map_err(|problem| problem.kind());
        assert_eq!(got.as_deref().map_err(|kind| *kind), expected, "{access:?} {values:?} {uri}");
    }
}

#[tokio::test]
async fn who_is_let_in_where() {
    let query = Access::Needs(&[Scope::Query]);
    let bearer = "Bearer secret";
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let world = world("secret", |entry| entry.scopes = vec![Scope::Query]);
    world.check(query, &[], "/", Err(Kind::Unauthorized)).await;
    world.check(query, &[], "/?token=secret", Err(Kind::Unauthorized)).await;
    world.check(query, &["Bearer secre"], "/", Err(Kind::Unauthorized)).await;
    world.check(query, &[bearer], "/", Ok("one")).await;
    world.check(query, &[&basic("ann:correct horse")], "/", Ok("ann")).await;
    world.check(query, &[&basic("bob:correct horse")], "/", Err(Kind::Unauthorized)).await;
    world.check(query, &[&basic("whoever:secret")], "/", Ok("one")).await;
    world.check(Access::Needs(&[Scope::Ingest]), &[bearer], "/", Err(Kind::Forbidden)).await;
    world.check(Access::Needs(&[Scope::Ingest, Scope::Query]), &[bearer], "/", Ok("one")).await;
    world.check(Access::Listens, &[], "/", Err(Kind::Unauthorized)).await;
    world.check(Access::Listens, &[], "/?token=secret", Ok("one")).await;
    world.check(Access::Listens, &[bearer], "/?token=other", Ok("one")).await;
    world.check(Access::Anyone, &[], "/", Ok("nobody")).await;
    world.check(Access::Anyone, &["Bearer wrong"], "/", Ok("nobody")).await;
    world.check(Access::Anyone, &[bearer], "/", Ok("one")).await;
    world.check(Access::Asks, &[bearer], "/?EIO=4", Ok("one")).await;
    world.check(Access::Asks, &[], "/?EIO=4", Ok("nobody")).await;
    world.check(Access::Asks, &[], "/?EIO=4&token=wrong", Err(Kind::Unauthorized)).await;
    world.check(Access::Asks, &[], "/?EIO=3", Err(Kind::Unauthorized)).await;
    world.check(Access::Asks, &[], "/?EIO=3&token=secret", Ok("one")).await;

    let open = World { guard: Guard::new(None, 0, None, Clock::System), _dir: tempfile::tempdir().unwrap() };
    for access in [query, Access::Listens, Access::Anyone, Access::Asks] {
        open.check(access, &["nonsense"], "/", Ok("everybody")).await;
    }
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let world = world("secret", |entry| entry.scopes = vec![Scope::Query]);
    let query = Access::Needs(&[Scope::Query]);
    let right = format!("Basic {}", STANDARD.encode("ann:correct horse"));
    world.check(query, &[&right], "/", Ok("ann")).await;
    for _ in 0..10 {
        world.check(query, &["Bearer wrong"], "/", Err(Kind::Unauthorized)).await;
    }
    world.check(query, &["Bearer wrong"], "/", Err(Kind::TooFast)).await;
    let problem = world.ask(query, &["Bearer wrong"], "/").await.unwrap_err().into_response();
    assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = problem.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    // Who has a token is let in from the same address; passwords are not looked at, remembered or not.
    world.check(query, &["Bearer secret"], "/", Ok("one")).await;
    world.check(query, &[&right], "/", Err(Kind::TooFast)).await;
}

#[tokio::test]
async fn a_refusal_says_what_is_missing_and_repeats_no_secret() {
    let world = world("secret", |entry| entry.expires = Some("1970-01-01".to_owned()));
    for value in ["Bearer secret", "Bearer hush", "Basic aHVzaDpodXNo", "hush"] {
        let problem = world.ask(Access::Needs(&[Scope::Admin]), &[value], "/?hush").await.unwrap_err();
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let challenges: Vec<_> = response.headers().get_all(header::WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges.len(), 2);
        let shown = format!("{:?}", response.headers());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(!format!("{shown}{body}").contains("hush") && !body.contains("secret"), "{shown}{body}");
        assert_eq!(body.contains("expired"), value == "Bearer secret", "{body}");
    }
}

#[tokio::test]
async fn a_handler_outside_of_the_table_knows_nobody() {
    let (mut parts, _) = Request::new(Body::empty()).into_parts();
    let Ok(caller) = Caller::from_request_parts(&mut parts, &()).await;
    assert!(Scope::ALL.iter().all(|scope| !caller.may(*scope)));
    assert!(!caller.has_source("a") && !caller.may_publish("a"));
}
