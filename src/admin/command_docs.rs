//! `COMMAND`: the table of commands, as clients ask for it; and `HELP` of the text protocol, as people do.

use std::borrow::Cow;

use shard::command::{self, Flags, Group, Keys, Run};
use shard::{Command, Error, Glob, Reply, Request};

use super::vocabulary::known;
use super::{arguments, key_specs, unknown_subcommand};

/// The version of kvlite that had every command of the table first.
const FIRST_VERSION: &str = "0.1.0";

/// The errors of `COMMAND GETKEYS`.
const INVALID_COMMAND: Error = Error::OutOfRange("Invalid command specified");
const NO_KEYS: Error = Error::OutOfRange("The command has no key arguments");
const INVALID_NUMBER: Error = Error::OutOfRange("Invalid number of arguments specified for command");
const INVALID_ARGUMENTS: Error = Error::OutOfRange("Invalid arguments specified for command");

/// The answer to `HELP` behind a command that has subcommands.
pub(super) fn help(command: &Command) -> Reply<'static> {
    let title = format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", command.name);
    let rows = command::subcommands(command).iter();
    let listed = rows.flat_map(|row| [command::call(row), format!("    {}.", row.summary)]);
    let help = ["HELP".to_owned(), "    Prints this help.".to_owned()];
    Reply::Array([title].into_iter().chain(listed).chain(help).map(line).collect())
}

/// `HELP [command [subcommand]]`, for people: what a command does and how it is called, or which there are.
pub(super) fn help_for_people(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    let words: Vec<&[u8]> = request.args().collect();
    if words.is_empty() {
        let lines = Group::ALL.iter().filter_map(|group| {
            let names: Vec<_> =
                command::TABLE.iter().filter(|row| row.group == *group).map(|row| row.name).collect();
            (!names.is_empty()).then(|| line(format!("{}: {}", group.name(), names.join(" "))))
        });
        let how = line("HELP command, or HELP command subcommand, says more");
        return Ok(Reply::Array(lines.chain([how]).collect()));
    }
    let row = command::find_full(&words.join(&b'|')).ok_or(INVALID_COMMAND)?;
    let container = row.container.map_or(String::new(), |container| format!("{container} "));
    let mut lines = vec![format!("{container}{}", command::call(row)), format!("{}.", row.summary)];
    if !row.complexity.is_empty() {
        lines.push(format!("Time: {}", row.complexity));
    }
    let examples = row.example.lines().filter(|line| !line.starts_with("resp: "));
    lines.extend(examples.map(|line| format!("  {line}")));
    Ok(Reply::Array(lines.into_iter().map(line).collect()))
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

/// `COMMAND LIST`: the names of all commands and their subcommands, or of those that a filter lets through.
pub(super) fn list(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    let rows = command::TABLE.iter().flat_map(|row| std::iter::once(row).chain(command::subcommands(row)));
    let names =
        |rows: Vec<&'static Command>| Reply::Array(rows.iter().map(|row| text(row.full_name())).collect());
    if request.arg_count() == 0 {
        return Ok(names(rows.collect()));
    }
    if request.arg_count() != 3 || !request.arg(0).eq_ignore_ascii_case(b"FILTERBY") {
        return Err(Error::Syntax);
    }
    let wanted = request.arg(2).to_ascii_lowercase();
    match request.arg(1).to_ascii_uppercase().as_slice() {
        b"MODULE" => Ok(Reply::Array(Vec::new())), // Of no module there is any.
        b"ACLCAT" => {
            let is_in =
                |row: &&Command| categories(row).iter().any(|category| category.as_bytes()[1..] == wanted);
            Ok(names(rows.filter(is_in).collect()))
        }
        b"PATTERN" => {
            let glob = Glob::new(&wanted)?;
            Ok(names(rows.filter(|row| glob.matches(row.full_name().as_bytes())).collect()))
        }
        _ => Err(Error::Syntax),
    }
}

/// The request behind `COMMAND GETKEYS`, if its command has keys and takes so many arguments.
fn inner<'r>(request: &Request<'r>) -> Result<Request<'r>, Error> {
    let mut inner = request.args_from(1, usize::MAX);
    inner.command = command::find(request.arg(0)).ok_or(INVALID_COMMAND)?;
    let inner = match command::resolve(inner).map_err(unknown_subcommand) {
        Ok(inner) => inner,
        Err(Reply::Error(_)) => return Err(INVALID_COMMAND),
        Err(_) => return Err(NO_KEYS), // It asks for help.
    };
    let row = inner.command;
    if !row.keys.any() {
        return Err(NO_KEYS);
    }
    if !(row.args_min..=row.args_max).contains(&inner.arg_count()) {
        return Err(INVALID_NUMBER);
    }
    match (inner.keys().next(), row.keys) {
        (None, Keys::Range { .. }) => Err(INVALID_ARGUMENTS),
        _ => Ok(inner),
    }
}

/// `COMMAND GETKEYS`.
pub(super) fn keys(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    let inner = inner(request)?;
    Ok(Reply::Array(inner.keys().map(|key| Reply::Bulk(Cow::Owned(key.to_vec()))).collect()))
}

/// `COMMAND GETKEYSANDFLAGS`.
pub(super) fn keys_and_flags(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    let inner = inner(request)?;
    let found = key_specs::find(&inner);
    let pairs = found.into_iter().map(|(key, flags)| {
        let flags = flags.into_iter().map(Reply::Simple).collect();
        Reply::Array(vec![Reply::Bulk(Cow::Owned(key.to_vec())), Reply::Set(flags)])
    });
    Ok(Reply::Array(pairs.collect()))
}

