//! A source goes: from every file, from the catalogue, from what is held in memory.

use super::*;

const ID: &str = "<img src=x>/\"a,b\" =Zürich";
const OTHER: &str = "<img src=x>/\"a,b\" =Zürich 2";

fn forget(sink: &CsvSink, source: &str) -> usize {
    block_on(sink.forget(source)).unwrap()
}

fn known(sink: &CsvSink) -> Vec<String> {
    block_on(sink.sources("", None, 100)).unwrap().iter().map(|span| span.source.to_string()).collect()
}

/// All that stands in the files, `*.torn` aside.
fn everything(dir: &TempDir) -> String {
    let mut all = text(&dir.path().join(SOURCES_FILE));
    for date in partition::list_all(dir.path()).unwrap() {
        let path = date.path(dir.path());
        for name in partition::names(&path).unwrap() {
            all.push_str(&text(&path.join(name)));
        }
    }
    all
}

/// Two sources in two days: one compacted with a tail behind it, one that is a tail alone.
fn filled(dir: &TempDir) -> CsvSink {
    let sink = open(dir);
    let day = 24 * 60;
    check_write(
        &sink,
        &[life(ID, 0, 1, 1, &[1.0]), life(OTHER, 0, 1, 1, &[5.0]), life(ID, 1, 1, 1, &[2.0])],
        (3, 0, 0),
    );
    block_on(sink.compact(&super::day())).unwrap();
    check_write(&sink, &[life(ID, 0, 1, 2, &[1.0, 1.0]), life(OTHER, 2, 1, 1, &[6.0])], (2, 0, 0));
    check_write(&sink, &[life(ID, day, 1, 1, &[3.0]), life(OTHER, day, 1, 1, &[7.0])], (2, 0, 0));
    check_write(&sink, &[life(ID, 2 * day, 1, 1, &[4.0])], (1, 0, 0));
    sink
}

fn check_gone(dir: &TempDir, sink: &CsvSink) {
    check_rows(sink, &[ID], &[]);
    let expected = [format!("{OTHER}@0 1/1/1 1 5"), format!("{OTHER}@2 1/1/1 1 6"), format!("{OTHER}@1440 1/1/1 1 7")];
    check_rows(sink, &[OTHER], &[&expected[0], &expected[1], &expected[2]]);
    assert_eq!(known(sink), [OTHER]);
    let all = everything(dir).replace("=Zürich 2", "");
    assert!(!all.contains("Zürich"), "{all}");
    assert!(!dir.path().join("period=1m/date=2026-11-22").exists(), "a day of which nothing is left");
}

#[test]
fn a_source_goes_from_all_files() {
    let dir = tempfile::tempdir().unwrap();
    let sink = filled(&dir);
    assert_eq!(forget(&sink, "unknown"), 0);
    assert_eq!(forget(&sink, ID), 4, "rows, not lines");
    check_gone(&dir, &sink);
    assert_eq!(forget(&sink, ID), 0);
    drop(sink);
    let sink = open(&dir);
    check_gone(&dir, &sink);
}

#[test]
fn a_forgotten_source_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let sink = filled(&dir);
    forget(&sink, ID);
    // In a life that is still open, with fewer readings than were written of it.
    check_write(&sink, &[life(ID, 0, 1, 3, &[9.0]), life(OTHER, 0, 1, 1, &[5.0])], (1, 1, 0));
    check_write(&sink, &[life(ID, 2 * 24 * 60, 1, 2, &[8.0])], (1, 0, 0));
    let expected = [format!("{ID}@0 1/1/3 1 9"), format!("{ID}@2880 1/1/2 1 8")];
    check_rows(&sink, &[ID], &[&expected[0], &expected[1]]);
    assert_eq!(known(&sink), [ID, OTHER]);
    drop(sink);
    let sink = open(&dir);
    check_rows(&sink, &[ID], &[&expected[0], &expected[1]]);
    block_on(sink.compact(&day())).unwrap();
    check_rows(&sink, &[ID], &[&expected[0], &expected[1]]);
}

/// A crash or a full disk at any file: what is there can be read, nothing of others is gone, and the
/// source can be forgotten again.
#[test]
fn cut_off_at_any_sync_it_can_be_repeated() {
    use std::sync::atomic::AtomicUsize;
    static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);
    let mut stages = 0;
    for syncs in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let sink = filled(&dir);
        LEFT.store(syncs, Ordering::SeqCst);
        lock(&sink.shared.writer).disk.sync = |file| {
            let left = LEFT.load(Ordering::SeqCst);
            LEFT.store(left.saturating_sub(1), Ordering::SeqCst);
            if left == 0 { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { file.sync_data() }
        };
        let cut_off = match block_on(sink.forget(ID)) {
            Ok(rows) => {
                assert_eq!(rows, 4);
                false
            }
            Err(SinkError::Unavailable(_)) => true,
            Err(other) => panic!("{other}"),
        };
        if cut_off {
            assert!(known(&sink).contains(&ID.to_owned()), "after {syncs} syncs it is not known any more");
            assert_eq!(all_rows(&sink, &[OTHER]).len(), 3);
            // Repeated by the same process, every other time by the next.
            if syncs % 2 == 0 {
                drop(sink);
                let sink = open(&dir);
                assert!(forget(&sink, ID) <= 4);
                check_gone(&dir, &sink);
            } else {
                lock(&sink.shared.writer).disk = Disk::REAL;
                forget(&sink, ID);
                check_gone(&dir, &sink);
            }
            stages += 1;
        } else {
            assert!(stages >= 4, "{stages} stages");
            return;
        }
    }
}
