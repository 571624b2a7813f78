//! `deploy/Containerfile` against the program and the sources: no image is built, but what it says is held
//! to be true.

use crate::servers::temporary;
use crate::service::{On, Service, command};
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Top-level directories that the program is not built from; the last two are not in the repository.
const NOT_COPIED: [&str; 6] = ["deploy", "docs", "sample-data", "scripts", "meanwhile-data", "target"];

/// The instructions in order, their continuation lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join("deploy/Containerfile")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    text.lines().map(|line| line.split_once(' ').expect("an instruction")).map(|(k, v)| (k.into(), v.into())).collect()
}

fn all(name: &str) -> Vec<String> {
    instructions().into_iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
}

/// The strings of the only instruction of this name in its JSON form.
fn words(name: &str) -> Vec<String> {
    let [value] = &all(name)[..] else { panic!("one {name}") };
    let (_, value) = value.split_at(value.find('[').expect("the form with brackets"));
    serde_json::from_str(value).expect("strings")
}

#[test]
fn what_the_program_is_built_from_is_copied() {
    let copied: Vec<String> = all("COPY").into_iter().filter(|copy| !copy.starts_with("--from")).collect();
    let copied: Vec<&str> = copied.iter().flat_map(|copy| copy.rsplit_once(' ').unwrap().0.split(' ')).collect();
    for path in &copied {
        assert!(Path::new(ROOT).join(path).exists(), "{path} is copied, but is not there");
    }
    for entry in fs::read_dir(ROOT).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        let known = name.starts_with('.') || NOT_COPIED.contains(&&*name) || copied.contains(&&*name);
        assert!(known, "{name}/ is new: copy it in deploy/Containerfile, or name it in NOT_COPIED");
    }
    let manifest = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(all("FROM")[0].contains(&format!("rust:{rust}.")), "the image has the toolchain of rust-version");
}

#[test]
fn what_runs_in_the_image_is_the_program_with_its_settings() {
    assert!(all("COPY").contains(&"--from=build /build/target/release/meanwhile /usr/local/bin/meanwhile".to_owned()));
    assert_eq!((words("ENTRYPOINT"), words("CMD")), (vec!["meanwhile".to_owned()], vec!["serve".to_owned()]));
    assert_ne!(all("USER"), ["root"]);
    assert_eq!(all("STOPSIGNAL"), ["SIGTERM"], "the signal at which the service stops in order");

    let [variables] = &all("ENV")[..] else { panic!("one ENV") };
    let variables: Vec<(&str, &str)> = variables.split_whitespace().map(|v| v.split_once('=').unwrap()).collect();
    let config = command(&["config"]).envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8(config.stdout).unwrap();
    for (name, value) in variables {
        assert!(said.contains(&format!("\"{value}\"")) && said.contains(&format!("# {name}\n")), "{name}: {said}");
        let inside = value.split_once(":/").is_none_or(|(_, path)| format!("/{path}").starts_with(&all("VOLUME")[0]));
        assert!(inside, "{name}={value} is not in the volume");
    }
    assert!(said.contains(&format!("0.0.0.0:{}", all("EXPOSE")[0])), "the port: {said}");
}

#[test]
fn the_health_check_tells_a_service_from_none() {
    let mut service = Service::start(On::Embedded, &[]);
    let check = words("HEALTHCHECK");
    let port = service.url().rsplit_once(':').unwrap().1.to_owned();
    let healthy = || {
        let dir = temporary();
        let words = check.iter().map(|word| word.replace("/8080", &format!("/{port}")));
        let mut words = words.collect::<Vec<_>>().into_iter();
        let mut check = Command::new(words.next().unwrap());
        check.args(words).current_dir(dir.path()).output().unwrap().status.success()
    };
    assert!(healthy());
    service.kill();
    assert!(!healthy());
}
