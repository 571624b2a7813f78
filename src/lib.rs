//! `meanwhile`: exact statistics per source and time bucket, folded as the readings arrive.
//!
//! The modules point one way, down this list; nothing imports upwards. ARCHITECTURE.md tells the
//! life of a reading through them.

pub mod cli;

pub mod app;

pub mod http;

pub mod live;

pub mod errorlog;
pub mod ingest;
pub mod nodes;
pub mod query;
pub mod rollover;

pub mod auth;
pub mod sink;
pub mod store;

pub mod incidents;

pub mod clock;
pub mod config;
pub mod failpoint;
pub mod mutant;
pub mod telemetry;

pub mod stats;
