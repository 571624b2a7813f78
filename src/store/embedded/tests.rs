//! What the embedded store leaves in its file, which no answer shows.

use super::due::SWEEP;
use super::*;
use crate::stats::policy::Policy;
use crate::store::{Frame, KeyRecord, Late};
use redb::ReadableTableMetadata;

const POLICY: Policy = Policy { grace: 5_000, lateness: 60_000, late: Late::Reopen, idempotency_ttl: 60_000 };

/// More than one call of `due` forgets.
const KEYS_PER_FRAME: u64 = 3 * SWEEP as u64;

fn new_keys(sequence: u64) -> Vec<KeyRecord> {
    let id = |i: u64| (u128::from(sequence) << 64 | u128::from(i)).to_le_bytes();
    (0..KEYS_PER_FRAME).map(|i| KeyRecord { id: id(i), fingerprint: [1; 16], ttl: POLICY.idempotency_ttl }).collect()
}

#[tokio::test]
async fn keys_do_not_pile_up_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_795_150_800_000);
    let store = EmbeddedStore::open(dir.path(), POLICY, clock.clone()).unwrap();
    store.found(0).await.unwrap();
    let mut most = 0;
    for sequence in 1..=45 {
        clock.set(clock.now() + 5_000);
        let elapsed = store.due(0, 0).await.unwrap().elapsed;
        let frame = Frame::new(WriterId([1; 8]), sequence, elapsed, new_keys(sequence), Vec::new());
        assert_eq!(store.apply(0, &frame).await.unwrap(), Answer::Applied);
        most = most.max(store.read(|_, t| Ok(t.open_table(tables::KEYS)?.len()?)).await.unwrap());
    }
    // Those of a TTL, of the quarter they expire with, and of the quarter that is being forgotten.
    let frames_per_ttl = POLICY.idempotency_ttl.cast_unsigned() / 5_000;
    assert!(most < KEYS_PER_FRAME * 2 * frames_per_ttl, "{most} keys were kept");
}
