//! Directories that go with `retain`, what is left of the sources, and removals that do not come to
//! their end.

use super::*;

/// The catalogue of an open sink in minutes since [`DAY`]; it must be that which all rows make anew.
fn spans(dir: &TempDir, sink: &CsvSink) -> Vec<(String, i64, i64)> {
    let told = lock(&sink.shared.writer).catalogue.to_bytes();
    let mut anew = Catalogue::default();
    for date_dir in partition::list_all(dir.path()).unwrap() {
        let files = index::Files::open(&date_dir.path(dir.path()), date_dir.period).unwrap();
        index::Index::scan(&files, |source, start| anew.add(source, start)).unwrap();
    }
    assert_eq!(String::from_utf8(told).unwrap(), String::from_utf8(anew.to_bytes()).unwrap());
    let minute = |t: Millis| (t - DAY) / 60_000;
    let spans = block_on(sink.sources("", None, 99)).unwrap();
    spans.iter().map(|span| (span.source.to_string(), minute(span.first), minute(span.last))).collect()
}

fn retain(sink: &CsvSink, minute: i64) -> Result<usize, SinkError> {
    block_on(sink.retain(MINUTE, DAY + minute * 60_000))
}

const DATE: i64 = 1_440;

/// Minutes of three dates, and the day of the first.
fn before_removal() -> (TempDir, CsvSink) {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let mut day = life("daily", 0, 1, 1, &[1.0]);
    day.bucket = Bucket { period: Period::Day, start: DAY, end: DAY + 86_400_000 };
    let minutes = [
        ("always", 5),
        ("always", DATE + 5),
        ("always", 2 * DATE + 5),
        ("daily", 7),
        ("ended", 5),
        ("ended", 6),
        ("paused", 5),
        ("paused", 2 * DATE),
        ("later", DATE),
    ];
    let lives: Vec<LifeRow> = minutes.iter().map(|&(id, minute)| life(id, minute, 1, 1, &[1.0])).chain([day]).collect();
    check_write(&sink, &lives, (10, 0, 0));
    check_write(&sink, &[life("ended", 5, 1, 2, &[1.0, 2.0])], (1, 0, 0));
    (dir, sink)
}

fn owned(spans: &[(&str, i64, i64)]) -> Vec<(String, i64, i64)> {
    spans.iter().map(|&(id, first, last)| (id.to_owned(), first, last)).collect()
}

const AFTER_FIRST: [(&str, i64, i64); 4] = [
    ("always", DATE + 5, 2 * DATE + 5),
    // Its minute is gone, its day is not.
    ("daily", 0, 0),
    ("later", DATE, DATE),
    ("paused", 2 * DATE, 2 * DATE),
];

#[test]
fn whole_directories_go_and_the_sources_stay_true() {
    for compacted in [false, true] {
        let (dir, sink) = before_removal();
        if compacted {
            block_on(sink.compact(&day())).unwrap();
        }
        assert_eq!(retain(&sink, DATE - 1).unwrap(), 0, "the last minute of the date ends later");
        assert_eq!(block_on(sink.retain(Period::Day, DAY + 86_399_999)).unwrap(), 0);
        assert_eq!(retain(&sink, DATE).unwrap(), 5, "rows, not lines");
        assert!(!dir.path().join(DATE_DIR).exists());
        assert_eq!(spans(&dir, &sink), owned(&AFTER_FIRST));
        check_rows(&sink, &["ended", "always"], &["always@1445 1/1/1 1 1", "always@2885 1/1/1 1 1"]);
        assert_eq!(retain(&sink, DATE).unwrap(), 0);
        drop(sink);
        let sink = open(&dir);
        assert_eq!(spans(&dir, &sink), owned(&AFTER_FIRST));
        // A late reading makes it anew, and it goes again.
        check_write(&sink, &[life("ended", 5, 3, 3, &[4.0])], (1, 0, 0));
        check_rows(&sink, &["ended"], &["ended@5 3/1/3 1 4"]);
        assert_eq!(retain(&sink, 3 * DATE).unwrap(), 1);
        assert_eq!(retain(&sink, 3 * DATE).unwrap(), 2, "a date at a time");
        assert_eq!(spans(&dir, &sink), owned(&[("always", 2885, 2885), ("daily", 0, 0), ("paused", 2880, 2880)]));
        assert_eq!((retain(&sink, 3 * DATE).unwrap(), retain(&sink, 3 * DATE).unwrap()), (2, 0));
        assert_eq!(block_on(sink.retain(Period::Day, DAY + 86_400_000)).unwrap(), 1);
        assert_eq!(spans(&dir, &sink), []);
        assert_eq!(block_on(sink.compactable(Millis::MAX)).unwrap(), []);
        drop(sink);
        assert_eq!(spans(&dir, &open(&dir)), []);
    }
}

