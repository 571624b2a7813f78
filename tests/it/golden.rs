//! Golden vectors that tie Rust and Lua: the same pairs of states through `stats::layout::merge` and
//! through the script of the Redis store must give the same bytes, or be refused by both.
//!
//! The script runs inside a real server, with the very number formatting and packing it has there.

use crate::servers::RedisServer;
use crate::world::{POLICY, T0, WRITER, calendar, moments};
use meanwhile::clock::Clock;
use meanwhile::stats::double_double::DoubleDouble;
use meanwhile::stats::layout::{self, LATEST, ORDER_2, POWERS, SPARSE, VERSION, encode, header};
use meanwhile::stats::moments::Moments;
use meanwhile::store::redis::{MERGE_LUA, RedisStore};
use meanwhile::store::{Answer, BucketDeltas, Frame, Store, keys};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

type Pair = (Vec<u8>, Vec<u8>);

/// Random pairs in one call of the script.
const RANDOM_PAIRS: usize = 600;

/// The script's answers to these pairs; `None` where it refuses.
fn merge_in_lua(pairs: &[Pair]) -> Vec<Option<Vec<u8>>> {
    let all = "local out = {} \
        for i = 1, #ARGV, 2 do out[#out + 1] = merge(ARGV[i], ARGV[i + 1]) or false end \
        return out";
    let server = RedisServer::start();
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut call = redis::cmd("EVAL");
    call.arg(format!("{MERGE_LUA}\n{all}")).arg(0);
    for (a, b) in pairs {
        call.arg(a).arg(b);
    }
    call.query(&mut connection).unwrap()
}

/// Sees that both give the same answer, for each order of the two, and returns Rust's.
fn check_pairs(pairs: &[Pair]) -> Vec<Option<Vec<u8>>> {
    let swapped: Vec<Pair> = pairs.iter().map(|(a, b)| (b.clone(), a.clone())).collect();
    let both = [pairs, &swapped].concat();
    for ((a, b), lua) in both.iter().zip(merge_in_lua(&both)) {
        let rust = layout::merge(a, b).ok();
        assert_eq!(rust.as_ref().map(hex), lua.as_ref().map(hex), "\n{} and\n{}", hex(a), hex(b));
    }
    pairs.iter().map(|(a, b)| layout::merge(a, b).ok()).collect()
}

/// Header, then a number per double.
fn hex(bytes: impl AsRef<[u8]>) -> String {
    let digits = |part: &[u8]| part.iter().fold(0u64, |digits, byte| digits << 8 | u64::from(*byte));
    let (head, doubles) = bytes.as_ref().split_at(bytes.as_ref().len().min(4));
    let parts = std::iter::once(head).chain(doubles.chunks(8));
    parts.map(|part| format!("{:0width$x}", digits(part), width = 2 * part.len())).collect::<Vec<_>>().join(" ")
}

