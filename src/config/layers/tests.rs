//! Which layer wins, where a value is said to come from, and what is refused. Settings of the
//! environment are put beside the flags by hand, so that no test changes the process.

use super::*;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// Flags and variables as clap would hand them over; `file` becomes `settings.toml`.
struct Written<'s> {
    file: &'s str,
    environment: &'s [(&'s str, &'s str)],
    flags: &'s [&'s str],
}

const NOTHING: Written = Written { file: "", environment: &[], flags: &[] };

impl Written<'_> {
    fn given(&self, dir: &TempDir) -> Given {
        let path = dir.path().join("settings.toml");
        fs::write(&path, self.file).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let command = Given::augment_args(Command::new("serve").no_binary_name(true));
        let matches = command.try_get_matches_from(self.flags).unwrap();
        let mut given = Given::from_arg_matches(&matches).unwrap();
        for &(name, value) in self.environment {
            let key = name.trim_start_matches("MEANWHILE_").to_lowercase();
            if given.written.iter().all(|setting| setting.key != key) {
                let flags = flags();
                let mut setting = Setting::of(flags.get_arguments().find(|flag| *flag.get_id() == key).unwrap());
                setting.set(Origin::Environment(name.to_owned()), value.into());
                given.written.push(setting);
            }
        }
        Given { file: Some(path), ..given }
    }

    fn load(&self) -> Result<Effective, String> {
        let dir = tempfile::tempdir().unwrap();
        let loaded = self.given(&dir).load();
        loaded.map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
    }
}

fn setting(effective: &Effective, key: &str) -> (Option<String>, String) {
    let setting = effective.settings.iter().find(|setting| setting.key == key).unwrap();
    let origin = setting.origin.to_string();
    (setting.shown(), origin.rsplit('/').next().unwrap().to_owned())
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let check = |written: &Written, expected: &str, origin: &str| {
        let effective = written.load().unwrap();
        assert_eq!(setting(&effective, "grace"), (Some(expected.to_owned()), origin.to_owned()));
        assert_eq!(effective.args.grace, expected, "what is shown is what is used");
    };
    let file = "log = \"info\"\ngrace = \"2s\"";
    let environment = &[("MEANWHILE_GRACE", "3s")];
    let flags = &["--grace", "4s"];
    check(&NOTHING, "5s", "default");
    check(&Written { file, ..NOTHING }, "2s", "settings.toml:2");
    check(&Written { file, environment, ..NOTHING }, "3s", "MEANWHILE_GRACE");
    check(&Written { file, environment, flags }, "4s", "--grace");
    check(&Written { file, flags, ..NOTHING }, "4s", "--grace");
    check(&Written { environment, flags, ..NOTHING }, "4s", "--grace");
}

#[test]
fn every_flag_is_a_variable_by_the_same_name() {
    for flag in flags().get_arguments() {
        let name = format!("MEANWHILE_{}", flag.get_id().as_str().to_uppercase());
        assert_eq!(flag.get_env(), Some(OsStr::new(&name)));
        assert_eq!(flag.get_long().map(|long| long.replace('-', "_")).as_deref(), Some(flag.get_id().as_str()));
    }
}

#[test]
fn wrong_keys_and_values_are_named_with_their_line() {
    let check = |file: &str, expected: &str| {
        let wrong = Written { file, ..NOTHING };
        let error = wrong.load().and_then(|effective| {
            let valid = effective.config().map_err(|error| error.to_string());
            Ok(valid?.listen.to_string())
        });
        let error = error.err().unwrap();
        let error = error.rsplit('/').next().unwrap();
        assert!(error.contains(expected), "{file}: {error}");
    };
    check("\ngrave = \"1s\"", "settings.toml:2: there is no key grave: did you mean grace?");
    check("idempotency-tll = \"1s\"", "there is no key idempotency_tll: did you mean idempotency_ttl?");
    check("help = true", "there is no key help");
    check("config = \"other.toml\"", "there is no key config");
    check("banana = 1", "there is no key banana; there are listen, store, ");
    check("\n\ngrace = \"5\"", "settings.toml:3: grace: \"5\" is not a duration");
    check("periods = [\"1m\", \"7m\"]", "settings.toml:1: periods: the period 7m does not divide a day");
}

