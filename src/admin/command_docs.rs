//! `COMMAND`: the table of commands, as clients ask for it.

use std::borrow::Cow;

use shard::command;
use shard::{Command, Error, Reply, Request};

/// The version of kvlite that had every command of the table first.
const FIRST_VERSION: &str = "0.1.0";

/// The answer to `HELP` behind a command that has subcommands.
pub(super) fn help(command: &Command) -> Reply<'static> {
    let title = format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", command.name);
    let rows = command::subcommands(command).iter();
    let listed = rows.flat_map(|row| [command::call(row), format!("    {}.", row.summary)]);
    let help = ["HELP".to_owned(), "    Prints this help.".to_owned()];
    Reply::Array([title].into_iter().chain(listed).chain(help).map(text).collect())
}

/// The reply to `COMMAND`, and to `COMMAND INFO` without names.
pub(super) fn all_infos() -> Reply<'static> {
    Reply::Array(command::TABLE.iter().map(command_info).collect())
}

/// `COMMAND INFO`.
pub(super) fn infos(request: &Request<'_>) -> Reply<'static> {
    if request.arg_count() == 0 {
        return all_infos();
    }
    let infos = request.args().map(|name| command::find_full(name).map_or(Reply::Nil, command_info));
    Reply::Array(infos.collect())
}

/// `COMMAND DOCS`.
pub(super) fn docs(request: &Request<'_>) -> Reply<'static> {
    if request.arg_count() == 0 {
        return command_docs(command::TABLE);
    }
    command_docs(request.args().filter_map(command::find_full))
}

/// `COMMAND LIST`: the names of all commands and their subcommands.
pub(super) fn list(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    if request.arg_count() > 0 {
        return Err(Error::Syntax);
    }
    let rows = command::TABLE.iter().flat_map(|row| std::iter::once(row).chain(command::subcommands(row)));
    Ok(Reply::Array(rows.map(|row| text(row.full_name())).collect()))
}

/// A command as `COMMAND INFO` describes it: name, arity with the name counted (negative: at least), flags, first
/// key, last key, step, three lists (categories, tips, key specifications) that are empty here, and its subcommands.
pub(crate) fn command_info(row: &Command) -> Reply<'static> {
    // The names of a command and of its container count as arguments.
    let arity = row.args_min as i64 + if row.container.is_some() { 2 } else { 1 };
    let [first, last, step] = row.keys.as_redis_shows_them();
    // Behind the name of a container everything stands one place further.
    let (first, last) = match (row.container, first, last) {
        (Some(_), 1.., 1..) => (first + 1, last + 1),
        (Some(_), 1.., _) => (first + 1, last),
        _ => (first, last),
    };
    let empty = || Reply::Array(Vec::new());
    Reply::Array(vec![
        text(row.full_name()),
        Reply::Integer(if row.args_min == row.args_max { arity } else { -arity }),
        Reply::Array(row.flags.names().map(Reply::Simple).collect()),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        empty(),
        empty(),
        empty(),
        Reply::Array(command::subcommands(row).iter().map(command_info).collect()),
    ])
}

/// The reply to `COMMAND DOCS` about these commands.
pub(crate) fn command_docs<'a>(rows: impl IntoIterator<Item = &'a Command>) -> Reply<'static> {
    Reply::Map(rows.into_iter().map(|row| (row.full_name().into(), docs_of(row))).collect())
}

fn docs_of(row: &Command) -> Reply<'static> {
    // redis-cli crashes where a command has no group.
    let mut docs = vec![
        ("summary".into(), text(row.summary)),
        ("since".into(), text(FIRST_VERSION)),
        ("group".into(), text(row.group.name())),
        ("usage".into(), text(command::usage(row))),
    ];
    let subcommands = command::subcommands(row);
    if !subcommands.is_empty() {
        docs.push(("subcommands".into(), command_docs(subcommands)));
    }
    Reply::Map(docs)
}

fn text(text: impl Into<String>) -> Reply<'static> {
    Reply::Bulk(Cow::Owned(text.into().into_bytes()))
}