#[test]
fn a_date_that_was_moved_to_another_disk_goes_with_its_link() {
    let (dir, sink) = before_removal();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("tail.csv"), text(&file(&dir, "tail.csv"))).unwrap();
    fs::remove_dir_all(dir.path().join(DATE_DIR)).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(DATE_DIR)).unwrap();
    assert_eq!(retain(&sink, DATE).unwrap(), 5);
    assert_eq!(partition::names(elsewhere.path()).unwrap(), [""; 0]);
    assert_eq!(partition::list_set_aside(dir.path()).unwrap(), [""; 0].map(PathBuf::from));
    assert_eq!(spans(&dir, &sink), owned(&AFTER_FIRST));
}

#[test]
fn a_removal_that_was_interrupted_is_ended_by_the_next_start() {
    for step in ["set aside", "half of its files gone", "all files gone"] {
        let (dir, sink) = before_removal();
        block_on(sink.compact(&day())).unwrap();
        check_write(&sink, &[life("ended", 9, 1, 1, &[1.0])], (1, 0, 0));
        for partition in block_on(sink.compactable(Millis::MAX)).unwrap().iter().filter(|p| **p != day()) {
            block_on(sink.compact(partition)).unwrap();
        }
        drop(sink);
        let aside = dir.path().join(DATE_DIR.to_owned() + ".tmp");
        fs::rename(dir.path().join(DATE_DIR), &aside).unwrap();
        let files =
            [("half of its files gone", "rows.csv"), ("all files gone", "rows.csv"), ("all files gone", "tail.csv")];
        for (_, file) in files.iter().filter(|(at, _)| *at == step) {
            fs::remove_file(aside.join(file)).unwrap();
        }
        assert!(text(&dir.path().join(SOURCES_FILE)).contains("ended,"), "it tells of what is gone");
        let sink = open(&dir);
        assert_eq!(spans(&dir, &sink), owned(&AFTER_FIRST), "{step}");
        assert!(!text(&dir.path().join(SOURCES_FILE)).contains("ended,"), "{step}");
        assert!(!aside.exists(), "{step}");
    }
}