#[test]
fn errors_name_the_layer() {
    let check = |written: &Written, expected: &str| {
        let error = written.load().unwrap().config().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    check(&Written { flags: &["--grace=x"], ..NOTHING }, "--grace: ");
    check(&Written { environment: &[("MEANWHILE_GRACE", "x")], ..NOTHING }, "MEANWHILE_GRACE: ");
}

#[test]
fn a_store_may_come_from_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "redis://:hush@h:1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let path = path.to_str().unwrap();
    let line = format!("store_file = \"{path}\"");
    let check = |written: &Written, store: &str, store_file: Option<&str>| {
        let effective = written.load().unwrap();
        assert_eq!(setting(&effective, "store").0.as_deref(), Some(store));
        assert_eq!(setting(&effective, "store_file").0.as_deref(), store_file);
        assert_eq!(effective.config().unwrap().store.to_string(), store);
        assert_eq!(effective.warnings, Vec::<String>::new());
    };
    let hidden = "redis://***@h:1";
    check(&Written { file: &line, ..NOTHING }, hidden, Some(path));
    check(&Written { flags: &["--store-file", path], ..NOTHING }, hidden, Some(path));
    let file = "store = \"embedded:x\"";
    check(&Written { file, environment: &[("MEANWHILE_STORE_FILE", path)], ..NOTHING }, hidden, Some(path));
    check(&Written { file: &line, flags: &["--store", "embedded:x"], ..NOTHING }, "embedded:x", None);

    let both = format!("{line}\nstore = \"embedded:x\"");
    let error = Written { file: &both, ..NOTHING }.load().err().unwrap();
    assert!(error.ends_with("settings.toml:2: store gives the same: keep one of them"), "{error}");
    let error = Written { flags: &["--store-file", "/nowhere"], ..NOTHING }.load().err().unwrap();
    assert!(error.starts_with("--store-file: cannot read /nowhere"), "{error}");
}

#[test]
fn secrets_appear_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let contents = ["hush", "hush:hush", "redis+hush://hush", "redis://:hush@h", "postgres://me:hush@h/db"];
    for (content, key) in contents.iter().flat_map(|content| ["store", "sink"].map(|key| (content, key))) {
        fs::write(&path, content).unwrap();
        let flag = format!("--{key}-file");
        let effective = Written { flags: &[&flag, path.to_str().unwrap()], ..NOTHING }.load().unwrap();
        let valid = effective.config().map_err(|error| error.to_string());
        let shown = format!("{valid:?} {:?} {:?}", setting(&effective, key), effective.warnings);
        assert!(!shown.contains("hush"), "{shown}");
    }
    let flags = &["--store=redis://:hush@h"];
    let shown = format!("{:?}", Written { flags, ..NOTHING }.given(&dir));
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn a_file_with_a_password_that_others_can_read_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let check = |store: &str, mode: u32, warned: bool| {
        let file = &format!("store = \"{store}\"");
        let given = Written { file, ..NOTHING }.given(&dir);
        fs::set_permissions(given.file().unwrap(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(given.load().unwrap().warnings.len(), usize::from(warned), "{store} {mode:o}");
    };
    check("redis://:hush@h", 0o644, true);
    check("redis://:hush@h", 0o600, false);
    check("redis://h", 0o644, false);
}

#[test]
fn changes_are_told_by_value() {
    let before = Written { file: "grace = \"5s\"\nlog = \"info\"", ..NOTHING }.load().unwrap();
    let after = Written { flags: &["--log=debug", "--late=reopen"], ..NOTHING }.load().unwrap();
    let keys = |a: &Effective, b: &Effective| a.changed(b).map(|setting| setting.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&after, &before), ["log"]);
    let mut before = before;
    before.take(&after, "log");
    assert_eq!(keys(&after, &before), Vec::<String>::new());
}
