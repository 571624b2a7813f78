//! Pictures of states, as text.

use super::super::state::tests::row;
use super::super::state::{Row, Update};
use super::*;
use crate::stats::calendar::Period;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

const NOW: Millis = 1_795_151_165_000;

fn look(unicode: bool) -> Look {
    Look { zone: "Europe/Berlin".parse().unwrap(), unicode, url: Secret::new("http://me:hush@host:8080") }
}

fn picture(state: &State, width: u16, height: u16, unicode: bool) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, &look(unicode), NOW)).unwrap();
    terminal.backend().clone()
}

fn text(backend: &TestBackend) -> String {
    let buffer = backend.buffer();
    let line = |y: u16| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

#[track_caller]
fn check(state: &State, width: u16, height: u16, expected: &str) {
    assert_eq!(text(&picture(state, width, height, true)), expected);
}

fn state(sources: &[&str]) -> State {
    let sources: Vec<String> = sources.iter().map(|&id| id.to_owned()).collect();
    State::new(&sources, Period::Seconds(60))
}

fn busy() -> State {
    let mut state = state(&["kitchen", "cellar"]);
    let mut tell = |update| state.apply(update, NOW - 5_000);
    tell(Update::Connected { instance: "n1".into() });
    let rows = [20.0, 20.5, 21.0, 22.0, 21.5, 21.0].into_iter().zip(0..);
    tell(Update::History { source: "kitchen".into(), rows: rows.map(|(mean, m)| row(m, mean, 3, 1)).collect() });
    tell(Update::Closed { source: "kitchen".into(), row: row(4, 21.25, 4, 2) });
    let hour = Row { period: "1h".into(), ..row(0, 21.0 + 1.0 / 3.0, 1_207, 0) };
    tell(Update::Present { source: "kitchen".into(), rows: vec![row(6, 21.0, 1, 0), hour] });
    tell(Update::Present { source: "cellar".into(), rows: vec![] });
    state
}

#[test]
fn two_sources() {
    check(
        &busy(),
        80,
        24,
        "\
connected to n1 at http://***@host:8080
source     period  start             count      mean  stddev       min       max
> kitchen  1m      2026-11-20 06:06      1        21                20      21.5
           1h      2026-11-20 06:00  1,207  21.33333    0.25  20.33333  21.83333
  cellar   no readings yet

kitchen: closed buckets of 1m, newest first
start (Europe/Berlin)  count   mean  stddev    min    max
2026-11-20 06:05           3     21    0.25     20   21.5
2026-11-20 06:04           4  21.25    0.25  20.25  21.75  corrected
2026-11-20 06:03           3     22    0.25     21   22.5
2026-11-20 06:02           3     21    0.25     20   21.5
2026-11-20 06:01           3   20.5    0.25   19.5     21

kitchen: mean and min..max of each 1m
   │                                      ░░░░░░░░░░░░
22 ┤                         ░░░░░░░░░░░░░╭───────────╮░░░░░░░░░░░░░░░░░░░░░░░░░
   │░░░░░░░░░░░░╭─────────────────────────╯░░░░░░░░░░░╰─────────────────────────
20 ┤────────────╯░░░░░░░░░░░░░░░░░░░░░░░░░            ░░░░░░░░░░░░░░░░░░░░░░░░░░
   │░░░░░░░░░░░░
   └┬────────────────────────┬────────────────────────┬─────────────────────────
    06:00                  06:02                    06:04
              2026-11-20 06:00 to 2026-11-20 06:06 (Europe/Berlin)
q quit  Tab next source
",
    );
}

#[test]
fn nothing_is_known_yet() {
    check(
        &state(&["kitchen"]),
        60,
        9,
        "\
connecting to http://***@host:8080
source   period  start  count  mean  stddev  min  max
kitchen  no readings yet

kitchen: closed buckets of 1m, newest first
none yet


q quit
",
    );
}

#[test]
fn a_lost_connection_is_seen() {
    let mut state = busy();
    state.apply(Update::Lost { reason: "nobody there".into() }, NOW - 5_000);
    let backend = picture(&state, 80, 24, true);
    assert!(text(&backend).starts_with("reconnecting since 06:06:00 (5 s): nobody there\n"), "{}", text(&backend));
    let dim = |y: u16| backend.buffer()[(2, y)].modifier.contains(Modifier::DIM);
    assert!(dim(2) && dim(3) && !dim(7), "the present buckets, not the closed ones");
}

#[test]
fn a_narrow_terminal() {
    check(
        &busy(),
        40,
        12,
        "\
connected to n1 at http://***@host:8080
source     period  count      mean
> kitchen  1m          1        21
           1h      1,207  21.33333
  cellar   no readings yet

kitchen: closed buckets of 1m, newest fi
start (Europe/Berlin)  count   mean
2026-11-20 06:05           3     21
2026-11-20 06:04           4  21.25

q quit  Tab next source
",
    );
}

#[test]
fn terminals_of_any_size() {
    let mut state = busy();
    for chosen in 0..2 {
        state.chosen = chosen;
        for (width, height) in (0..50).flat_map(|width| (0..40).map(move |height| (width * 3, height))) {
            picture(&state, width, height, true);
        }
    }
}

#[test]
fn the_chosen_source_is_in_view() {
    let ids: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
    let mut state = State::new(&ids, Period::Seconds(60));
    for chosen in 0..50 {
        state.chosen = chosen;
        let text = text(&picture(&state, 60, 20, true));
        assert!(text.contains(&format!("> s{chosen}  ")), "{text}");
        assert!(text.contains("source  period"), "{text}");
    }
}

#[test]
fn ascii_where_there_is_no_more() {
    let text = text(&picture(&busy(), 80, 24, false));
    assert!(text.is_ascii() && text.contains(":::"), "{text}");
}

#[test]
fn numbers_are_short() {
    let check = |number: f64, expected: &str| assert_eq!(rounded(number), expected);
    check(0.0, "0");
    check(-0.0, "0");
    check(21.5, "21.5");
    check(21.0 + 1.0 / 3.0, "21.33333");
    check(-0.1 - 0.2, "-0.3");
    check(9.999_999_9, "10");
    check(0.000_123_456_789, "0.0001234568");
    check(0.000_012_5, "1.25e-5");
    check(123_456_789.0, "123456789");
    check(1e9, "1e9");
    check(1.75e9 + 1.0, "1.75e9");
    check(-2.5e-310, "-2.5e-310");
    check(f64::MAX, "1.797693e308");
}
