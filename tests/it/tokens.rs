//! Who may do what: scopes and routes, sources, limits, the file and its changes, and that no secret is told.

use crate::http::{Answer, array, reading};
use crate::servers::temporary;
use crate::service::{On, Service, command, eventually};
use meanwhile::auth::token;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A file of tokens, made by the commands.
pub(crate) struct Tokens {
    dir: TempDir,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let tokens = Self { dir: temporary() };
        // There is a file, and nobody in it who may do anything.
        tokens.create("nobody", &["--scope", "query", "--sources", "no such source"]);
        tokens
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("auth.toml")
    }

    pub(crate) fn flag(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = command(&["token"]);
        command.args(words).env("MEANWHILE_AUTH_FILE", self.path());
        command
    }

    /// Exit status, standard output and standard error.
    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// A new token.
    pub(crate) fn create(&self, name: &str, flags: &[&str]) -> String {
        let (code, token, said) = self.run(&[&["create", "--name", name], flags].concat());
        assert_eq!(code, Some(0), "{said}");
        token.trim_end().to_owned()
    }

    pub(crate) fn create_user(&self, name: &str, password: &str, flags: &[&str]) {
        let file = self.dir.path().join("password");
        fs::write(&file, format!("{password}\n")).unwrap();
        let words = ["create", "--user", name, "--password-file", file.to_str().unwrap()];
        let (code, printed, said) = self.run(&[&words, flags].concat());
        assert_eq!((code, printed.as_str()), (Some(0), ""), "{said}");
    }

    pub(crate) fn revoke(&self, name: &str) {
        let (code, _, said) = self.run(&["revoke", name]);
        assert_eq!(code, Some(0), "{said}");
    }
}

fn start(tokens: &Tokens, flags: &[&str]) -> Service {
    Service::start(On::Embedded, &[&["--auth-file", &tokens.flag()], flags].concat())
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn ask(service: &Service, token: &str, method: &str, path: &str, body: &str) -> Answer {
    service.client().ask(method, path, &[("Authorization", &bearer(token))], body)
}

fn post(service: &Service, token: &str, body: &str) -> Answer {
    ask(service, token, "POST", "/v1/readings", body)
}

fn basic(text: &str) -> String {
    use std::io::Write;
    let mut encode = Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    encode.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    format!("Basic {}", String::from_utf8(encode.wait_with_output().unwrap().stdout).unwrap())
}

const SCOPES: [&str; 5] = ["ingest", "query", "live", "publish", "admin"];

/// Routes, and which scopes let in.
const ROUTES: [(&str, &str, &str, &[&str]); 15] = [
    ("POST", "/v1/readings", "[]", &["ingest"]),
    ("GET", "/v1/sources", "", &["query"]),
    ("GET", "/v1/stats?source=kitchen", "", &["query"]),
    ("GET", "/v1/summary?prefix=", "", &["query"]),
    (
        "GET",
        "/v1/compare?source=kitchen&from=2026-01-01&to=2026-01-02&against_from=2026-01-02&against_to=2026-01-03",
        "",
        &["query"],
    ),
    ("GET", "/v1/state?source=kitchen", "", &["query"]),
    ("GET", "/metrics", "", &["query", "admin"]),
    ("POST", "/v1/publish?channel=news", "hello", &["publish"]),
    ("GET", "/v1/drain", "", &["admin"]),
    ("POST", "/v1/drain?wait=0", "", &["admin"]),
    ("DELETE", "/v1/sources/attic", "", &["admin"]),
    ("GET", "/v1/nodes", "", &["admin"]),
    ("GET", "/v1/errors", "", &["admin"]),
    ("GET", "/healthz", "", &SCOPES),
    ("GET", "/openapi.json", "", &SCOPES),
];

#[test]
fn each_scope_opens_its_routes_and_no_others() {
    let tokens = Tokens::new();
    let given: Vec<(&str, String)> =
        SCOPES.iter().map(|scope| (*scope, tokens.create(scope, &["--scope", scope]))).collect();
    let service = start(&tokens, &[]);
    let all = tokens.create("all", &["--scope", &SCOPES.join(",")]);
    eventually("a new token is known", || (post(&service, &all, &reading("kitchen", 1.0)).status == 200).then_some(()));
    for (method, path, body, opens) in ROUTES {
        for (scope, token) in &given {
            let answer = ask(&service, token, method, path, body);
            if opens.contains(scope) {
                // Attic is not known; that is more than the others are told.
                assert!(matches!(answer.status, 200 | 202 | 404), "{method} {path} with {scope}: {answer:?}");
            } else {
                assert_eq!(answer.status, 403, "{method} {path} with {scope}: {answer:?}");
                assert!(answer.body.contains(&format!("the scope {}", opens.join(" or "))), "{answer:?}");
            }
        }
        let nobody = service.client().ask(method, path, &[], body);
        let open = opens.len() == SCOPES.len();
        assert_eq!(nobody.status, if open { 200 } else { 401 }, "{method} {path}: {nobody:?}");
    }
}

#[test]
fn what_is_open_tells_little() {
    let tokens = Tokens::new();
    let token = tokens.create("board", &["--scope", "query"]);
    let service = start(&tokens, &[]);
    let client = service.client();
    for path in ["/", "/page.css", "/page.js", "/healthz"] {
        client.get(path).ok();
    }
    let brief = client.get("/readyz").ok().json();
    let keys: Vec<&String> = brief.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["instance", "ready"], "{brief}");
    assert!(ask(&service, &token, "GET", "/readyz", "").ok().json()["store"].is_object());
    assert_eq!(client.get("/readyz?exclude=sink").ok().json()["ready"], true);
    let refused = client.get("/v1/sources");
    assert!(refused.headers["www-authenticate"].contains("meanwhile"), "{refused:?}");
    assert_eq!(refused.json()["type"], "/problems/unauthorized");
}

