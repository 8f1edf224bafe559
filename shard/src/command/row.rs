//! A row of a family of commands: what is said of the command, and the function that runs it.

use super::spec::{Command, Run};
use crate::combine::Combine;
use crate::context::Context;
use crate::error::Error;
use crate::reply::Reply;
use crate::request::Request;

/// Runs a command on the shard that owns its keys. The table has checked the number of arguments. A function that
/// refuses a request has changed nothing.
pub(crate) type Function = for<'s> fn(Context<'s, '_>, &Request<'_>) -> Result<Reply<'s>, Error>;

/// What a family of commands adds to the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) command: Command,
    pub(crate) runs: Runs,
    pub(crate) subcommands: &'static [Row],
}

/// What runs a command.
#[derive(Clone, Copy)]
pub(crate) enum Runs {
    /// A function, on the shard that owns its keys.
    OnShard(Function),
    /// A pure function, on the shard that owns its keys or in a transaction over several.
    Combining(Combine),
    /// The server, outside the keyspace.
    OnServer,
}

/// A command that a shard runs.
pub(crate) const fn on_shard(function: Function, command: Command) -> Row {
    Row { command, runs: Runs::OnShard(function), subcommands: &[] }
}

/// A command that reads what its keys hold, and changes them by what it reads.
pub(crate) const fn combining(combine: Combine, command: Command) -> Row {
    Row {
        command: Command { run: Run::Combine, ..command },
        runs: Runs::Combining(combine),
        subcommands: &[],
    }
}

/// A command that the server answers.
pub(crate) const fn on_server(command: Command) -> Row {
    Row { command, runs: Runs::OnServer, subcommands: &[] }
}

/// A command with subcommands, in the order of their names. Without one the server answers it, if it takes no
/// arguments.
pub(crate) const fn container(command: Command, subcommands: &'static [Row]) -> Row {
    Row { command, runs: Runs::OnServer, subcommands }
}
