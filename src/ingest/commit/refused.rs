//! How the key of a part remembers which of its readings were too late, so that a repetition is
//! answered like the request.
//!
//! Used by `pending.rs`, which records keys, and by `shard.rs`, which meets them again. Too late are
//! always those deltas of a part that end first, and a repetition has the same ones, so their number
//! says which. It is mixed into the recorded fingerprint; as long as nothing is refused it is 0 and
//! changes nothing.

use crate::ingest::fold::Part;

/// These low bits of a fingerprint are mixed with the number, the others tell bodies apart.
const NUMBER: u128 = u32::MAX as u128;

/// The fingerprint to record for a part of which so many deltas are too late.
pub(super) fn mark(fingerprint: [u8; 16], too_late: usize) -> [u8; 16] {
    (u128::from_le_bytes(fingerprint) ^ (too_late as u128 & NUMBER)).to_le_bytes()
}

/// The deltas of a part, by index, that were too late when its key was recorded; `None` if that was
/// for another body.
pub(super) fn too_late(recorded: [u8; 16], fingerprint: [u8; 16], part: &Part) -> Option<Vec<usize>> {
    let mixed = u128::from_le_bytes(recorded) ^ u128::from_le_bytes(fingerprint);
    if mixed > NUMBER {
        return None;
    }
    let mut first: Vec<usize> = (0..part.deltas.len()).collect();
    first.sort_by_key(|&index| part.deltas[index].end());
    first.truncate(mixed as usize);
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::fold::RootDeltas;
    use crate::stats::calendar::{Bucket, Period};

    #[test]
    fn a_number_says_which() {
        let minute = |end| Bucket { period: Period::Seconds(60), start: end - 60_000, end };
        let deltas =
            |ends: &[i64]| RootDeltas { buckets: ends.iter().map(|&end| minute(end)).collect(), sources: vec![] };
        let part = Part { deltas: vec![deltas(&[3]), deltas(&[9, 1]), deltas(&[2, 9])], readings: 3 };
        let fingerprint = [0xa5; 16];
        for (number, expected) in [(0, vec![]), (1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 0])] {
            assert_eq!(too_late(mark(fingerprint, number), fingerprint, &part), Some(expected));
        }
        assert_eq!(mark(fingerprint, 0), fingerprint, "nothing is refused");
        assert_eq!(too_late([0xa4; 16], fingerprint, &part), None);
    }
}
