//! The commands: what is said of each, and the table of all. Both protocols, the worker, the statistics and `COMMAND`
//! read it. What they do is in [`commands`](crate::commands), the rows of a family beside its functions.
//!
//! - `spec` what a row says; below everything else
//! - `row` a row with the function that runs the command on a shard
//! - `table` all rows, found by their names; on top of everything but the shard

pub(crate) mod row;
pub(crate) mod spec;
pub(crate) mod table;

pub use spec::{Command, Flags, Group, Keys, Library, Merge, Run, Server, TextForm, Topic};
pub use table::{TABLE, call, combine, find, find_full, resolve, rows, subcommands, usage};
