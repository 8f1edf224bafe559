//! What the commands do, one file a family: its rows in the command table, the functions that a shard runs, and the
//! transcripts that show what they answer and what they write to the log. A new command is added in its family's file.

mod analytics;
mod bits;
mod connection;
mod counters;
mod deadline;
mod dump;
mod expiry;
mod generic;
mod hyperloglog;
mod lcs;
mod pubsub;
mod scripting;
mod server;
mod strings;
mod transactions;

#[cfg(test)]
pub(crate) mod transcript;

use crate::command::row::Row;

/// The rows of every family.
pub(crate) const FAMILIES: [&[Row]; 14] = [
    analytics::ROWS,
    bits::ROWS,
    connection::ROWS,
    counters::ROWS,
    dump::ROWS,
    expiry::ROWS,
    generic::ROWS,
    hyperloglog::ROWS,
    lcs::ROWS,
    pubsub::ROWS,
    scripting::ROWS,
    server::ROWS,
    strings::ROWS,
    transactions::ROWS,
];
