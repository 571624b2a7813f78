//! The pure core: what a statistic is, what a bucket is, and how their bytes look.
//!
//! Nothing here awaits, does I/O, reads a clock or logs; everything above imports this and it
//! imports nothing of the crate.

pub mod calendar;
pub mod compare;
pub mod complete;
pub mod distributions;
pub mod double_double;
pub mod glob;
pub mod layout;
pub mod moments;
pub mod policy;
pub mod row;
pub mod rules;
pub mod source;
pub mod timestamp;
pub mod vectors;

/// A point in time or a span, in milliseconds (points: since 1970-01-01T00:00:00Z).
pub type Millis = i64;
