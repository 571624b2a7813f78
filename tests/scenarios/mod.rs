//! What readers of the classic articles on statistics in Redis and on Socket.IO behind nginx know, run against this
//! service: each scenario starts real servers, tells what happens in plain words, and is a test.
//!
//! `make scenarios N=3` runs one and prints its story, `make scenarios` all. README.md has the list; the scripts and the
//! files of proxies that stand beside it can be taken and run by hand. Part of the binary `tests/it`.

mod s1_classic_script;
mod s2_plain_client;
mod s3_two_paths;
mod s4_session_unknown;
mod s5_group;
mod s6_connections;
mod s7_one_port;
mod s8_errors;
mod s9_midnight;
mod stage;
