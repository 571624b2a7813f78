//! The integration tests, in one binary: it links once, and this list is the map of what is tested.

mod events;
mod exact_rows;
mod http;
mod oracle;
mod postgres_server;
mod postgres_world;
mod raw;
mod seeded;
mod senders;
mod servers;
mod service;
mod sink_files;
mod sockets;
mod world;

// The service from the outside: HTTP, the commands, the files of the sink.
mod addresses;
mod admission;
mod bad_input;
mod commands;
mod comparing;
mod configuration;
mod connections;
mod container;
mod copying;
mod corrections;
mod crashes;
mod crowds;
mod documents;
mod drain;
mod encrypted;
mod encrypted_stores;
mod errors;
mod failpoints;
mod first_steps;
mod forgetting;
mod gaps;
mod hostile;
mod imports;
mod late;
mod limits;
mod live;
mod moving;
mod mutants;
mod nodes;
mod operations;
mod origins;
mod outages;
mod page;
mod patterns;
mod postgres_held_up;
mod postgres_service;
mod prefixes;
mod proxies;
mod refusing;
mod replicas;
mod retention;
mod retries;
mod rights;
mod ruling;
mod sample_data;
mod smuggling;
mod socketio;
mod summary;
mod systemd;
mod tokens;
mod undone;
mod vectors;
mod verifying;
mod version;
mod watching;
mod ways_in;
mod weather;
mod year;

// What readers of the classic articles know, told while it runs: tests/scenarios/README.md.
#[path = "../scenarios/mod.rs"]
mod scenarios;

// The store contract: each promise, random schedules, and the bytes of merged states.
mod contract;
mod golden;
mod model;

// The sink contract: each promise, for CSV and for PostgreSQL, and what only PostgreSQL can do to it.
mod postgres_faults;
mod postgres_refused;
mod postgres_rows;
mod postgres_schema;
mod silence;
mod sink_contract;

// From requests to frames and from frames to rows, against stores and sinks that fail in every way.
mod backlog;
mod commit;
mod draining;
mod groups;
mod rollover;
mod trickle;
mod unreliable;

// Arbitrary input for everything that reads what comes from outside.
mod fuzz;

// The rules of the house.
mod tidy;