#[test]
fn what_is_written_during_a_removal_stays_known() {
    let (dir, sink) = before_removal();
    let first = partition::list(dir.path(), MINUTE).unwrap()[0];
    let writer = &sink.shared.writer;
    lock(writer).added = Some(Catalogue::default());
    let doomed = retain::look(writer, first).unwrap();
    check_write(&sink, &[life("ended", DATE + 9, 1, 1, &[1.0]), life("paused", DATE + 8, 1, 1, &[1.0])], (2, 0, 0));
    let added = lock(writer).added.take().unwrap();
    retain::take_away(&mut lock(writer), first, &doomed, &added).unwrap();
    let paused = ("paused", DATE + 8, 2 * DATE);
    let expected = [AFTER_FIRST[0], AFTER_FIRST[1], ("ended", DATE + 9, DATE + 9), AFTER_FIRST[2], paused];
    assert_eq!(spans(&dir, &sink), owned(&expected));
    // What changed itself meanwhile is not removed unseen.
    let second = partition::list(dir.path(), MINUTE).unwrap()[0];
    let doomed = retain::look(writer, second).unwrap();
    check_write(&sink, &[life("new", DATE + 9, 1, 1, &[1.0])], (1, 0, 0));
    match retain::take_away(&mut lock(writer), second, &doomed, &added) {
        Err(SinkError::Unavailable(message)) => assert!(message.contains("was changed"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(retain(&sink, 2 * DATE).is_ok_and(|rows| rows > 0), "but by the next call");
}

#[test]
fn a_broken_file_is_not_thrown_away_and_keeps_no_other() {
    let (dir, sink) = before_removal();
    fs::write(file(&dir, "tail.csv"), "edited;by;hand\n").unwrap();
    assert_eq!(retain(&sink, 0).unwrap(), 0);
    assert_eq!(retain(&sink, 2 * DATE).unwrap(), 2, "the date after it goes");
    // It may hold other rows of the sources of the third, which stay known.
    assert_eq!(retain(&sink, 3 * DATE).unwrap(), 2);
    for _ in 0..2 {
        match retain(&sink, 3 * DATE) {
            Err(SinkError::Refused(message)) => {
                assert!(message.contains("date=2026-11-20/tail.csv is damaged"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    let known = |id: &str| lock(&sink.shared.writer).catalogue.get(id);
    let (minute, end) = (|m: i64| DAY + m * 60_000, DAY + DATE * 60_000 - 1);
    assert_eq!(known("always"), Some((minute(5), end)));
    assert_eq!(known("paused"), Some((minute(5), end)));
    assert_eq!(known("later"), None, "it began after that date");
    assert_eq!(known("ended"), Some((minute(5), minute(6))));
    assert!(file(&dir, "tail.csv").exists());
}

#[test]
fn a_full_disk_does_not_keep_what_is_to_go() {
    let (dir, sink) = before_removal();
    set_disk(&sink, Disk { sync: broken_sync, ..Disk::REAL });
    assert_eq!(retain(&sink, DATE).unwrap(), 5);
    assert!(matches!(retain(&sink, DATE), Err(SinkError::Unavailable(_))), "it cannot be ended");
    set_disk(&sink, Disk::REAL);
    let aside = dir.path().join(DATE_DIR.to_owned() + ".tmp");
    assert_eq!(partition::names(&aside).unwrap(), [""; 0], "its files are gone");
    assert_eq!(spans(&dir, &sink), owned(&AFTER_FIRST));
    assert_eq!(retain(&sink, 2 * DATE).unwrap(), 2);
    assert!(!aside.exists(), "the next removal ends it");
}

fn kept_rows(path: &Path) -> io::Result<()> {
    if path.ends_with("tail.csv") {
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    } else {
        fs::remove_file(path)
    }
}

#[test]
fn a_file_that_cannot_be_removed_keeps_no_other_date() {
    let (dir, sink) = before_removal();
    let aside = dir.path().join(DATE_DIR.to_owned() + ".tmp");
    for partition in block_on(sink.compactable(Millis::MAX)).unwrap().iter().filter(|p| **p != day()) {
        block_on(sink.compact(partition)).unwrap();
    }
    set_disk(&sink, Disk { remove: kept_rows, ..Disk::REAL });
    assert_eq!(retain(&sink, 2 * DATE).unwrap(), 5);
    // The date is made again before its removal has ended.
    check_write(&sink, &[life("late", 5, 3, 3, &[4.0])], (1, 0, 0));
    assert_eq!(retain(&sink, 2 * DATE).unwrap(), 2, "the date after it goes");
    unavailable_removal(retain(&sink, 2 * DATE), "date=2026-11-20.tmp/tail.csv");
    assert!(aside.join("tail.csv").exists() && !dir.path().join("period=1m/date=2026-11-21.tmp").exists());
    check_rows(&sink, &["late", "ended"], &["late@5 3/1/3 1 4"]);
    assert_eq!(block_on(sink.compactable(Millis::MAX)).unwrap(), [day()], "what could not go is still known");
    // A start does not wait for it.
    drop(sink);
    let sink = open(&dir);
    assert!(!aside.exists());
    assert_eq!(retain(&sink, 2 * DATE).unwrap(), 1);
    let left = [("always", 2 * DATE + 5, 2 * DATE + 5), ("daily", 0, 0), ("paused", 2 * DATE, 2 * DATE)];
    assert_eq!(spans(&dir, &sink), owned(&left));
}

#[test]
fn a_date_that_was_made_again_goes_once_the_rest_of_it_is_gone() {
    let (dir, sink) = before_removal();
    set_disk(&sink, Disk { remove: kept_rows, ..Disk::REAL });
    assert_eq!(retain(&sink, DATE).unwrap(), 5);
    check_write(&sink, &[life("late", 5, 3, 3, &[4.0])], (1, 0, 0));
    set_disk(&sink, Disk::REAL);
    assert_eq!(retain(&sink, DATE).unwrap(), 1);
    assert_eq!(spans(&dir, &sink), owned(&AFTER_FIRST));
    assert_eq!(partition::list_set_aside(dir.path()).unwrap(), [""; 0].map(PathBuf::from));
}

#[track_caller]
fn unavailable_removal(result: Result<usize, SinkError>, expected: &str) {
    match result {
        Err(SinkError::Unavailable(message)) => assert!(message.contains(expected), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_start_goes_on_past_a_damaged_date_whose_sources_are_told() {
    let (dir, sink) = before_removal();
    for partition in block_on(sink.compactable(Millis::MAX)).unwrap() {
        block_on(sink.compact(&partition)).unwrap();
    }
    drop(sink);
    let second = dir.path().join("period=1m/date=2026-11-21/rows.csv");
    let aside = dir.path().join(DATE_DIR.to_owned() + ".tmp");
    fs::rename(dir.path().join(DATE_DIR), &aside).unwrap();
    fs::write(&second, "edited;by;hand\n").unwrap();
    let sink = open(&dir);
    assert!(!aside.exists());
    let start = DAY + DATE * 60_000;
    let expected = [
        ("always", start, DAY + (2 * DATE + 5) * 60_000),
        ("daily", DAY, DAY),
        ("later", start, start),
        // It may have had a row on the damaged date.
        ("paused", start, DAY + 2 * DATE * 60_000),
    ];
    let known = |sink: &CsvSink| block_on(sink.sources("", None, 99)).unwrap();
    let told: Vec<_> = known(&sink).iter().map(|span| (span.source.to_string(), span.first, span.last)).collect();
    assert_eq!(told, expected.map(|(id, first, last)| (id.to_owned(), first, last)));
    drop(sink);
    // Without the file nobody would know whose rows are there.
    fs::remove_file(dir.path().join(SOURCES_FILE)).unwrap();
    match CsvSink::open(dir.path(), Zone::utc()) {
        Err(SinkError::Refused(message)) => assert!(message.contains("rows.csv is damaged at byte 0"), "{message}"),
        other => panic!("{other:?}"),
    }
}
