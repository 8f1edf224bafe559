//! Damages data directories that real servers have written, in every way, and demands that nothing is ever silently
//! wrong: a start that serves has all that was noted as safe; else it refuses, changes nothing and says why; `kvlite
//! check`, the start and `kvlite repair` agree.
//!
//! A case is one kind of damage, now and then two, to one kind of file or directory of one specimen. Some hundreds run
//! here, and as many as one likes with `make damage DAMAGE_CASES=10000`. A failed case prints the command that repeats
//! it, and leaves the directory as it was before and after the damage. Seeds repeat the choices, not the timing: where
//! a server was killed in the middle of commands, a failed case may need several runs.
//!
//! Variables, besides `KVLITE_TEST_SERVER`:
//!
//! - `KVLITE_DAMAGE_CASES=N` runs N cases.
//! - `KVLITE_TEST_SEED=N` takes the specimens from seed N on.
//! - `KVLITE_DAMAGE_CASE=N` runs only the N-th case of the first specimen.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

#[path = "../harness/mod.rs"]
mod harness; // one server, its clients, choices that can be repeated
use harness::{client, process, random, words};
#[path = "../crash/mount.rs"]
#[allow(dead_code)] // Disks are not filled here.
mod mount; // a file system that loses its power

mod campaign; // all cases, and what became of them
mod harm; // what can happen to a file or directory
mod ledger; // what was written, and what may be left of it
mod program; // the program under test on a directory
mod specimen; // directories to be damaged
mod verdicts; // what is demanded of a damaged directory
