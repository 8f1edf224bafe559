//! The real server on a disk that fails while it runs, in ways that no other test can have: errors of single
//! operations, syncs that fail and lose what they should have kept, writes and syncs that hang, torn writes.
//!
//! The disk is a file system of this process. Where FUSE cannot be mounted (it takes `/dev/fuse` and root, or the
//! program `fusermount3`), every test here says so aloud on standard error and passes.
//!
//! Variables for the run, besides `KVLITE_TEST_SERVER` and `KVLITE_TEST_SEED`:
//!
//! - `KVLITE_CRASH_ROUNDS=N` runs N rounds of the campaign, with the seeds from the first one on.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

// What the tests stand on.
mod disk; // the disk that fails
#[path = "../harness/mod.rs"]
mod harness; // one server, its clients, choices that can be repeated
use harness::{client, http, process, random, service_manager, words};
#[path = "../crash/load.rs"]
#[allow(dead_code)] // Power cuts of a whole machine use the rest.
mod load; // writers, and what a server may hold of what they wrote
mod rig; // a server on that disk
#[path = "../crash/rounds.rs"]
#[allow(dead_code)] // The shards here are always two.
mod rounds; // how often, with which seeds
#[path = "../crash/slots.rs"]
mod slots; // keys that lie on different shards

// The faults.
mod hangs; // writes and syncs that do not come back
mod storms; // any of them, at any time, under load
mod syncs; // a sync that fails, and what it loses
mod writes; // errors of writing, creating, allocating; short and torn writes
