//! What the commands do, one file a family: its rows in the command table, the functions that a shard runs, and the
//! transcripts that show what they answer and what they write to the log. A new command is added in its family's file.

mod analytics;
mod bits;
mod connection;
mod counters;
mod deadline;
mod expiry;
mod generic;
mod lcs;
mod pubsub;
mod server;
mod strings;

#[cfg(test)]
pub(crate) mod transcript;

use crate::command::row::Row;

/// The rows of every family.
pub(crate) const FAMILIES: [&[Row]; 10] = [
    analytics::ROWS,
    bits::ROWS,
    connection::ROWS,
    counters::ROWS,
    expiry::ROWS,
    generic::ROWS,
    lcs::ROWS,
    pubsub::ROWS,
    server::ROWS,
    strings::ROWS,
];