#[test]
fn tokens_come_in_several_headers_and_users_have_passwords() {
    let tokens = Tokens::new();
    let token = tokens.create("board", &["--scope", "query"]);
    tokens.create_user("ann", "correct horse", &["--scope", "query"]);
    let service = start(&tokens, &[]);
    let check = |header: String, status: u16| {
        let answer = service.client().ask("GET", "/v1/sources", &[("Authorization", &header)], "");
        assert_eq!(answer.status, status, "{header}: {answer:?}");
    };
    check(bearer(&token), 200);
    check(format!("Token {token}"), 200);
    check(basic(&format!("influx:{token}")), 200);
    check(basic("ann:correct horse"), 200);
    check(basic("ann:correct hors"), 401);
    check(basic("bob:correct horse"), 401);
    check(bearer(&token[..token.len() - 1]), 401);
    check(bearer("correct horse"), 401);
}

#[test]
fn only_its_own_sources() {
    let tokens = Tokens::new();
    let all = tokens.create("all", &["--scope", "ingest,query"]);
    let mine = tokens.create("mine", &["--scope", "ingest,query,admin", "--sources", "green/*", "--sources", "lab?"]);
    let service = start(&tokens, &[]);
    let good = array([reading("green/1", 1.0), reading("lab1", 2.0)]);
    assert_eq!(post(&service, &mine, &good).ok().json()["accepted"], 2);
    let lines = format!("{}\n{}\n", reading("green/1", 5.0), reading("greenx", 5.0));
    for (content_type, body) in [
        ("application/json", array([reading("green/1", 5.0), reading("greenx", 5.0)])),
        ("application/x-ndjson", lines),
        ("text/csv", "source,value\ngreen/1,5\ngreenx,5\n".to_owned()),
    ] {
        for query in ["", "?on_error=skip"] {
            let headers = [("Authorization", &*bearer(&mine)), ("Content-Type", content_type)];
            let path = format!("/v1/readings{query}");
            let refused = service.client().ask("POST", &path, &headers, &body);
            assert_eq!(refused.status, 403, "{content_type}: {refused:?}");
            let problem = refused.json();
            assert_eq!(problem["source"], "greenx", "{problem}");
            assert!(problem["line"].as_u64().unwrap() >= 2, "{problem}");
        }
    }
    post(&service, &all, &array([reading("green/2", 1.0), reading("greenx", 1.0)])).ok();
    let sum =
        |source: &str| ask(&service, &all, "GET", &format!("/v1/stats?source={source}&period=1d"), "").ok().json();
    assert_eq!(sum("green/1")["rows"][0]["count"], 1, "what is refused counts nothing");

    let listed = |token: &str| -> Vec<String> {
        let list = ask(&service, token, "GET", "/v1/sources", "").ok().json();
        list["sources"].as_array().unwrap().iter().map(|s| s["source"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(&all), ["green/1", "green/2", "greenx", "lab1"]);
    assert_eq!(listed(&mine), ["green/1", "green/2", "lab1"]);
    // One at a time: no cursor names one of the others.
    let mut walked = Vec::new();
    let mut path = "/v1/sources?limit=1".to_owned();
    loop {
        let page = ask(&service, &mine, "GET", &path, "").ok().json();
        walked.extend(page["sources"].as_array().unwrap().iter().map(|s| s["source"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        assert!(!next.contains("677265656e78"), "greenx: {page}");
        path = format!("/v1/sources?limit=1&cursor={next}");
    }
    assert_eq!(walked, listed(&mine));
    let summed = |token: &str| -> Vec<String> {
        let summary = ask(&service, token, "GET", "/v1/summary?prefix=", "").ok().json();
        summary["rows"].as_array().unwrap().iter().map(|row| row["source"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((summed(&all), summed(&mine)), (listed(&all), listed(&mine)));
    for path in [
        "/v1/stats?source=green/1&source=greenx",
        "/v1/stats?source=green/1&source=greenx&fill=null",
        "/v1/summary?source=greenx&prefix=green/",
        "/v1/compare?source=green/1&against=greenx",
        "/v1/state?source=greenx",
        "/v1/stats?source=never",
    ] {
        let refused = ask(&service, &mine, "GET", path, "");
        assert_eq!(refused.status, 403, "{path}: {refused:?}");
    }
    assert_eq!(ask(&service, &mine, "DELETE", "/v1/sources/greenx", "").status, 403);
    // Sources of others are not proposed either.
    let unknown = ask(&service, &mine, "GET", "/v1/stats?source=green/", "");
    assert_eq!(unknown.status, 404);
    let near = unknown.json()["near"].as_array().unwrap().clone();
    assert!(!near.is_empty() && !unknown.body.contains("greenx"), "{near:?}");
}

#[test]
fn keys_of_one_are_not_those_of_another() {
    let tokens = Tokens::new();
    let [a, b] = ["a", "b"].map(|name| tokens.create(name, &["--scope", "ingest"]));
    let service = start(&tokens, &[]);
    let send = |token: &str, value: f64| {
        let headers = [("Authorization", &*bearer(token)), ("Idempotency-Key", "same")];
        service.client().ask("POST", "/v1/readings", &headers, &reading("kitchen", value)).ok().json()
    };
    assert_eq!(send(&a, 1.0)["duplicate"], false);
    assert_eq!(send(&b, 2.0)["duplicate"], false);
    assert_eq!(send(&a, 1.0)["duplicate"], true);
}

#[test]
fn what_ends_ends_and_what_is_revoked_is_out() {
    let tokens = Tokens::new();
    let short = tokens.create("short", &["--scope", "query", "--expires", "3s"]);
    let gone = tokens.create("gone", &["--scope", "query"]);
    let stays = tokens.create("stays", &["--scope", "query"]);
    let service = start(&tokens, &[]);
    let status = |token: &str| ask(&service, token, "GET", "/v1/sources", "").status;
    let expired = eventually("it has ended", || {
        let answer = ask(&service, &short, "GET", "/v1/sources", "");
        (answer.status == 401).then_some(answer)
    });
    assert!(expired.body.contains("it has expired"), "{expired:?}");
    assert_eq!(status(&gone), 200);
    tokens.revoke("gone");
    eventually("it is out", || (status(&gone) == 401).then_some(()));
    assert_eq!(status(&stays), 200);
}

#[test]
fn a_wrong_file_changes_nothing_and_says_why() {
    let tokens = Tokens::new();
    let token = tokens.create("board", &["--scope", "query"]);
    let mut service = start(&tokens, &[]);
    let good = fs::read_to_string(tokens.path()).unwrap();
    let check = |text: &str, mode: u32, said: &str| {
        fs::write(tokens.path(), text).unwrap();
        fs::set_permissions(tokens.path(), fs::Permissions::from_mode(mode)).unwrap();
        eventually(said, || service.log().contains(said).then_some(()));
        assert_eq!(ask(&service, &token, "GET", "/v1/sources", "").status, 200);
    };
    check(&good.replace("scopes", "scope"), 0o600, "those who were known before stay");
    check("", 0o666, "others than its owner can write");
    fs::remove_file(tokens.path()).unwrap();
    eventually("it is missed", || service.log().contains("No such file").then_some(()));
    assert_eq!(ask(&service, &token, "GET", "/v1/sources", "").status, 200);
    check(&good, 0o600, "was read again: 2 tokens and users");
    service.stop();
    fs::remove_file(tokens.path()).unwrap();
    let refused = command(&["serve", "--listen", "127.0.0.1:0", "--auth-file", &tokens.flag()])
        .current_dir(temporary().path())
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("`meanwhile token create` makes one"), "{said}");
}

#[test]
fn so_many_readings_and_so_many_new_sources() {
    let tokens = Tokens::new();
    let all = tokens.create("all", &["--scope", "ingest"]);
    let slow = tokens.create("slow", &["--scope", "ingest", "--rate", "1/s"]);
    let few = tokens.create("few", &["--scope", "ingest,query", "--max-new-sources", "2"]);
    let service = start(&tokens, &[]);
    post(&service, &slow, &array((0..1_000).map(|_| reading("kitchen", 1.0)))).ok();
    let refused = post(&service, &slow, &reading("kitchen", 1.0));
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.headers["retry-after"].parse::<u64>().unwrap() > 900, "{refused:?}");
    assert_eq!(refused.json()["type"], "/problems/too-fast");
    post(&service, &all, &array(["old1", "old2", "old3"].map(|source| reading(source, 1.0)))).ok();

    let send = |sources: &[&str]| post(&service, &few, &array(sources.iter().map(|source| reading(source, 1.0))));
    send(&["old1", "old2", "new1"]).ok();
    send(&["old3", "new1", "new2"]).ok();
    let refused = send(&["old1", "new3"]);
    assert_eq!((refused.status, &refused.json()["type"]), (429, &Value::from("/problems/too-many-sources")));
    send(&["new1", "new2", "kitchen"]).ok();
    assert_eq!(ask(&service, &few, "GET", "/v1/stats?source=new3", "").status, 404, "nothing was counted");
}

#[test]
fn so_many_requests_from_one_address() {
    let service = Service::start(On::Embedded, &["--rate-per-address", "1"]);
    let client = service.client();
    let refused = (0..1_000).map(|_| client.get("/v1/sources")).find(|answer| answer.status == 429);
    let refused = refused.expect("a thousand requests take less than a thousand seconds");
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    client.get("/healthz").ok();
}

#[test]
fn guesses_are_slowed_down() {
    let tokens = Tokens::new();
    let token = tokens.create("board", &["--scope", "query"]);
    let service = start(&tokens, &[]);
    let guess = || ask(&service, "mw_guess", "GET", "/v1/sources", "").status;
    let mut statuses = (0..100).map(|_| guess());
    assert_eq!(statuses.find(|status| *status != 401), Some(429));
    assert_eq!(ask(&service, &token, "GET", "/v1/sources", "").status, 200, "who has one is let in");
    assert!(service.log().contains("wrong tokens or passwords"), "{}", service.log());
}

/// A password that was right a moment ago is known without being compared: that must not make it easy to guess.
#[test]
fn passwords_are_no_easier_to_guess_while_they_are_in_use() {
    let tokens = Tokens::new();
    tokens.create_user("ann", "correct horse", &["--scope", "query"]);
    let service = start(&tokens, &[]);
    let login = |text: &str| service.client().ask("GET", "/v1/sources", &[("Authorization", &basic(text))], "").status;
    // A page asks for many things at once.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(login("ann:correct horse"), 200));
        }
    });
    let guesses = (0..100).map(|n| login(&format!("ann:{n}"))).find(|status| *status != 401);
    assert_eq!(guesses, Some(429));
    assert_eq!(login("ann:correct horse"), 429, "nothing from there is looked at");
}

/// The library and the one who asks who it is have to read the same version of the protocol.
#[test]
fn old_clients_do_not_pass_for_new_ones() {
    let service = start(&Tokens::new(), &[]);
    for query in ["EIO=3", "%45IO=4&EIO=3", "EIO=3&EIO=4"] {
        let path = format!("/socket.io/?{query}&transport=polling");
        assert_eq!(service.client().get(&path).status, 401, "{query}");
    }
    service.client().get("/socket.io/?EIO=4&transport=polling").ok();
}

#[test]
fn others_than_loopback_need_a_decision() {
    let tokens = Tokens::new();
    let dir = temporary();
    let run = |flags: &[&str]| {
        let mut command = command(&["check", "--listen", "0.0.0.0:0"]);
        let output = command.args(flags).current_dir(dir.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--auth-file") && said.contains("--insecure"), "{said}");
    assert_eq!(run(&["--insecure"]).0, Some(0));
    assert_eq!(run(&["--auth-file", &tokens.flag()]).0, Some(0));
    let refused = command(&["serve", "--listen", "0.0.0.0:0"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let missing = command(&["check", "--auth-file", "nowhere"]).current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8(missing.stdout).unwrap();
    assert!(missing.status.code() == Some(1) && said.contains("failed   tokens: cannot read nowhere"), "{said}");
}

#[test]
fn the_commands() {
    let tokens = Tokens::new();
    let token =
        tokens.create("sensors", &["--scope", "ingest,ingest", "--sources", "a*", "--expires", "30d", "--rate", "5/s"]);
    assert!(token::is_whole(&token), "{token}");
    assert_eq!(fs::metadata(tokens.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(tokens.path()).unwrap().contains(&token));
    tokens.create_user("ann", "correct horse", &["--scope", "query"]);
    let list = |words: &[&str]| tokens.run(&[&["list"], words].concat()).1;
    let table = list(&[]);
    assert!(table.contains("sensors") && table.contains("a*") && table.contains("ann"), "{table}");
    let json: Value = serde_json::from_str(&list(&["--format", "json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(json[1]["scopes"], serde_json::json!(["ingest"]));
    let id = json[1]["id"].as_str().unwrap().to_owned();
    for shown in [table, json.to_string()] {
        assert!(!shown.contains("argon2") && !shown.contains(&token) && !shown.contains("hash"), "{shown}");
    }
    let refused = |words: &[&str], code: i32, part: &str| {
        let before = fs::read_to_string(tokens.path()).unwrap();
        let (got, printed, said) = tokens.run(words);
        assert_eq!((got, printed.as_str()), (Some(code), ""), "{words:?}: {said}");
        assert!(said.contains(part), "{words:?}: {said}");
        assert_eq!(fs::read_to_string(tokens.path()).unwrap(), before);
    };
    refused(&["create", "--name", "sensors", "--scope", "query"], 1, "already: choose another name");
    refused(&["create", "--name", "ann", "--scope", "query"], 1, "already");
    refused(&["create", "--name", "x", "--scope", "root"], 2, "ingest, query, live, publish, admin");
    refused(&["create", "--name", "x"], 2, "--scope");
    refused(&["create", "--scope", "query"], 2, "--name");
    refused(&["create", "--name", "x", "--scope", "query", "--expires", "soon"], 2, "write 30d");
    refused(&["create", "--name", "x", "--scope", "query", "--rate", "0"], 2, "--rate");
    refused(&["create", "--user", "bob", "--scope", "query"], 2, "at least 8");
    for name in ["", "two words", "a*", "../x", "a\nb", "\u{1b}[2J", "<img src=x>", &"x".repeat(65)] {
        refused(&["create", "--name", name, "--scope", "query"], 2, "--name: a name is");
    }
    refused(&["revoke", "bob"], 1, "there is no token or user \"bob\"");
    tokens.revoke(&id);
    tokens.revoke("ann");
    assert_eq!(list(&[]).lines().count(), 2);
    let (code, _, said) = tokens.run(&["revoke", "--auth-file", "/nowhere/auth.toml", "x"]);
    assert!(code == Some(1) && said.contains("cannot read /nowhere/auth.toml"), "{said}");
    let (code, printed, said) =
        tokens.run(&["create", "--auth-file", "/nowhere/auth.toml", "--name", "x", "--scope", "query"]);
    assert!(code == Some(1) && printed.is_empty() && said.contains("cannot write /nowhere/auth.toml"), "{said}");
}

#[test]
fn commands_say_who_they_are() {
    let tokens = Tokens::new();
    let token = tokens.create("me", &["--scope", "ingest,query,publish,admin"]);
    let service = start(&tokens, &[]);
    let file = tokens.dir.path().join("me.token");
    fs::write(&file, format!("{token}\n")).unwrap();
    let csv = tokens.dir.path().join("a.csv");
    fs::write(&csv, "source,value\nkitchen,21.5\n").unwrap();
    let commands: [&[&str]; 6] = [
        &["import", csv.to_str().unwrap()],
        &["sources"],
        &["query", "kitchen"],
        &["state", "kitchen"],
        &["publish", "news", "hello"],
        &["drain"],
    ];
    for words in commands {
        let run = |flags: &[&str], variable: &str| {
            let mut command = service.command(&[words, flags].concat());
            let Output { status, stdout, stderr } = command.env("MEANWHILE_TOKEN", variable).output().unwrap();
            let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            assert!(!said.contains("mw_"), "{words:?}: {said}");
            (status.success(), said)
        };
        let (done, said) = run(&[], "");
        assert!(!done && said.contains("It is not known who asks (401)"), "{words:?}: {said}");
        assert!(!run(&[], "mw_wrong").0, "{words:?}");
        for (flags, variable) in
            [(&[][..], &*token), (&["--token-file", file.to_str().unwrap()], ""), (&["--token", &token], "")]
        {
            let (done, said) = run(flags, variable);
            assert!(done, "{words:?} {flags:?}: {said}");
        }
    }
    let mut help = command(&["query", "--help"]);
    let help = help.env("MEANWHILE_TOKEN", &token).output().unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains(&token));
}

#[test]
fn no_secret_is_ever_told() {
    let tokens = Tokens::new();
    let token = tokens.create("board", &["--scope", "query,live,admin"]);
    tokens.create_user("ann", "correct horse", &["--scope", "query"]);
    let service = start(&tokens, &["--log", "trace"]);
    let hush = "hush-hush-hush";
    let mut told = String::new();
    let mut note = |answer: Answer| writeln!(told, "{answer:?}").unwrap();
    for secret in [&*token, hush] {
        for header in [bearer(secret), format!("Token {secret}"), secret.to_owned(), format!("Basic {secret}")] {
            for path in ["/v1/sources", "/v1/nodes", "/v1/nowhere", "/v1/readings", "/metrics", "/readyz"] {
                note(service.client().ask("GET", path, &[("Authorization", &header)], ""));
            }
        }
        note(service.client().get(&format!("/v1/stream?channel=&token={secret}")));
        note(service.client().get(&format!("/v1/sources?token={secret}")));
        note(service.client().get(&format!("/socket.io/?EIO=3&transport=polling&token={secret}")));
    }
    note(ask(&service, &token, "GET", "/metrics", "").ok());
    note(ask(&service, &token, "GET", "/v1/nodes", "").ok());
    told.push_str(&service.log());
    told.push_str(&service.run(&["config", "--auth-file", &tokens.flag()]));
    let file = fs::read_to_string(tokens.path()).unwrap();
    let hashes = file.lines().filter_map(|line| line.strip_prefix("hash = ").or(line.strip_prefix("password = ")));
    let hashes: Vec<&str> = hashes.map(|hash| hash.trim_matches('"')).collect();
    assert_eq!(hashes.len(), 3);
    for secret in [&*token, "correct horse", hush].into_iter().chain(hashes) {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    assert!(!file.contains(&token) && !file.contains("correct horse"));
}
