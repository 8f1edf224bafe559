//! Ends the real server in every bad way, again and again, and compares what it holds afterwards with what its
//! clients know: `kill -9`, power cuts, full disks; and what clients saw on the way there with any order in which
//! their commands can have run.
//!
//! Each campaign runs some seconds here, and for as many rounds as one likes with `make crash`. A round prints
//! its seed, its sync mode and its shards; a failed one says what a client knew and what was found, and leaves
//! the data directory. Seeds repeat the choices, not the timing: a failed round may need several runs.
//!
//! Variables for the run, besides `KVLITE_TEST_SERVER` and `KVLITE_TEST_SEED`:
//!
//! - `KVLITE_CRASH_ROUNDS=N` runs N rounds of each campaign, with the seeds from the first one on.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

// What the campaigns stand on.
#[path = "../harness/mod.rs"]
mod harness; // one server, its clients, choices that can be repeated
use harness::{client, process, random, words};
mod load; // writers, and what a server may hold of what they wrote
mod mount; // file systems that can be full, or lose their power
mod order; // whether a history is linearizable
mod rounds; // how often, with which seeds
mod slots; // keys that lie on different shards

// The campaigns.
mod full; // no space is left, then there is again
mod histories; // what clients saw, through kills
mod kills; // kill -9 under load, while compacting, while keys move to other shards
mod power; // what was not synced is gone
