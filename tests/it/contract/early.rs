//! Seals and closes that do not wait for their time, as a drain makes them.

use super::closing::half_closed;
use super::{ack, close, close_to_end, due, sealed, written};
use crate::world::{HOUR, MINUTE, POLICY, SECOND, T0, WRITER, World, delta, moments};
use meanwhile::stats::calendar::Bucket;
use meanwhile::stats::moments::Moments;
use meanwhile::stats::row::{LifeRow, Row, Update};
use meanwhile::store::{Acked, Answer, Closed, Frame, Late, Life, Policy, Sealed, TOMBSTONE_TTL, When};

async fn close_now(world: &World, life: Life) -> Closed {
    world.store.close(0, life, &world.family(life.bucket), 0, When::Now).await.unwrap()
}

async fn seal_now(world: &World, bucket: Bucket) -> Sealed {
    world.store.seal(0, bucket, &world.family(bucket), When::Now).await.unwrap()
}

/// Seals, acks and closes a bucket at once.
async fn drained(world: &World, bucket: Bucket) -> Life {
    let Sealed::Sealed { life, .. } = seal_now(world, bucket).await else { panic!("{bucket:?} is not sealed") };
    assert_eq!(ack(world, life).await, Acked::Clean);
    assert_eq!(close_now(world, life).await, Closed::Done);
    life
}

/// The life of a bucket as the sink would get it: with one source.
async fn row_of(world: &World, life: Life) -> LifeRow {
    let page = world.store.page(0, life.bucket, life.generation, None).await.unwrap().expect("the life is there");
    let [(source, moments)] = &page.sources[..] else { panic!("{page:?}") };
    let Life { bucket, generation, revision } = life;
    LifeRow { source: source.clone(), bucket, generation, revision, moments: moments.clone() }
}

pub(super) async fn an_early_close_is_refused_until_all_is_written(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let life = sealed(&world, minute).await;
    assert_eq!(close_now(&world, life).await, Closed::Refused, "not acked");
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    assert_eq!(ack(&world, life).await, Acked::Dirty);
    assert_eq!(close_now(&world, life).await, Closed::Refused, "dirty");
    let life = written(&world, minute).await;
    assert_eq!(close_now(&world, Life { revision: life.revision - 1, ..life }).await, Closed::Refused);
    assert_eq!(close_now(&world, Life { generation: life.generation - 1, ..life }).await, Closed::Refused);
    assert_eq!(close(&world, life, 0).await, Closed::Refused, "in time it is too early");
    assert_eq!(close_now(&world, life).await, Closed::Done);
    assert_eq!(close_now(&world, life).await, Closed::Gone, "repeated it moves nothing");
    let [open] = &world.open(&["a"]).await.lives[..] else { panic!("the hour alone") };
    assert_eq!((open.life.bucket, &open.moments[..]), (world.bucket("1h", T0), &[Some(moments(&[1.0, 1.0]))][..]));
}

pub(super) async fn a_reading_after_an_early_close_adds_to_the_row(world: World) {
    let minute = world.bucket("1m", T0);
    let mut row: Option<Row> = None;
    let mut last = i64::MIN;
    let mut all = Moments::EMPTY;
    for value in [1.0, 2.0, 4.0] {
        world.put(vec![delta(minute, "a", &[value])]).await;
        all.push(value);
        let Sealed::Sealed { life, .. } = seal_now(&world, minute).await else { panic!("not sealed") };
        assert!(life.generation > last, "a new life has a new number, in the same millisecond too");
        last = life.generation;
        let Update::Write(newer) = Row::update(row.as_ref(), &row_of(&world, life).await) else {
            panic!("the row does not take the life {life:?}")
        };
        assert_eq!(newer.state, all);
        row = Some(newer);
        assert_eq!(ack(&world, life).await, Acked::Clean);
        assert_eq!(close_now(&world, life).await, Closed::Done);
    }
    let hour = sealed(&world, world.bucket("1h", T0)).await;
    assert_eq!(row_of(&world, hour).await.moments, all);
}

pub(super) async fn an_early_close_is_remembered_until_the_bucket_is_late(world: World) {
    let minute = world.bucket("1m", T0 + 55 * MINUTE);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let first = drained(&world, minute).await;
    assert_eq!(first.generation, world.head().await.epoch.unwrap());
    // The tombstone has had its time, but a life would still count as the bucket's first.
    world.elapse(2 * TOMBSTONE_TTL).await;
    assert!(world.now() < minute.end);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    assert!(sealed(&world, minute).await.generation > first.generation, "the tombstone was forgotten");
    // Nor does it stand for all buckets before it, as what is forgotten does.
    let before = world.bucket("1m", T0 + 54 * MINUTE);
    world.put(vec![delta(before, "a", &[1.0])]).await;
    assert_eq!(sealed(&world, before).await.generation, first.generation, "it never closed");
}

