//! `COMMAND`: the table of commands, as clients ask for it.

use std::borrow::Cow;

use shard::command;
use shard::{Command, Error, Reply, Request};

/// The version of kvlite that had every command of the table first.
const FIRST_VERSION: &str = "0.1.0";

/// The answer to `HELP` behind a command that has subcommands, whose usage lists them.
pub(super) fn subcommands(command: &Command) -> Reply<'static> {
    let title = format!("{} <subcommand> [<arg> ...]. Subcommands are:", command.name);
    let listed = command.usage.strip_prefix('[').and_then(|usage| usage.strip_suffix(']'));
    let listed = listed.unwrap_or(command.usage).split(" | ").map(str::to_owned);
    let lines = [title].into_iter().chain(listed).chain(["HELP".to_owned()]);
    Reply::Array(lines.map(|line| Reply::Bulk(Cow::Owned(line.into_bytes()))).collect())
}

pub(super) fn describe_commands(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    let table = command::TABLE;
    let Some(subcommand) = request.args().next() else {
        return Ok(Reply::Array(table.iter().map(command_info).collect()));
    };
    let names = request.args().skip(1);
    let lower = |row: &Command| row.name.to_ascii_lowercase();
    match &subcommand.to_ascii_uppercase()[..] {
        b"COUNT" if request.arg_count() > 1 => Err(Error::WrongSubcommandArity(request.command, "count")),
        b"COUNT" => Ok(Reply::Integer(table.len() as i64)),
        b"LIST" if request.arg_count() > 1 => Err(Error::Syntax),
        b"LIST" => Ok(Reply::Array(
            table.iter().map(|row| Reply::Bulk(Cow::Owned(lower(row).into_bytes()))).collect(),
        )),
        b"INFO" if request.arg_count() == 1 => Ok(Reply::Array(table.iter().map(command_info).collect())),
        b"INFO" => {
            Ok(Reply::Array(names.map(|name| command::find(name).map_or(Reply::Nil, command_info)).collect()))
        }
        b"DOCS" => Ok(command_docs(&match request.arg_count() {
            1 => table.iter().collect::<Vec<_>>(),
            _ => names.filter_map(command::find).collect(),
        })),
        _ => Err(Error::UnknownSubcommand { command: request.command, name: subcommand.into() }),
    }
}

/// A command as `COMMAND INFO` describes it: name, arity with the name counted (negative: at least), flags, first
/// key, last key, step, and four lists (categories, tips, key specifications, subcommands) that are empty here.
pub(crate) fn command_info(row: &Command) -> Reply<'static> {
    let arity = row.args_min as i64 + 1;
    let [first, last, step] = row.keys.as_redis_shows_them();
    let name = Reply::Bulk(Cow::Owned(row.name.to_ascii_lowercase().into_bytes()));
    let empty = || Reply::Array(Vec::new());
    Reply::Array(vec![
        name,
        Reply::Integer(if row.args_min == row.args_max { arity } else { -arity }),
        Reply::Array(row.flags.names().map(Reply::Simple).collect()),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        empty(),
        empty(),
        empty(),
        empty(),
    ])
}

/// The reply to `COMMAND DOCS` about these commands.
pub(crate) fn command_docs(rows: &[&Command]) -> Reply<'static> {
    let text = |text: &'static str| Reply::bytes(text.as_bytes());
    // redis-cli crashes where a command has no group.
    let docs = |row: &Command| {
        Reply::Map(vec![
            ("summary".into(), text(row.summary)),
            ("since".into(), text(FIRST_VERSION)),
            ("group".into(), text(row.group.name())),
            ("usage".into(), text(row.usage)),
        ])
    };
    Reply::Map(rows.iter().map(|row| (row.name.to_ascii_lowercase().into(), docs(row))).collect())
}