/// The categories of a command for access rules, as Redis derives them: from its flags and its group, and of some
/// commands what Redis says of them besides.
fn categories(row: &Command) -> Vec<&'static str> {
    const KEYS_ALL: [&str; 2] = ["@keyspace", "@dangerous"];
    let mut categories = Vec::new();
    let mut add = |category: &'static str, is: bool| {
        if is && !categories.contains(&category) {
            categories.push(category);
        }
    };
    let name = row.full_name();
    let is_container = !command::subcommands(row).is_empty() && row.args_min > 0;
    let extra: &[&str] = match name.as_str() {
        "dbsize" => &KEYS_ALL[..1],
        "flushall" | "flushdb" | "swapdb" => &KEYS_ALL,
        "info" | "keys" | "restore" | "sort" | "sort_ro" => &KEYS_ALL[1..],
        "lastsave" | "role" => &["@admin", "@dangerous"],
        "wait" | "waitaof" => &["@connection"],
        name if name == "command" || name.starts_with("command|") => &["@connection"],
        _ => &[],
    };
    add("@keyspace", row.group == Group::Generic && !is_container && !name.starts_with("wait"));
    extra.iter().filter(|category| **category == "@keyspace").for_each(|category| add(category, true));
    add(
        "@read",
        (row.has(Flags::READONLY) || row.has(Flags::SHOWN_AS_READ)) && row.group != Group::Scripting,
    );
    add("@write", row.has(Flags::WRITE) && !row.has(Flags::SHOWN_AS_READ));
    add("@string", row.group == Group::String);
    add("@bitmap", row.group == Group::Bitmap);
    add("@hyperloglog", row.group == Group::Hyperloglog);
    add("@pubsub", row.flags.names().any(|flag| flag == "pubsub"));
    add("@admin", row.has(Flags::ADMIN));
    extra.iter().filter(|category| **category == "@admin").for_each(|category| add(category, true));
    add("@fast", row.has(Flags::FAST));
    add("@slow", !row.has(Flags::FAST));
    add("@blocking", row.flags.names().any(|flag| flag == "blocking"));
    add("@dangerous", row.has(Flags::ADMIN));
    add("@connection", row.group == Group::Connection && !is_container);
    add("@transaction", row.group == Group::Transactions);
    add("@scripting", row.group == Group::Scripting && !is_container);
    extra.iter().for_each(|category| add(category, true));
    categories
}

/// A command as `COMMAND INFO` describes it: name, arity with the name counted (negative: at least), flags, first
/// key, last key, step, categories, tips, key specifications, and its subcommands.
pub(crate) fn command_info(row: &Command) -> Reply<'static> {
    // The names of a command and of its container count as arguments.
    let arity = row.args_min as i64 + if row.container.is_some() { 2 } else { 1 };
    let [first, last, step] = match row.group {
        Group::Pubsub => key_specs::range(row), // Shard channels are shown as keys are.
        _ => row.keys.as_redis_shows_them(),
    };
    // Behind the name of a container everything stands one place further.
    let (first, last) = match (row.container, first, last) {
        (Some(_), 1.., 1..) => (first + 1, last + 1),
        (Some(_), 1.., _) => (first + 1, last),
        _ => (first, last),
    };
    let tips = known(&row.full_name()).map_or("", |known| known.tips);
    let movable =
        matches!(row.keys, Keys::Numbered { .. } | Keys::NumberedPairs { .. }).then_some("movablekeys");
    let of_scripts: &[&str] =
        if row.run == Run::Script { &["skip_monitor", "no_mandatory_keys"] } else { &[] };
    Reply::Array(vec![
        text(row.full_name()),
        Reply::Integer(if row.args_min == row.args_max { arity } else { -arity }),
        Reply::Set(
            row.flags.names().chain(of_scripts.iter().copied()).chain(movable).map(Reply::Simple).collect(),
        ),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        Reply::Set(categories(row).into_iter().map(Reply::Simple).collect()),
        Reply::Set(tips.split_whitespace().map(text).collect()),
        key_specs::shown(row),
        match command::subcommands(row) {
            [] => Reply::Set(Vec::new()), // As in Redis.
            rows => Reply::Array(rows.iter().map(command_info).collect()),
        },
    ])
}

/// The reply to `COMMAND DOCS` about these commands.
pub(crate) fn command_docs<'a>(rows: impl IntoIterator<Item = &'a Command>) -> Reply<'static> {
    Reply::Map(rows.into_iter().map(|row| (row.full_name().into(), docs_of(row))).collect())
}

fn docs_of(row: &Command) -> Reply<'static> {
    let since = known(&row.full_name()).map_or(FIRST_VERSION, |known| known.since);
    // redis-cli crashes where a command has no group.
    let mut docs = vec![
        ("summary".into(), text(row.summary)),
        ("since".into(), text(since)),
        ("group".into(), text(row.group.name())),
    ];
    if !row.complexity.is_empty() {
        docs.push(("complexity".into(), text(row.complexity)));
    }
    let subcommands = command::subcommands(row);
    if subcommands.is_empty() && !row.usage.is_empty() {
        docs.push(("arguments".into(), arguments::shown(row)));
    }
    if !subcommands.is_empty() {
        docs.push(("subcommands".into(), command_docs(subcommands)));
    }
    Reply::Map(docs)
}

fn line(line: impl Into<Cow<'static, str>>) -> Reply<'static> {
    Reply::Line(line.into())
}

fn text(text: impl Into<String>) -> Reply<'static> {
    Reply::Bulk(Cow::Owned(text.into().into_bytes()))
}
