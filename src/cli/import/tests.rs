//! Whole imports against a service with prepared answers: what is sent, what is said.

use super::*;
use crate::cli::client::tests::serve;
use clap::Parser;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    import: ImportArgs,
}

fn args(words: &[&str]) -> Result<ImportArgs, String> {
    let words = [&["import"], words].concat();
    Command::try_parse_from(words).map(|command| command.import).map_err(|error| error.to_string())
}

fn file(name: &str, content: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

const TAKEN: (&str, &str) = ("200 OK", r#"{"accepted": 1000, "duplicate": false, "durability": "disk"}"#);

/// Imports a file with these flags: totals, or the error with the file called FILE; and the requests.
fn attempt(
    (name, content): (&str, &str),
    flags: &[&str],
    answers: Vec<(&'static str, &'static str)>,
) -> (Result<Totals, String>, Vec<String>) {
    let (_dir, path) = file(name, content);
    let args = args(&[&[path.as_str(), "--retry-for=0s"], flags].concat()).unwrap();
    let format = check(&args).unwrap_or_else(|error| panic!("{error}"))[0].1;
    let (client, served) = serve(answers);
    let mut totals = Totals::default();
    let result = import(&args, &client, Path::new(&path), format, &mut totals);
    let result = result.map(|()| totals).map_err(|error| format!("{error:#}").replace(&path, "FILE"));
    (result, served.requests())
}

fn lines(n: usize) -> String {
    (0..n).fold(String::new(), |text, i| text + &format!("{{\"source\": \"a\", \"value\": {i}}}\n"))
}

fn keys(requests: &[String]) -> Vec<&str> {
    requests
        .iter()
        .map(|request| request.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap())
        .collect()
}

#[test]
fn from_line_begins_with_the_batch_that_holds_it_under_the_same_key() {
    let text = lines(2_500);
    let (totals, all) = attempt(("a.ndjson", &text), &[], vec![TAKEN; 3]);
    assert_eq!(totals.unwrap().lines, 2_500);
    let check = |from_line: &str, skipped: usize, expected_lines: u64| {
        let (totals, requests) = attempt(("b.jsonl", &text), &["--from-line", from_line], vec![TAKEN; 3 - skipped]);
        assert_eq!((totals.unwrap().lines, keys(&requests)), (expected_lines, keys(&all)[skipped..].to_vec()));
    };
    check("1", 0, 2_500);
    check("1000", 0, 2_500);
    check("1001", 1, 1_500);
    check("2500", 2, 500);
    check("2501", 3, 0);
}

#[test]
fn every_option_that_changes_what_is_counted_changes_the_key() {
    let text = "t,u,s,v,w\n2026-07-01T00:00:00Z,2026-07-01T00:00:00Z,a,1,1\n";
    let key = |flags: &[&str]| keys(&attempt(("a.csv", text), flags, vec![TAKEN]).1)[0].to_owned();
    let base = key(&["--time=t", "--source={s}", "--values=v"]);
    assert_eq!(base, key(&["--time=t", "--source={s}", "--values=v"]));
    // Each of these sends the same body, and the last one another query.
    let others = [
        key(&["--time=u", "--source={s}", "--values=v"]),
        key(&["--time=t", "--source={s}", "--values=w"]),
        key(&["--time=t", "--source=a", "--values=v"]),
        key(&["--time=t", "--source={s}", "--values=v", "--timezone=UTC"]),
        key(&["--time=t", "--source={s}", "--values=v", "--precision=s"]),
    ];
    assert!(others.iter().all(|other| *other != base));
}

#[test]
fn the_unit_of_numbers_is_said_to_the_service() {
    let check = |flags: &[&str], expected: &str| {
        let (_, requests) = attempt(("a.csv", "source,value,timestamp\na,1,1795150800\n"), flags, vec![TAKEN]);
        assert_eq!(requests[0].lines().next(), Some(expected), "{flags:?}");
    };
    check(&[], "POST /prefix/v1/readings HTTP/1.1");
    check(&["--precision=s"], "POST /prefix/v1/readings?precision=s HTTP/1.1");
}

#[test]
fn bad_lines_are_named_and_nothing_is_sent_of_their_batch() {
    let text = format!("source,value\n{}a,x\n", "a,1\n".repeat(1_000));
    let (result, requests) = attempt(("a.csv", &text), &[], vec![TAKEN]);
    let expected = "FILE has bad lines; of its line 1002 nothing was counted
FILE:1002: value: \"x\" is not a finite number
imported before them: 1,000 lines; correct the bad ones and repeat the same command: what was imported is not counted again";
    assert_eq!((result.err().unwrap().as_str(), requests.len()), (expected, 1));
}

#[test]
fn bad_lines_the_service_finds_are_named_by_line_of_the_file() {
    let problem = r#"{"title": "Invalid readings", "error_count": 3, "errors": [{"line": 2, "field": "source", "reason": "empty"}]}"#;
    let (result, _) = attempt(("a.ndjson", &lines(1_500)), &[], vec![TAKEN, ("400 Bad Request", problem)]);
    let error = result.err().unwrap();
    assert!(error.contains("lines 1001 to 1500 nothing"), "{error}");
    assert!(error.contains("\nFILE:1002: source: empty\nand 2 more\nimported before them: 1,000 lines;"), "{error}");
}

#[test]
fn a_service_that_stays_away_is_named_with_the_way_on() {
    let (result, _) = attempt(("a.ndjson", &lines(1_500)), &[], vec![TAKEN, ("503 Service Unavailable", "{}")]);
    let error = result.err().unwrap();
    assert!(error.contains("repeat the same command, or add --from-line 1001"), "{error}");
}

#[test]
fn what_cannot_be_read_again_is_tried_for_ever() {
    let check = |words: &[&str], seconds: Option<u64>| {
        let args = args(words).unwrap();
        assert_eq!(retry_for(&args, &args.files.files[0]), seconds.map(Duration::from_secs), "{words:?}");
    };
    check(&["a.csv"], Some(60));
    check(&["-", "--format=csv"], None);
    check(&["-", "--format=csv", "--retry-for=5s"], Some(5));
    check(&["a.csv", "--retry-for=1h"], Some(3_600));
}

#[test]
fn duplicates_and_late_readings_are_counted() {
    let twice = ("200 OK", r#"{"accepted": 7, "duplicate": true, "durability": "disk"}"#);
    let late = (
        "200 OK",
        r#"{"accepted": 3, "duplicate": false, "durability": "disk", "rejected": [{"line": 2, "code": "too_late"}]}"#,
    );
    let (totals, _) = attempt(("a.ndjson", &lines(1_500)), &[], vec![twice, late]);
    let totals = totals.unwrap();
    assert_eq!((totals.accepted, totals.duplicates, totals.late), (10, 7, 1));
    assert!(totals.first_late.as_ref().unwrap().ends_with("a.ndjson:1002"));
    let expected = "1,500 lines, 10 readings accepted, 7 of them had been counted already
repeating this import counts nothing twice until 7 days after it was first imported";
    assert_eq!(totals.summary(0), expected);
}

#[test]
fn the_summary_says_until_when_repeating_is_safe() {
    let totals = Totals { lines: 12, accepted: 20, skipped: 4, ..Totals::default() };
    let expected = "12 lines, 20 readings accepted, 4 empty cells skipped
repeating this import counts nothing twice until 2026-11-27T05:00:00Z";
    assert_eq!(totals.summary(1_795_150_800_500), expected);
    let one = Totals { lines: 1, accepted: 1, skipped: 1, ..Totals::default() };
    assert!(one.summary(0).starts_with("1 line, 1 reading accepted, 1 empty cell skipped\n"), "{}", one.summary(0));
}

#[test]
fn wrong_usage_is_found_before_anything_is_sent() {
    let check_usage = |words: &[&str], expected: &str| {
        let error = args(words).and_then(|args| check(&args).map(|_| ()).map_err(|error| error.0)).unwrap_err();
        assert!(error.contains(expected), "{words:?}: {error}");
    };
    check_usage(&[], "<FILE>");
    check_usage(&["-"], "cannot tell what - is: add --format csv or --format ndjson");
    check_usage(&["a.csv", "b.txt"], "cannot tell what b.txt is");
    check_usage(&["a.csv", "b.csv", "--from-line=5"], "--from-line speaks of one file");
    check_usage(&["a.JSONL", "--time=t"], "are for CSV, and a.JSONL is NDJSON");
    check_usage(&["a.csv", "--source={x}"], "--values");
    check_usage(&["a.csv", "--values=x"], "--source");
    check_usage(&["a.csv", "--values=x", "--source={x"], "write {name}, or {{ and }}");
    check_usage(&["a.csv", "--timezone=Mars"], "Europe/Berlin");
    check_usage(&["a.csv", "--retry-for=5"], "250ms");
    check_usage(&["a.csv", "--precision=h"], "write s, ms, us or ns");
    check_usage(&["a.csv", "--periods=1h"], "--dry-run");
    check_usage(&["a.csv", "--dry-run", "--periods=7m"], "7m does not divide a day");
    let args = args(&["-", "x.csv", "--format=ndjson"]).unwrap();
    assert_eq!(check(&args).unwrap_or_default().iter().map(|f| f.1).collect::<Vec<_>>(), [Format::Ndjson; 2]);
}
