//! The bytes of a state: the one layout shared by Redis, the embedded store and the sinks.
//!
//! A state is a 4-byte header and little-endian doubles. The header is `version: u8`,
//! `profile: u8`, `dimension: u16`; profile and dimension say which elements follow, in this order:
//!
//! | bit | elements | doubles | merge |
//! |---|---|---|---|
//! | 1 | count; sums of x; sums of the upper triangle of x xT; min; max | 1 + 2d + d(d+1) + d + d | add; double-double add; min; max |
//! | 2 | sums of x^3 and x^4 | 4d | double-double add |
//! | 4 | latest: time, then the values | 1 + d | the later time wins, then the greater values |
//! | 8 | sparse counts: n, then n pairs (index, count), indices rising | 1 + 2n | counts of equal indices add |
//!
//! [`Moments`] is profile 1: with d = 1 of numbers, 60 bytes, the fast case here and in
//! `store/lua/merge.lua`, which does the same operations in the same order; else of vectors. Other
//! profiles are not produced; they merge already, so that higher powers need no change of the stores.

use super::double_double::DoubleDouble;
use super::moments::Moments;
use super::vectors::{LENGTHS, Vectors};
use std::cmp::Ordering;
use std::ops::Deref;

/// Raised when the meaning of the bytes changes; stores refuse states of another version.
pub const VERSION: u8 = 1;
/// Profile bits, see the table above.
pub const ORDER_2: u8 = 1;
pub const POWERS: u8 = 2;
pub const LATEST: u8 = 4;
pub const SPARSE: u8 = 8;

/// Components of a vector reading: 2,144 pairs of sums at 64 keep a state below 40 kB.
pub const MAX_DIMENSION: u16 = 64;

const HEADER_BYTES: usize = 4;
/// Doubles of a scalar state.
pub const SCALAR_DOUBLES: usize = 7;
/// Bytes of a scalar state: above 60 Redis needs 164 instead of 148 bytes per source.
pub const SCALAR_BYTES: usize = HEADER_BYTES + 8 * SCALAR_DOUBLES;
const SCALAR_HEADER: [u8; HEADER_BYTES] = header(ORDER_2, 1);

/// The four bytes before the doubles.
#[must_use]
pub const fn header(profile: u8, dimension: u16) -> [u8; HEADER_BYTES] {
    let d = dimension.to_le_bytes();
    [VERSION, profile, d[0], d[1]]
}

/// Why bytes are not a state that can be read or merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("state has {0} bytes, which is not what its header says")]
    Length(usize),
    #[error("state has the unknown header {0:02x?}")]
    Header([u8; HEADER_BYTES]),
    #[error("states of different shapes cannot be merged: {0:02x?} and {1:02x?}")]
    Shapes([u8; HEADER_BYTES], [u8; HEADER_BYTES]),
}

/// The bytes of a state; those of a scalar need no memory of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    Scalar([u8; SCALAR_BYTES]),
    Vector(Vec<u8>),
}

impl Deref for Encoded {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Scalar(bytes) => bytes,
            Self::Vector(bytes) => bytes,
        }
    }
}

/// The bytes of moments.
#[must_use]
pub fn encode(moments: &Moments) -> Encoded {
    if let Some(vector) = &moments.vector {
        return Encoded::Vector(state_bytes(header(ORDER_2, vector.length() as u16), vector.doubles()));
    }
    let Moments { count, sum, sum_sq, min, max, .. } = moments;
    let mut bytes = [0; SCALAR_BYTES];
    bytes[..HEADER_BYTES].copy_from_slice(&SCALAR_HEADER);
    let doubles = [*count, sum.hi, sum.lo, sum_sq.hi, sum_sq.lo, *min, *max];
    for (chunk, x) in bytes[HEADER_BYTES..].chunks_exact_mut(8).zip(doubles) {
        chunk.copy_from_slice(&x.to_le_bytes());
    }
    Encoded::Scalar(bytes)
}

