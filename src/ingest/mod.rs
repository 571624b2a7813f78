//! The way of a reading from the wire into the store: decode, fold, commit.
//!
//! `decode/` reads one wire format per file, `fold.rs` turns readings into deltas, `commit.rs`
//! brings the deltas into the store, many requests at a time. HTTP is in `http/`.

pub mod commit;
pub mod decode;
pub mod fold;
