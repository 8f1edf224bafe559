//! One shard of the keyspace: a pure state machine. Requests go in, replies and [`Change`]s come out.
//!
//! It does no I/O, reads no clock, starts no thread and draws no random numbers: time and seeds are
//! arguments. In reading order:
//!
//! - `command` what is said of each command, and the table of all, which every other part of the server reads, too
//! - `commands` the families of commands: their rows, what they do, and the transcripts that show it
//! - `context` what a command works with: look-ups, changes, time
//! - `combine` the commands that read some keys and change others, for one shard and for several
//! - `databases` which keyspaces there are, and which database each of them is
//! - `shard` [`Shard`]: executes requests, applies changes, expires, walks
//! - `store` the table of keys, and where names, values and deadlines lie in memory
//! - `analytics` [`Analytics`](analytics::Analytics): how the keys are used, and what to do about it
//! - `auto_ttl` the TTL of keys that are written without one
//! - `clock` the clocks that deadlines go by
//! - `events` what happens to keys, for those who want to be told
//! - `change` what goes to the log; `request`, `reply`, `error`, `stats` what goes in and out
//! - `scan` a walk over the keys in slices, which shows those that match a pattern
//! - `room` whether memory for a large copy can be had
//! - `hyperloglog` values that count distinct elements
//! - `payload`, `lzf` a value by itself, as Redis puts it into `DUMP`
//! - `glob`, `integer`, `long_double` how patterns and numbers are read

#![forbid(unsafe_code)]

pub mod analytics;
pub mod auto_ttl;
mod change;
pub mod clock;
pub mod combine;
pub mod command;
mod commands;
mod context;
mod databases;
mod error;
mod events;
mod glob;
mod hyperloglog;
mod integer;
mod long_double;
pub mod lzf;
mod payload;
mod reply;
mod request;
mod room;
mod scan;
mod shard;
mod stats;
mod store;
pub mod timestamp;

pub use auto_ttl::AutoTtl;
pub use change::{Change, Changes, KeyspaceNumbers, MalformedChange, Mark, Touched, VALUE_LEN_MAX, decode};
pub use clock::Clocks;
pub use command::Command;
pub use databases::{DATABASES_DEFAULT, DATABASES_MAX, parse_database};
pub use error::{Error, InsufficientData};
pub use events::{Event, EventClasses};
pub use glob::{Glob, Matching, PATTERN_LEN_MAX};
pub use hyperloglog::passes_self_test as hyperloglog_passes_self_test;
pub use integer::parse as parse_integer;
pub use reply::Reply;
pub use request::{OwnedRequest, Request, SHARED_LEN_MIN, Span};
pub use room::{PROBED_BYTES_MIN, has_room_for};
pub use scan::Scan;
pub use shard::Shard;
pub use stats::{DatabaseStats, Stats};