pub(super) async fn a_coarse_bucket_need_not_wait_when_asked_now(world: World) {
    let [minute, hour, day] = ["1m", "1h", "1d"].map(|p| world.bucket(p, T0));
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    drained(&world, minute).await;
    // Its child is open again.
    world.pass(SECOND);
    world.put(vec![delta(minute, "a", &[2.0])]).await;
    assert_eq!(super::seal(&world, hour).await, Sealed::Waiting);
    let first = drained(&world, hour).await;
    drained(&world, minute).await;
    let second = sealed(&world, hour).await;
    assert!(second.generation > first.generation, "what moves up later is another life");
    assert_eq!(row_of(&world, second).await.moments, moments(&[2.0]));
    drained(&world, hour).await;
    let day = sealed(&world, day).await;
    assert_eq!(row_of(&world, day).await.moments, moments(&[1.0, 2.0]));
}

/// What moved up into a life that is on its way already would leave with it, and never be in its row.
pub(super) async fn a_half_moved_bucket_waits_for_a_parent_that_is_drained(world: World) {
    let minute = half_closed(&world, T0).await;
    // Until the parent has more sources than Redis moves in one chunk, which is all of a small hash.
    for _ in 0..2 {
        assert!(matches!(close(&world, minute, 0).await, Closed::More(_)));
    }
    let Sealed::Sealed { life: hour, .. } = seal_now(&world, world.bucket("1h", T0)).await else {
        panic!("not sealed")
    };
    assert_eq!(ack(&world, hour).await, Acked::Clean);
    assert!(matches!(close_now(&world, hour).await, Closed::More(_)));
    assert_eq!(close(&world, minute, 0).await, Closed::ParentClosing(hour), "in its time");
    assert_eq!(close_now(&world, minute).await, Closed::ParentClosing(hour), "in a drain");
    while let Closed::More(_) = close_now(&world, hour).await {}
    close_to_end(&world, minute).await;
    let second = sealed(&world, world.bucket("1h", T0)).await;
    assert!(second.generation > hour.generation, "the rest is another life");
}

pub(super) async fn everything_is_drained_from_fine_to_coarse(world: World) {
    let old = T0 - 26 * HOUR;
    let deltas = [T0, T0 + MINUTE, old].map(|t| delta(world.bucket("1m", t), "a", &[1.0]));
    world.put(deltas.to_vec()).await;
    for period in ["1m", "1h", "1d"] {
        for t in [T0, T0 + MINUTE, old] {
            let bucket = world.bucket(period, t);
            if world.open(&[]).await.lives.iter().any(|open| open.life.bucket == bucket) {
                drained(&world, bucket).await;
            }
        }
    }
    let left = due(&world).await;
    assert_eq!((left.open, left.next, left.buckets), (0, None, vec![]));
}

pub(super) async fn a_drained_bucket_takes_readings_until_it_is_late(mut world: World) {
    world.reopen(Policy { late: Late::Refuse, ..POLICY }).await;
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let life = drained(&world, minute).await;
    world.set(minute.end + POLICY.lateness - 1);
    world.put(vec![delta(minute, "a", &[2.0])]).await;
    let second = written(&world, minute).await;
    assert!(second.generation > life.generation);
    world.pass(1);
    close_to_end(&world, second).await;
    let head = world.head().await;
    let late = Frame::new(WRITER, head.sequence + 1, head.elapsed, vec![], vec![delta(minute, "a", &[4.0])]);
    assert_eq!(world.apply(&late).await, Answer::Late(vec![0]));
}

pub(super) async fn a_crash_in_an_early_close_changes_nothing(mut world: World) {
    let minute = world.bucket("1m", T0);
    for part in [0..1_250, 1_250..2_500] {
        world.put(vec![crate::world::wide_delta(minute, part)]).await;
    }
    let life = written(&world, minute).await;
    assert!(matches!(close_now(&world, life).await, Closed::More(_)));
    world.crash().await;
    let count = async |world: &World| {
        let lives = world.open(&["wide-0000", "wide-2499"]).await.lives;
        lives.iter().flat_map(|l| &l.moments).flatten().map(|m| m.count).sum::<f64>()
    };
    assert_eq!(count(&world).await, 2.0);
    // Whoever finds it goes on; what was undone begins anew, in its time or not.
    while let Closed::More(_) = close_now(&world, life).await {
        assert_eq!(count(&world).await, 2.0);
    }
    assert_eq!(close_now(&world, life).await, Closed::Gone);
    assert_eq!(count(&world).await, 2.0);
}

pub(super) async fn a_drained_store_gets_a_new_epoch_at_its_next_founding(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let first = world.head().await.epoch.unwrap();
    world.pass(SECOND);
    for _ in 0..2 {
        world.store.drained(0).await.unwrap();
    }
    assert_eq!(world.head().await.epoch, Some(first), "who runs goes on");
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let second = world.store.found(0).await.unwrap();
    assert_eq!((second, world.head().await.epoch), (world.now(), Some(second)));
    assert_eq!(world.store.found(0).await.unwrap(), second, "once");
    // The open life stays, a first life is newer than what another store has written meanwhile.
    let next = world.bucket("1m", T0 + MINUTE);
    world.put(vec![delta(minute, "a", &[1.0]), delta(next, "a", &[1.0])]).await;
    let generations: Vec<i64> = world.open(&[]).await.lives.iter().map(|l| l.life.generation).collect();
    assert_eq!(generations, [first, second]);
    assert_eq!(world.head().await.sequence, 3, "no writer has lost anything");
}