fn state_bytes(head: [u8; HEADER_BYTES], doubles: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 8 * doubles.len());
    bytes.extend_from_slice(&head);
    bytes.extend(doubles.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// Moments from their bytes.
///
/// # Errors
/// If the bytes are not a state of this version, or one of more than [`Moments`].
#[expect(clippy::missing_panics_doc, reason = "slices of known length")]
pub fn decode(bytes: &[u8]) -> Result<Moments, LayoutError> {
    if bytes.len() != SCALAR_BYTES || bytes[..HEADER_BYTES] != SCALAR_HEADER {
        return decode_vector(bytes);
    }
    let mut doubles = [0.0; SCALAR_DOUBLES];
    for (x, chunk) in doubles.iter_mut().zip(bytes[HEADER_BYTES..].chunks_exact(8)) {
        *x = f64::from_le_bytes(chunk.try_into().expect("eight bytes"));
    }
    let [count, sum_hi, sum_lo, sq_hi, sq_lo, min, max] = doubles;
    Ok(Moments {
        count,
        sum: DoubleDouble { hi: sum_hi, lo: sum_lo },
        sum_sq: DoubleDouble { hi: sq_hi, lo: sq_lo },
        min,
        max,
        vector: None,
    })
}

fn decode_vector(bytes: &[u8]) -> Result<Moments, LayoutError> {
    let (head, doubles) = parse(bytes)?;
    let length = dimension(head);
    if head[1] != ORDER_2 || !LENGTHS.contains(&length) {
        return Err(LayoutError::Header(head));
    }
    let count = doubles[0];
    Ok(Moments { count, vector: Some(Box::new(Vectors::from_doubles(length, doubles))), ..Moments::EMPTY })
}

/// Numbers per reading that a state says it is of; `None` if its header is not one of [`Moments`].
#[must_use]
pub fn length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEADER_BYTES>()?;
    (head[..2] == SCALAR_HEADER[..2]).then(|| dimension(*head)).filter(|d| *d == 1 || LENGTHS.contains(d))
}

fn dimension([_, _, d0, d1]: [u8; HEADER_BYTES]) -> usize {
    usize::from(u16::from_le_bytes([d0, d1]))
}

/// Doubles of the state of readings of so many numbers.
#[must_use]
pub const fn state_doubles(length: usize) -> usize {
    1 + 4 * length + length * (length + 1)
}

/// Merges two states of the same shape, whatever it is.
///
/// # Errors
/// If either is not a state of this version, or their shapes differ.
pub fn merge(a: &[u8], b: &[u8]) -> Result<Vec<u8>, LayoutError> {
    if (a.len(), b.len()) == (SCALAR_BYTES, SCALAR_BYTES)
        && let (Ok(mut left), Ok(right)) = (decode(a), decode(b))
        && left.try_merge(&right).is_ok()
    {
        return Ok(encode(&left).to_vec());
    }
    let (shape_a, doubles_a) = parse(a)?;
    let (shape_b, doubles_b) = parse(b)?;
    if shape_a != shape_b {
        return Err(LayoutError::Shapes(shape_a, shape_b));
    }
    Ok(state_bytes(shape_a, &merge_doubles(shape_a, &doubles_a, &doubles_b)))
}

/// Merges the doubles of two states of vectors of this length.
pub(super) fn merge_vectors(length: usize, a: &[f64], b: &[f64]) -> Vec<f64> {
    merge_doubles(header(ORDER_2, length as u16), a, b)
}

/// How many doubles a shape has before its sparse part (which is as long as its first double says).
fn fixed_doubles(profile: u8, d: usize) -> usize {
    let part = |bit: u8, doubles: usize| if profile & bit == 0 { 0 } else { doubles };
    part(ORDER_2, state_doubles(d)) + part(POWERS, 4 * d) + part(LATEST, 1 + d)
}

fn parse(bytes: &[u8]) -> Result<([u8; HEADER_BYTES], Vec<f64>), LayoutError> {
    let wrong_length = LayoutError::Length(bytes.len());
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(wrong_length);
    };
    let [version, profile, d0, d1] = *head;
    let d = u16::from_le_bytes([d0, d1]);
    if version != VERSION || profile & ORDER_2 == 0 || profile > 15 || d == 0 || d > MAX_DIMENSION {
        return Err(LayoutError::Header(*head));
    }
    if rest.len() % 8 != 0 {
        return Err(wrong_length);
    }
    let doubles: Vec<f64> =
        rest.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().expect("eight bytes"))).collect();
    let fixed = fixed_doubles(profile, usize::from(d));
    let expected = if profile & SPARSE == 0 {
        Some(fixed)
    } else {
        // A count that is not a small integer cannot match the length.
        doubles.get(fixed).filter(|n| **n >= 0.0 && **n <= 1e6).map(|n| fixed + 1 + 2 * (*n as usize))
    };
    if expected != Some(doubles.len()) {
        return Err(wrong_length);
    }
    Ok((*head, doubles))
}

fn merge_doubles(head: [u8; HEADER_BYTES], a: &[f64], b: &[f64]) -> Vec<f64> {
    let profile = head[1];
    let d = dimension(head);
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let add_pairs = |out: &mut Vec<f64>, pairs: usize| {
        for _ in 0..pairs {
            let i = out.len();
            let sum = DoubleDouble { hi: a[i], lo: a[i + 1] }.add(DoubleDouble { hi: b[i], lo: b[i + 1] });
            out.extend([sum.hi, sum.lo]);
        }
    };
    out.push(a[0] + b[0]);
    add_pairs(&mut out, d + d * (d + 1) / 2);
    for _ in 0..d {
        let i = out.len();
        out.push(if b[i] < a[i] { b[i] } else { a[i] });
    }
    for _ in 0..d {
        let i = out.len();
        out.push(if b[i] > a[i] { b[i] } else { a[i] });
    }
    if profile & POWERS != 0 {
        add_pairs(&mut out, 2 * d);
    }
    if profile & LATEST != 0 {
        let range = out.len()..out.len() + 1 + d;
        let later = b[range.clone()].partial_cmp(&a[range.clone()]) == Some(Ordering::Greater);
        out.extend_from_slice(if later { &b[range] } else { &a[range] });
    }
    if profile & SPARSE != 0 {
        let at = out.len();
        let counts = merge_sparse(&a[at + 1..], &b[at + 1..]);
        out.push((counts.len() / 2) as f64);
        out.extend(counts);
    }
    out
}

