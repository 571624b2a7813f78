//! The input: the kept cases of tests/corpus, changed ones, pieces of a language, and noise.
//!
//! Used by the other files here. [`run`] looks at new input in every run and prints the smallest that
//! fails; [`replay`] reads the kept cases as they are.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use std::fmt::Debug;
use std::fs;
use std::path::Path;

/// Changes to a kept case.
const MOST_CHANGES: usize = 6;
const MOST_PIECES: usize = 40;
const MOST_NOISE: usize = 300;

/// The kept cases of a folder, by name.
pub(super) fn kept(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut cases: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    assert!(!cases.is_empty(), "{} is empty", folder.display());
    cases.sort();
    cases
}

/// Reads every kept case of a folder; a failure is told with the name of the file.
pub(super) fn replay(folder: &str, check: impl Fn(&[u8])) {
    for (name, case) in kept(folder) {
        println!("tests/corpus/{folder}/{name}");
        check(&case);
    }
}

/// Checks as many values as `PROPTEST_CASES` says.
pub(super) fn run<S: Strategy>(values: S, check: impl Fn(S::Value))
where
    S::Value: Debug,
{
    // What fails is kept in tests/corpus, where every decoder reads it.
    let config = Config { failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&values, |value| {
        check(value);
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

/// One change: what kind, where, how long, and what is put in.
#[derive(Clone, Debug)]
struct Change {
    kind: u8,
    from: Index,
    length: usize,
    to: Index,
    piece: Vec<u8>,
}

impl Change {
    fn apply(self, text: &mut Vec<u8>) {
        let at = |index: Index, text: &[u8]| index.index(text.len() + 1);
        let from = at(self.from, text);
        let part = from..(from + self.length).min(text.len());
        match self.kind {
            0 => drop(text.drain(part)),
            1 => drop(text.splice(from..from, self.piece)),
            2 => drop(text.splice(part, self.piece)),
            3 => {
                let copy = text[part].to_vec();
                let to = at(self.to, text);
                text.splice(to..to, copy);
            }
            4 => text.truncate(from),
            _ => text[part].iter_mut().zip(self.piece.iter().cycle()).for_each(|(byte, change)| *byte ^= change),
        }
    }
}

/// Input for whatever reads the cases of a folder; `pieces` are words of its language.
pub(super) fn input(folder: &str, pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let bases: Vec<Vec<u8>> = kept(folder).into_iter().map(|(_, case)| case).collect();
    let piece = move || select(pieces).prop_map(|piece| piece.as_bytes().to_vec());
    let noise = prop::collection::vec(any::<u8>(), 0..MOST_NOISE);
    let put_in = prop_oneof![piece(), prop::collection::vec(any::<u8>(), 1..4)];
    let change = (0..6_u8, any::<Index>(), 0..40_usize, any::<Index>(), put_in)
        .prop_map(|(kind, from, length, to, piece)| Change { kind, from, length, to, piece });
    let changed = (select(bases), prop::collection::vec(change, 1..MOST_CHANGES)).prop_map(|(mut text, changes)| {
        for change in changes {
            change.apply(&mut text);
        }
        text
    });
    let words = prop::collection::vec(piece(), 0..MOST_PIECES).prop_map(|pieces| pieces.concat());
    prop_oneof![1 => noise, 4 => words, 5 => changed]
}

/// The same as text; what is not UTF-8 is replaced.
pub(super) fn text(folder: &str, pieces: &'static [&'static str]) -> impl Strategy<Value = String> + use<> {
    input(folder, pieces).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Cuts a body at these places.
pub(super) fn cut<'b>(body: &'b [u8], places: &[Index]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(body.len() + 1)).collect();
    places.sort_unstable();
    let (mut pieces, mut from) = (Vec::new(), 0);
    for place in places {
        pieces.push(&body[from..place]);
        from = place;
    }
    pieces.push(&body[from..]);
    pieces
}

/// A source id that is accepted.
pub(super) fn id() -> impl Strategy<Value = String> {
    let ascii =
        select(&["a", "kitchen", "=1+1", "'q", "{x}", "a,b", "\"", " ", "a;b", "%41", "+", "&=", "\\u0041"][..]);
    let text = prop_oneof![3 => "\\PC{1,20}", 1 => ascii.prop_map(str::to_owned)];
    text.prop_filter("an accepted id", |id| meanwhile::stats::source::check(id).is_ok())
}