fn state(profile: u8, dimension: u16, doubles: &[f64]) -> Vec<u8> {
    let mut bytes = header(profile, dimension).to_vec();
    bytes.extend(doubles.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

fn scalar(values: &[f64]) -> Vec<u8> {
    encode(&moments(values)).to_vec()
}

/// A scalar state of these very doubles: count, both sums as pairs, minimum, maximum.
fn raw([count, s, s_lo, q, q_lo, min, max]: [f64; 7]) -> Vec<u8> {
    let pair = |hi, lo| DoubleDouble { hi, lo };
    encode(&Moments { count, sum: pair(s, s_lo), sum_sq: pair(q, q_lo), min, max, vector: None }).to_vec()
}

#[test]
fn scalar_states() {
    let denormal = f64::from_bits(1);
    let cancelling: Vec<f64> = [10_000_000.2].into_iter().chain([10_000_000.1, 10_000_000.3].repeat(500)).collect();
    let empty = encode(&Moments::EMPTY).to_vec();
    let pairs = vec![
        (scalar(&[1.0]), scalar(&[2.0])),
        (scalar(&[0.1, 0.2, 0.3]), scalar(&[-0.7])),
        (scalar(&cancelling), scalar(&cancelling[..400])),
        (scalar(&[1e16]), scalar(&[1e16 + 2.0])),
        (scalar(&[1e9]), scalar(&[0.013; 100])),
        (scalar(&[1e140]), scalar(&[-1e140])),
        (scalar(&[1e140, 1e-140]), scalar(&[1e-140])),
        (scalar(&[denormal]), scalar(&[-denormal])),
        (scalar(&[f64::MIN_POSITIVE]), scalar(&[f64::MIN_POSITIVE / 3.0])),
        (empty.clone(), empty.clone()),
        (empty.clone(), scalar(&[-1.5])),
        (scalar(&[0.0]), scalar(&[-0.0])),
        (raw([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), raw([1.0, -0.0, -0.0, 0.0, -0.0, -0.0, -0.0])),
        (raw([9_007_199_254_740_991.0, 1.0, 1e-17, 1.0, 0.0, 1.0, 1.0]), scalar(&[1.0])),
        (raw([1.0, 1.0, 5e-17, 1.0, -5e-17, 1.0, 1.0]), raw([1.0, -1.0, 5e-17, 1.0, 5e-17, -1.0, -1.0])),
        (raw([1.0, f64::MAX / 4.0, 1e290, f64::MAX / 4.0, -1e290, 1.0, 1.0]), scalar(&[3.0])),
    ];
    assert!(check_pairs(&pairs).iter().all(Option::is_some), "every one of these merges");
}

/// Doubles of a state before its sparse part, all different: a mixed up index shows.
fn filled(profile: u8, dimension: u16, seed: f64) -> Vec<f64> {
    let d = usize::from(dimension);
    let part = |bit: u8, doubles: usize| if profile & bit == 0 { 0 } else { doubles };
    let doubles = 1 + 4 * d + d * (d + 1) + part(POWERS, 4 * d) + part(LATEST, 1 + d);
    (0..doubles).map(|i| seed + i as f64 * 0.37).collect()
}

#[test]
fn every_element_kind_and_dimension() {
    let sparse: [&[f64]; 4] =
        [&[0.0], &[1.0, 4.0, 2.0], &[3.0, -7.0, 1.0, 4.0, 5.0, 9.0, 1.0], &[2.0, 4.0, 1e15, 100.0, 3.0]];
    let mut pairs = Vec::new();
    for profile in (ORDER_2..16).filter(|p| p & ORDER_2 != 0) {
        for dimension in [1, 2, 3, 64] {
            let of = |seed: f64, sparse: &[f64]| {
                let mut doubles = filled(profile, dimension, seed);
                doubles.extend(sparse.iter().take_while(|_| profile & SPARSE != 0));
                state(profile, dimension, &doubles)
            };
            let lists = if profile & SPARSE == 0 { &sparse[..1] } else { &sparse[..] };
            for a in lists {
                for b in lists {
                    pairs.push((of(0.1, a), of(-1e7, b)));
                }
            }
        }
    }
    assert!(check_pairs(&pairs).iter().all(Option::is_some), "every one of these merges");
}

#[test]
fn the_latest_wins_by_time_then_by_values() {
    let of = |latest: &[f64]| {
        let mut doubles = filled(ORDER_2, 2, 1.0);
        doubles.extend(latest);
        state(ORDER_2 | LATEST, 2, &doubles)
    };
    let check = |a: [f64; 3], b: [f64; 3], expected: [f64; 3]| {
        let merged = check_pairs(&[(of(&a), of(&b))]).remove(0).expect("the same shape");
        assert_eq!(merged[merged.len() - 24..], of(&expected)[merged.len() - 24..], "{a:?} and {b:?}");
    };
    check([5.0, 1.0, 9.0], [6.0, 0.0, 0.0], [6.0, 0.0, 0.0]);
    check([5.0, 1.0, 9.0], [5.0, 2.0, 0.0], [5.0, 2.0, 0.0]);
    check([5.0, 1.0, 9.0], [5.0, 1.0, 8.0], [5.0, 1.0, 9.0]);
    check([5.0, 1.0, 9.0], [5.0, 1.0, 9.0], [5.0, 1.0, 9.0]);
    check([-5.0, 1.0, 9.0], [f64::NEG_INFINITY, 0.0, 0.0], [-5.0, 1.0, 9.0]);
}

#[test]
fn what_cannot_be_read_is_refused_by_both() {
    let good = scalar(&[1.0]);
    let edited = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let sparse = |n: f64, list: &[f64]| {
        let mut doubles = filled(ORDER_2, 1, 1.0);
        doubles.push(n);
        doubles.extend(list);
        state(ORDER_2 | SPARSE, 1, &doubles)
    };
    let unreadable = [
        vec![],
        good[..3].to_vec(),
        good[..4].to_vec(),
        good[..59].to_vec(),
        good[..52].to_vec(),
        [&good[..], &[0; 8]].concat(),
        [&good[..], &[0]].concat(),
        edited(0, VERSION + 1),
        edited(0, 0),
        edited(1, 0),
        edited(1, POWERS),
        edited(1, ORDER_2 | POWERS),
        edited(1, 16 | ORDER_2),
        edited(2, 0),
        edited(2, 65),
        edited(3, 1),
        sparse(1.0, &[]),
        sparse(2.0, &[1.0, 1.0]),
        sparse(-1.0, &[]),
        sparse(f64::NAN, &[]),
        sparse(f64::INFINITY, &[]),
        sparse(1e300, &[1.0, 1.0]),
    ];
    let mut pairs: Vec<Pair> = unreadable.iter().map(|bad| (bad.clone(), good.clone())).collect();
    pairs.extend(unreadable.iter().map(|bad| (bad.clone(), bad.clone())));
    // Both can be read, but their shapes differ.
    pairs.push((good.clone(), state(ORDER_2, 2, &filled(ORDER_2, 2, 1.0))));
    pairs.push((good, sparse(1.0, &[1.0, 1.0])));
    assert!(check_pairs(&pairs).iter().all(Option::is_none), "none of these merges");
}

/// A stored state that cannot be read costs its own source what it had, and nobody else anything.
#[tokio::test]
async fn an_unreadable_state_is_set_aside() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url(), POLICY, Some(Clock::manual(T0))).await.unwrap();
    store.found(0).await.unwrap();
    let bucket = calendar("1m").bucket("1m".parse().unwrap(), T0);
    let deltas = ["a", "b"].map(|s| (s.into(), moments(&[2.0]))).to_vec();
    let frame = |n| Frame::new(WRITER, n, 0, vec![], vec![BucketDeltas { bucket, sources: deltas.clone() }]);
    assert_eq!(store.apply(0, &frame(1)).await.unwrap(), Answer::Applied);
    let mut raw = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut set = redis::cmd("HSET");
    set.arg(keys::bucket(0, &bucket)).arg(keys::source_field("a")).arg("not a state");
    set.exec(&mut raw).unwrap();
    assert_eq!(store.apply(0, &frame(2)).await.unwrap(), Answer::Applied);
    let open = store.open(0, &["a".into(), "b".into()], &[bucket.period], T0, T0 + 1).await.unwrap();
    assert_eq!(open.lives[0].moments, [Some(moments(&[2.0])), Some(moments(&[2.0, 2.0]))]);
    let aside: Vec<String> = redis::cmd("HVALS").arg(keys::aside(0)).query(&mut raw).unwrap();
    assert_eq!(aside, ["not a state"]);
}

/// The script is the store's own guard: it also refuses a sum that is not finite.
#[test]
fn the_script_refuses_what_is_no_longer_exact() {
    let huge = raw([1.0, f64::MAX, 0.0, 1.0, 0.0, 1.0, 1.0]);
    let negative = raw([1.0, f64::MIN, 0.0, 1.0, 0.0, 1.0, 1.0]);
    let huge_square = raw([1.0, 1.0, 0.0, f64::MAX, 0.0, 1.0, 1.0]);
    let count = raw([9_007_199_254_740_992.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
    let vector = |x| state(ORDER_2, 2, &[1.0, x, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    let two = raw([2.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
    let pairs = [
        (huge.clone(), huge),
        (negative.clone(), negative),
        (huge_square.clone(), huge_square),
        (count, two),
        (vector(f64::MAX), vector(f64::MAX)),
    ];
    assert_eq!(merge_in_lua(&pairs), vec![None; pairs.len()]);
}

/// Sums as additions leave them: `lo` is at most half a unit in the last place of `hi`.
fn pair() -> impl Strategy<Value = [f64; 2]> {
    (any::<f64>().prop_filter("finite and far from overflow", |x| x.abs() < 1e290), -1.0..1.0f64).prop_map(
        |(hi, part)| {
            let half_unit = (hi.next_up() - hi) / 2.0;
            [hi, half_unit * part]
        },
    )
}

fn random_state(profile: u8, d: usize) -> impl Strategy<Value = Vec<u8>> {
    let pairs = d + d * (d + 1) / 2;
    let value = -1e12..1e12f64;
    let parts = (
        0u32..1_000_000,
        vec(pair(), pairs),
        vec(value.clone(), 2 * d),
        vec(pair(), 2 * d),
        vec(value, 1 + d),
        proptest::collection::btree_map(-1_000..1_000i32, 1u32..1_000, 0..12),
    );
    parts.prop_map(move |(count, sums, extremes, powers, latest, counts)| {
        let mut doubles = vec![f64::from(count)];
        doubles.extend(sums.concat());
        doubles.extend(extremes);
        if profile & POWERS != 0 {
            doubles.extend(powers.concat());
        }
        if profile & LATEST != 0 {
            doubles.extend(latest);
        }
        if profile & SPARSE != 0 {
            doubles.push(counts.len() as f64);
            doubles.extend(counts.iter().flat_map(|(i, n)| [f64::from(*i), f64::from(*n)]));
        }
        state(profile, d as u16, &doubles)
    })
}

#[test]
fn random_states() {
    let mut runner = TestRunner::default();
    let shapes = prop_oneof![
        3 => Just((ORDER_2, 1usize)),
        1 => (0u8..8, 1usize..=3).prop_map(|(rest, d)| (ORDER_2 | rest << 1, d)),
    ];
    let pairs = shapes.prop_flat_map(|(profile, d)| (random_state(profile, d), random_state(profile, d)));
    let pairs: Vec<Pair> = (0..RANDOM_PAIRS)
        .map(|_| pairs.new_tree(&mut runner).expect("nothing is filtered for long").current())
        .collect();
    assert!(check_pairs(&pairs).iter().all(Option::is_some), "every one of these merges");
}
