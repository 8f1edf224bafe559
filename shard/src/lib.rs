//! One shard of the keyspace: a pure state machine. Requests go in, replies and [`Change`]s come out.
//!
//! It does no I/O, reads no clock, starts no thread and draws no random numbers: time and seeds are arguments.

#![forbid(unsafe_code)]

mod change;
pub mod command;
mod commands;
mod error;
mod reply;
mod request;

pub use change::{Change, Changes, MalformedChange, decode};
pub use command::Command;
pub use error::Error;
pub use reply::Reply;
pub use request::{Dialect, Request, Span};

/// Shard
#[derive(Debug)]
pub struct Shard {}

impl Shard {
    /// Runs one request on this shard's keys.
    pub fn execute<'s>(&'s mut self, request: &Request<'_>, now_ms: u64, changes: &mut Changes) -> Reply<'s> {
        match request.command.run {
            command::Run::Key(f) | command::Run::Keys(f, _) | command::Run::EveryShard(f, _) => f(self, request, now_ms, changes),
            command::Run::Server(_) => unreachable!("the server answers {}", request.command.name),
        }
    }
}