/// Merges two lists of (index, count) pairs, both with rising indices.
fn merge_sparse(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::with_capacity(a.len() + b.len());
    while i < a.len() || j < b.len() {
        if j >= b.len() || (i < a.len() && a[i] < b[j]) {
            out.extend_from_slice(&a[i..i + 2]);
            i += 2;
        } else if i >= a.len() || b[j] < a[i] {
            out.extend_from_slice(&b[j..j + 2]);
            j += 2;
        } else {
            out.extend([a[i], a[i + 1] + b[j + 1]]);
            i += 2;
            j += 2;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(profile: u8, d: u16, doubles: &[f64]) -> Vec<u8> {
        state_bytes(header(profile, d), doubles)
    }

    #[test]
    fn a_vector_state_stands_in_the_order_of_the_table() {
        let mut moments = Moments::of_vector(&[1.0, 2.0]);
        moments.push_vector(&[3.0, -5.0]);
        let doubles = [2., 4., 0., -3., 0., 10., 0., -13., 0., 29., 0., 1., -5., 3., 2.];
        let bytes = encode(&moments);
        assert_eq!(bytes[..], state(ORDER_2, 2, &doubles)[..]);
        assert_eq!((decode(&bytes), length(&bytes)), (Ok(moments.clone()), Some(2)));
        let one = encode(&Moments::of_vector(&[1.0, 2.0]));
        let other = encode(&Moments::of_vector(&[3.0, -5.0]));
        assert_eq!(merge(&one, &other), Ok(bytes.to_vec()));
        assert_eq!(decode(&state(ORDER_2 | POWERS, 2, &[0.0; 23])), Err(LayoutError::Header(header(3, 2))));
        assert_eq!(length(b"not a state"), None);
    }

    #[test]
    fn a_scalar_state_is_sixty_bytes_and_reads_back() {
        let mut moments = Moments::of(1.5);
        moments.push(-2.25);
        let bytes = encode(&moments);
        assert_eq!(bytes.len(), 60);
        assert_eq!(decode(&bytes), Ok(moments));
        assert_eq!(length(&bytes), Some(1));
    }

    #[test]
    fn the_generic_path_gives_the_bytes_of_the_scalar_path() {
        let (a, b) = (encode(&Moments::of(0.1)), encode(&Moments::of(1e9 + 0.2)));
        let (_, da) = parse(&a).unwrap();
        let (_, db) = parse(&b).unwrap();
        let generic = state(ORDER_2, 1, &merge_doubles(header(ORDER_2, 1), &da, &db));
        assert_eq!(merge(&a, &b).unwrap(), generic);
    }

    #[test]
    fn every_element_kind_merges() {
        let profile = ORDER_2 | POWERS | LATEST | SPARSE;
        let a = state(profile, 1, &[1., 2., 0., 4., 0., 2., 2., 8., 0., 16., 0., 100., 2., 2., 3., 1., 7., 5.]);
        let b = state(profile, 1, &[1., 3., 0., 9., 0., 3., 3., 27., 0., 81., 0., 200., 3., 1., 7., 2.]);
        let merged = state(profile, 1, &[2., 5., 0., 13., 0., 2., 3., 35., 0., 97., 0., 200., 3., 2., 3., 1., 7., 7.]);
        assert_eq!(merge(&a, &b), Ok(merged.clone()));
        assert_eq!(merge(&b, &a), Ok(merged));
    }

    #[test]
    fn what_is_not_a_state_is_refused() {
        let good = encode(&Moments::of(1.0));
        assert_eq!(merge(&good, &good[..59]), Err(LayoutError::Length(59)));
        assert_eq!(merge(&[], &good), Err(LayoutError::Length(0)));
        let mut other = good.to_vec();
        other[0] = 9;
        assert_eq!(merge(&good, &other), Err(LayoutError::Header([9, 1, 1, 0])));
        let vector = state(ORDER_2, 2, &[0.0; 15]);
        assert_eq!(merge(&good, &vector), Err(LayoutError::Shapes(header(1, 1), header(1, 2))));
        let endless = state(ORDER_2 | SPARSE, 1, &[0., 0., 0., 0., 0., 0., 0., f64::NAN]);
        assert_eq!(merge(&endless, &endless), Err(LayoutError::Length(68)));
    }
}
