//! Versions of the rules: from when one may be, which frames are made anew, and what is kept.

use crate::world::{OTHER_WRITER, WRITER, World, delta, key};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Bucket;
use meanwhile::store::rules::{ALL_TIME, Changed, MAX_VERSIONS, MAX_VERSIONS_BYTES, Version};
use meanwhile::store::{Answer, Frame, When};

fn version(number: u64, from: Millis) -> Version {
    Version { number, from, text: format!("the rules: {number}\n\"ü\" and more of them") }
}

async fn change(world: &World, number: u64, from: Millis) -> Changed {
    world.store.change_rules(0, world.calendar.periods(), &version(number, from)).await.unwrap()
}

async fn frame(world: &World, rules: u64, bucket: Bucket) -> Frame {
    let head = world.head().await;
    let frame = Frame::new(WRITER, head.sequence + 1, head.elapsed, vec![], vec![delta(bucket, "a", &[1.0])]);
    Frame { rules, ..frame }
}

pub(super) async fn a_store_without_readings_takes_rules_for_all_time(mut world: World) {
    assert_eq!((world.head().await.rules, world.store.rules(0).await.unwrap()), (0, vec![]));
    assert_eq!(change(&world, 2, ALL_TIME).await, Changed::Other { newest: 0 });
    assert_eq!(change(&world, 1, ALL_TIME).await, Changed::Done);
    assert_eq!(world.head().await.rules, 1);
    // Once is enough, and a repetition changes nothing.
    assert_eq!(change(&world, 1, ALL_TIME).await, Changed::Other { newest: 1 });
    assert_eq!(change(&world, 2, ALL_TIME).await, Changed::Early { after: world.now() });
    world.crash().await;
    assert_eq!(world.store.rules(0).await.unwrap(), [version(1, ALL_TIME)]);
}

pub(super) async fn rules_begin_after_all_that_is_open(world: World) {
    let now = world.now();
    let (minute, ahead) = (world.bucket("1m", now), world.bucket("1m", now + 240_000));
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    assert_eq!(change(&world, 1, ALL_TIME).await, Changed::Early { after: now });
    assert_eq!(change(&world, 1, now).await, Changed::Early { after: now });
    world.put(vec![delta(ahead, "a", &[1.0])]).await;
    assert_eq!(change(&world, 1, minute.end).await, Changed::Early { after: ahead.start });
    assert_eq!(change(&world, 1, ahead.start).await, Changed::Early { after: ahead.start });
    assert_eq!(change(&world, 1, ahead.end).await, Changed::Done);
    assert_eq!(change(&world, 2, ahead.end).await, Changed::Early { after: ahead.end });
    assert_eq!(change(&world, 2, ahead.end + 60_000).await, Changed::Done);
    let kept = world.store.rules(0).await.unwrap();
    assert_eq!(kept, [version(1, ahead.end), version(2, ahead.end + 60_000)]);
    // What was closed was there, too.
    let life = super::written(&world, minute).await;
    world.store.close(0, life, &world.family(minute), 0, When::Now).await.unwrap();
    assert_eq!(world.head().await.rules, 2);
}

pub(super) async fn a_frame_made_by_other_rules_is_made_anew(world: World) {
    let minute = world.bucket("1m", world.now());
    let next = world.bucket("1m", minute.end);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    assert_eq!(change(&world, 1, next.start).await, Changed::Done);
    // Each before the version that is new, or of it.
    for (rules, bucket, answer) in [
        (0, next, Answer::Rules { newest: 1 }),
        (2, minute, Answer::Rules { newest: 1 }),
        (0, minute, Answer::Applied),
        (1, minute, Answer::Applied),
        (1, next, Answer::Applied),
    ] {
        assert_eq!(world.apply(&frame(&world, rules, bucket).await).await, answer, "{rules} {bucket:?}");
    }
    assert_eq!(change(&world, 2, next.end).await, Changed::Done);
    // Two behind: whatever the bucket.
    assert_eq!(world.apply(&frame(&world, 0, minute).await).await, Answer::Rules { newest: 2 });
    assert_eq!(world.apply(&frame(&world, 1, next).await).await, Answer::Applied);
    // One bucket of several is enough, and none is none.
    let both = frame(&world, 1, minute).await;
    let both =
        Frame { deltas: vec![delta(minute, "a", &[1.0]), delta(world.bucket("1m", next.end), "b", &[1.0])], ..both };
    assert_eq!(world.apply(&both).await, Answer::Rules { newest: 2 });
    let empty = Frame { deltas: vec![], ..frame(&world, 0, minute).await };
    assert_eq!(world.apply(&empty).await, Answer::Applied);
}

pub(super) async fn counted_before_outdated_before_closing(world: World) {
    let minute = world.bucket("1m", world.now());
    let counted = Frame { keys: vec![key(1, 1)], ..frame(&world, 0, minute).await };
    assert_eq!(world.apply(&counted).await, Answer::Applied);
    assert_eq!(change(&world, 1, minute.end).await, Changed::Done);
    assert_eq!(change(&world, 2, minute.end + 60_000).await, Changed::Done);
    let other = Frame { writer: OTHER_WRITER, sequence: 1, ..counted.clone() };
    assert!(matches!(world.apply(&other).await, Answer::Seen(_)));
    assert!(matches!(world.apply(&counted).await, Answer::Dup { .. }));
    let new = Frame { keys: vec![], ..other };
    assert_eq!(world.apply(&new).await, Answer::Rules { newest: 2 });
    assert_eq!(world.apply(&Frame { rules: 2, ..new }).await, Answer::Applied);
}

pub(super) async fn lost_versions_come_back(mut world: World) {
    let saved = world.save().await;
    let minute = world.bucket("1m", world.now());
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let all = [version(1, minute.end), version(2, minute.end + 60_000)];
    for version in &all {
        assert_eq!(change(&world, version.number, version.from).await, Changed::Done);
    }
    world.restore(&saved).await;
    world.elapse(600_000).await;
    assert_eq!(world.head().await.rules, 0);
    // Though it is long past their time.
    world.store.restore_rules(0, &all).await.unwrap();
    world.store.restore_rules(0, &[version(2, 5)]).await.unwrap();
    assert_eq!((world.head().await.rules, world.store.rules(0).await.unwrap()), (2, all.to_vec()));
}

pub(super) async fn the_oldest_versions_go(world: World) {
    let versions: Vec<Version> = (1..=MAX_VERSIONS as u64 + 2).map(|n| version(n, n.cast_signed())).collect();
    world.store.restore_rules(0, &versions).await.unwrap();
    assert_eq!(world.store.rules(0).await.unwrap(), versions[2..]);
    let large = Version { text: "x".repeat(MAX_VERSIONS_BYTES), ..version(200, 200) };
    world.store.restore_rules(0, std::slice::from_ref(&large)).await.unwrap();
    assert_eq!(world.store.rules(0).await.unwrap(), [large]);
}
