//! Ids that somebody may have meant who asked for an unknown one.
//!
//! Called by `sources.rs`. Pure: it is given the known ids and compares by edit distance.

use std::collections::BinaryHeap;
use std::sync::Arc;

/// How many ids an error suggests.
pub(super) const NEAR: usize = 5;
/// More edits than this make another id, however long both are; it also bounds the work per id.
const MAX_EDITS: usize = 8;

/// Up to [`NEAR`] of the known ids, the nearest first, equally near ones by name. An id is near if
/// at most one edit in four characters, and one more, leads to it.
pub(super) fn near<'a>(id: &str, known: impl Iterator<Item = &'a Arc<str>>) -> Vec<Arc<str>> {
    let id: Vec<char> = id.chars().collect();
    let most = (1 + id.len() / 4).min(MAX_EDITS);
    // The greatest leaves, so the heap holds the nearest seen so far.
    let mut nearest = BinaryHeap::new();
    for candidate in known {
        let chars: Vec<char> = candidate.chars().collect();
        if let Some(edits) = distance(&id, &chars, most) {
            nearest.push((edits, candidate));
            if nearest.len() > NEAR {
                nearest.pop();
            }
        }
    }
    nearest.into_sorted_vec().into_iter().map(|(_, candidate)| Arc::clone(candidate)).collect()
}

/// The fewest insertions, deletions and replacements that make `b` of `a`; `None` if more than `most`.
fn distance(a: &[char], b: &[char], most: usize) -> Option<usize> {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[same..], &b[same..]);
    let same = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[..a.len() - same], &b[..b.len() - same]);
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    // row[j]: edits from the part of `a` so far to b[..j].
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
        // Edits never become fewer from one row to the next.
        if row.iter().all(|edits| *edits > most) {
            return None;
        }
    }
    Some(row[b.len()]).filter(|edits| *edits <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let check = |a: &str, b: &str, most: usize, expected: Option<usize>| {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            assert_eq!(distance(&a, &b, most), expected);
            assert_eq!(distance(&b, &a, most), expected);
        };
        check("", "", 0, Some(0));
        check("kitchen", "kitchen", 0, Some(0));
        check("kitchen", "kichen", 2, Some(1));
        check("kitten", "sitting", 3, Some(3));
        check("kitten", "sitting", 2, None);
        check("abc", "xyz", 2, None);
        check("a", "abcdefgh", 3, None);
        check("Zürich", "Zurich", 1, Some(1));
    }

    #[test]
    fn the_nearest_first_and_no_more_than_five() {
        let check = |id: &str, known: &[&str], expected: &[&str]| {
            let known: Vec<Arc<str>> = known.iter().map(|k| (*k).into()).collect();
            let got = near(id, known.iter());
            assert_eq!(got.iter().map(|k| &**k).collect::<Vec<_>>(), expected, "{id}");
        };
        check("kichen", &["cellar", "kitchen", "kitchens", "Kitchen"], &["kitchen", "Kitchen", "kitchens"]);
        check("s1", &["s2", "s3", "s4", "s5", "s6", "s7"], &["s2", "s3", "s4", "s5", "s6"]);
        check("kitchen", &["attic"], &[]);
    }
}
