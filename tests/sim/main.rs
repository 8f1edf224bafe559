//! The simulation: a shard and its log, driven as the server's worker drives them, on a disk in memory that
//! loses power and fails, at a time that jumps; every reply and every recovered state is compared with a
//! model.
//!
//! Nothing here does real I/O, reads a clock or draws a random number but the first fresh seed and the tags of layouts,
//! on which nothing else depends. A failure prints the seed and the step, and
//! `KVLITE_SIM_SEED=<seed> cargo test --test sim <test>` repeats it. Each run takes the same seeds as the one before,
//! and as many fresh ones, from a number on that it prints. `KVLITE_SIM_SEEDS=<count>` runs so many of either sort in
//! place of the 80 that a usual run takes; tests that usually take fewer do so then.

// Clippy takes only functions marked as tests for tests; this whole program is one.
#![allow(clippy::unwrap_used)]

/// Seeds, and what is drawn from them.
mod dice;

/// Sums of floats by exact fractions.
mod floats;

/// What a shard has to be.
mod model;

/// Random requests, good and bad ones.
mod requests;

/// A shard and its log in the hands of a worker.
mod worker;

/// Lives of a worker, ended in every way there is.
mod lives;

/// Logs that were cut, and logs with a flipped bit.
mod damage;

/// From one number of shards to another, and the marking of what a crash cut short, stopped at every operation.
mod layouts;

/// Several shards and the commands over them, with a crash at every operation of the disk.
mod shards;

/// A wall clock that is set, suspended machines, restarts.
mod clocks;

/// Walks through a keyspace that grows and shrinks meanwhile.
mod walks;
