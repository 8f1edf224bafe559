//! One shard of the keyspace: a pure state machine. Requests go in, replies and [`Change`]s come out.
//!
//! It does no I/O, reads no clock, starts no thread and draws no random numbers: time and seeds are arguments.

#![forbid(unsafe_code)]

mod arena;
mod change;
pub mod command;
mod commands;
mod entry;
mod error;
mod expiry;
mod glob;
mod integer;
mod keyspace;
mod locks;
mod reply;
mod request;
mod shard;
mod stats;

pub use change::{Change, Changes, MalformedChange, decode};
pub use command::Command;
pub use error::Error;
pub use locks::{LockKeys, LockTable, Waiter};
pub use reply::Reply;
pub use request::{Dialect, Request, Span};
pub use shard::{Shard, VALUE_LEN_MAX};
pub use stats::Stats;
