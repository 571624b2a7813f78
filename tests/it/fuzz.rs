//! Arbitrary input for everything that reads what comes from outside: nothing panics, nothing depends on
//! where the network cuts it, and what was written reads back.
//!
//! `corpus.rs` makes the input: noise, pieces of the real languages, and the files of tests/corpus with
//! changes; every file there is also read as it is. A case that was ever found wrong becomes such a
//! file. `PROPTEST_CASES=100000 cargo test fuzz::` looks longer, `make fuzz` for a time.

mod bodies;
mod corpus;
mod inside;
mod requests;
mod settings;
mod texts;
