//! A row of a family of commands: what is said of the command, and the function that runs it.

use super::spec::Command;
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
    /// `None` for a command that the server answers outside the keyspace.
    pub(crate) function: Option<Function>,
    pub(crate) subcommands: &'static [Row],
}

/// A command that a shard runs.
pub(crate) const fn on_shard(function: Function, command: Command) -> Row {
    Row { command, function: Some(function), subcommands: &[] }
}

/// A command that the server answers.
pub(crate) const fn on_server(command: Command) -> Row {
    Row { command, function: None, subcommands: &[] }
}

/// A command with subcommands, in the order of their names. Without one the server answers it, if it takes no
/// arguments.
pub(crate) const fn container(command: Command, subcommands: &'static [Row]) -> Row {
    Row { command, function: None, subcommands }
}
