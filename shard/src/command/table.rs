//! The command table: the rows of all families, in the order of their names, and how a name finds its row.

use super::row::{Function, Row, Runs};
use super::spec::{Command, Place};
use crate::combine::{Combined, Held, Terms};
use crate::commands::FAMILIES;
use crate::context::Context;
use crate::error::Error;
use crate::reply::Reply;
use crate::request::Request;

/// Every command, sorted by name.
pub static TABLE: &[Command] = ROWS.split_at(COMMAND_COUNT).0;

/// The rows of all commands and of all subcommands, each at its [index](Command::index).
pub fn rows() -> &'static [Command] {
    &ROWS
}

const COMMAND_COUNT: usize = {
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
};

const ROW_COUNT: usize = {
    let (mut count, mut family) = (COMMAND_COUNT, 0);
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            count += FAMILIES[family][row].subcommands.len();
            row += 1;
        }
        family += 1;
    }
    count
};

/// All commands in the order of their names; behind them the subcommands, those of a command side by side.
static ROWS: [Command; ROW_COUNT] = {
    let mut commands = [Command::OF_KEY; ROW_COUNT];
    let mut index = 0;
    while index < ROW_COUNT {
        commands[index] = SORTED[index].command;
        index += 1;
    }
    commands
};

/// What runs the command of each row.
static FUNCTIONS: [Function; ROW_COUNT] = {
    let mut functions: [Function; ROW_COUNT] = [of_server; ROW_COUNT];
    let mut index = 0;
    while index < ROW_COUNT {
        match SORTED[index].runs {
            Runs::OnShard(function) => functions[index] = function,
            Runs::Combining(_) => functions[index] = combine_here,
            Runs::OnServer => {}
        }
        index += 1;
    }
    functions
};

fn of_server<'s>(_context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    unreachable!("the server answers {}", request.command.full_name())
}

/// A command that combines what keys hold, all of which lie on one shard.
fn combine_here<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    context.combine(request, combine)
}

/// What a command answers that [combines](Run::Combine) what its keys hold, and what it does to them. `held` is what
/// they hold, in the order in which the request names them.
///
/// # Errors
/// The request is refused; it does nothing then.
///
/// # Panics
/// If the command is of another kind.
pub fn combine(request: &Request<'_>, held: &[Option<Held<'_>>], terms: &Terms) -> Result<Combined, Error> {
    let Runs::Combining(combine) = SORTED[request.command.index()].runs else {
        unreachable!("{} is run in another way", request.command.full_name())
    };
    combine(request, held, terms)
}

static SORTED: [Row; ROW_COUNT] = {
    assert!(ROW_COUNT < NO_ROW as usize);
    let mut rows = [super::row::on_server(Command::OF_KEY); ROW_COUNT];
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            let mut place = count;
            while place > 0 && is_before(FAMILIES[family][row].command.name, rows[place - 1].command.name) {
                rows[place] = rows[place - 1];
                place -= 1;
            }
            rows[place] = FAMILIES[family][row];
            count += 1;
            row += 1;
        }
        family += 1;
    }
    let mut index = 0;
    while index < COMMAND_COUNT {
        let subcommands = rows[index].subcommands;
        rows[index].command.place = Place {
            index: index as u16,
            first_subcommand: count as u16,
            subcommand_count: subcommands.len() as u16,
        };
        let mut subcommand = 0;
        while subcommand < subcommands.len() {
            rows[count] = subcommands[subcommand];
            rows[count].command.container = Some(rows[index].command.name);
            rows[count].command.place =
                Place { index: count as u16, first_subcommand: 0, subcommand_count: 0 };
            count += 1;
            subcommand += 1;
        }
        index += 1;
    }
    rows
};

const fn is_before(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut index = 0;
    while index < left.len() && index < right.len() {
        if left[index] != right[index] {
            return left[index] < right[index];
        }
        index += 1;
    }
    left.len() < right.len()
}

/// The row of the command with this name, in any case.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    if name.is_empty() {
        return None;
    }
    let mut place = index_place(name);
    loop {
        let row = TABLE.get(usize::from(INDEX[place]))?;
        if row.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(row);
        }
        place = (place + 1) % INDEX_LEN;
    }
}

/// The row of the command, or of the subcommand, with this [full name](Command::full_name), in any case.
pub fn find_full(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|byte| *byte == b'|') {
        None => find(name),
        Some(at) => subcommand(find(&name[..at])?, &name[at + 1..]),
    }
}

/// The request with the row of its subcommand and the arguments behind that, if its command has subcommands and it has
/// arguments; else as it is.
///
/// # Errors
/// [`Error::UnknownSubcommand`]
#[inline]
pub fn resolve<'a>(request: Request<'a>) -> Result<Request<'a>, Error> {
    let command = request.command;
    if command.place.subcommand_count == 0 || request.arg_count() == 0 {
        return Ok(request);
    }
    let name = request.arg(0);
    let row =
        subcommand(command, name).ok_or_else(|| Error::UnknownSubcommand { command, name: name.into() })?;
    Ok(request.subcommand(row))
}

/// The row of the subcommand with this name, in any case.
fn subcommand(command: &Command, name: &[u8]) -> Option<&'static Command> {
    subcommands(command).iter().find(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

/// The arguments of a command as the documentation shows them; of a container its subcommands with theirs.
pub fn usage(command: &Command) -> String {
    let subcommands = subcommands(command);
    if subcommands.is_empty() {
        return command.usage.to_owned();
    }
    let listed: Vec<_> = subcommands.iter().map(call).collect();
    let listed = listed.join(" | ");
    if command.args_min == 0 { format!("[{listed}]") } else { listed }
}

/// Name and arguments.
pub fn call(command: &Command) -> String {
    format!("{} {}", command.name, usage(command)).trim_end().to_owned()
}

/// The rows of the subcommands of a command.
pub fn subcommands(command: &Command) -> &'static [Command] {
    let Place { first_subcommand, subcommand_count, .. } = command.place;
    &ROWS[usize::from(first_subcommand)..][..usize::from(subcommand_count)]
}

/// The function that runs a command on a shard; it panics if the server answers the command.
#[inline]
pub(crate) fn function(command: &Command) -> Function {
    FUNCTIONS[usize::from(command.place.index)]
}

/// At least four times as many places as commands: most names are found at their first place.
const INDEX_LEN: usize = (4 * COMMAND_COUNT).next_power_of_two();
const NO_ROW: u16 = u16::MAX;

/// The row of each place; a place that is taken passes a name on to the next one.
static INDEX: [u16; INDEX_LEN] = {
    let mut index = [NO_ROW; INDEX_LEN];
    let mut row = 0;
    while row < COMMAND_COUNT {
        let mut place = index_place(SORTED[row].command.name.as_bytes());
        while index[place] != NO_ROW {
            place = (place + 1) % INDEX_LEN;
        }
        index[place] = row as u16;
        row += 1;
    }
    index
};

/// Where the row of a name is first looked for: four of its bytes, without their case, and its length, mixed.
const fn index_place(name: &[u8]) -> usize {
    const CASELESS: u32 = 0xdfdf_dfdf;
    let len = name.len();
    let bytes = [name[0], name[len / 4], name[len / 2], name[len - 1]];
    let mixed = (u32::from_le_bytes(bytes) & CASELESS ^ len as u32).wrapping_mul(0x9e37_79b9);
    mixed as usize >> (u32::BITS - INDEX_LEN.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::spec::{Flags, Keys, Run, Server};
    use crate::request::Span;

    #[test]
    fn the_table_is_sorted_by_unique_names_in_capitals() {
        let is_name =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase() || b"-._".contains(&byte));
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
        for row in TABLE {
            let subcommands = subcommands(row);
            assert!(subcommands.is_sorted_by(|a, b| a.name < b.name), "{}", row.name);
            assert!(is_name(row.name) && subcommands.iter().all(|row| is_name(row.name)));
        }
    }

    #[test]
    fn every_row_is_found_in_any_case() {
        for row in TABLE {
            assert_eq!(find(row.name.as_bytes()), Some(row));
            assert_eq!(find(row.name.to_lowercase().as_bytes()), Some(row));
            let mixed: String = row
                .name
                .chars()
                .zip(0..)
                .map(|(c, i)| if i % 2 == 0 { c } else { c.to_ascii_lowercase() })
                .collect();
            assert_eq!(find(mixed.as_bytes()), Some(row));
        }
    }

    #[test]
    fn nothing_else_is_found() {
        for name in ["", " ", "GE", "GETT", "GET ", "\u{7}ET", "GETSETGETSETGETSET", "\0"] {
            assert_eq!(find(name.as_bytes()), None, "{name:?}");
        }
    }

    #[test]
    fn subcommands_are_found_behind_their_containers() {
        let config_get = find_full(b"Config|get").unwrap();
        assert_eq!((config_get.full_name().as_str(), config_get.args_min), ("config|get", 1));
        assert_eq!(find_full(b"dbsize"), find(b"DBSIZE"));
        for name in [&b"config|"[..], b"config|nope", b"get|get", b"|get", b"config|get|get"] {
            assert_eq!(find_full(name), None);
        }
        let (memory, buffer) = (find(b"MEMORY").unwrap(), b"usageab");
        let spans = [(0, 5), (5, 1), (6, 1)].map(|(start, len)| Span { start, len });
        let asked = |count| resolve(Request::new(memory, buffer, &spans[..count]));
        let request = asked(2).unwrap();
        assert_eq!((request.command.full_name().as_str(), request.arg(0)), ("memory|usage", &b"a"[..]));
        assert_eq!(asked(0).unwrap().command, memory);
        let unknown = resolve(Request::new(memory, buffer, &spans[1..]));
        let name = b"a"[..].into();
        assert_eq!(unknown.map(|_| ()), Err(Error::UnknownSubcommand { command: memory, name }));
        assert_eq!(usage(memory), "DOCTOR | MALLOC-STATS | PURGE | STATS | USAGE key [SAMPLES count]");
        assert_eq!(usage(find(b"COMPACT").unwrap()), "[WHEN]");
    }

    #[test]
    fn commands_that_redis_has_are_in_its_groups_and_all_others_are_known() {
        let groups = [
            ("connection", "AUTH CLIENT ECHO HELLO PING QUIT RESET SELECT"),
            (
                "generic",
                "COPY DEL DUMP EXISTS EXPIRE EXPIREAT EXPIRETIME KEYS MOVE OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PTTL",
            ),
            ("generic", "RANDOMKEY RENAME RENAMENX RESTORE SCAN TOUCH TTL TYPE UNLINK WAIT WAITAOF"),
            (
                "server",
                "BGREWRITEAOF BGSAVE COMMAND CONFIG DBSIZE DEBUG FLUSHALL FLUSHDB INFO LASTSAVE LATENCY",
            ),
            (
                "server",
                "LOLWUT MEMORY MONITOR PSYNC REPLCONF REPLICAOF ROLE SAVE SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC TIME",
            ),
            ("hyperloglog", "PFADD PFCOUNT PFDEBUG PFMERGE PFSELFTEST"),
            ("scripting", "EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO FUNCTION SCRIPT"),
            ("transactions", "DISCARD EXEC MULTI UNWATCH WATCH"),
            ("bitmap", "BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS GETBIT SETBIT"),
            (
                "pubsub",
                "PSUBSCRIBE PUBLISH PUBSUB PUNSUBSCRIBE SPUBLISH SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE",
            ),
            (
                "string",
                "APPEND DECR DECRBY GET GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT LCS MGET MSET MSETNX",
            ),
            ("string", "PSETEX SET SETEX SETNX SETRANGE STRLEN SUBSTR"),
        ];
        let own = "ANALYTICS ANALYZE ANOMALIES BACKUP CACHE-ADVICE CLEAR COLDKEYS COMPACT DELETE DELIFEQ HEALTH HELP HOTKEYS \
                   KVLITE.SYNC MDEL MSETEX PREFIXES STATS SUGGEST-TTL";
        let mut known: Vec<_> = own.split(' ').collect();
        for (group, names) in groups {
            for name in names.split(' ') {
                assert_eq!(find(name.as_bytes()).unwrap().group.name(), group, "{name}");
                known.push(name);
            }
        }
        known.sort_unstable();
        assert_eq!(TABLE.iter().map(|row| row.name).collect::<Vec<_>>(), known);
    }

    #[test]
    fn rows_agree_with_themselves() {
        for (index, row) in rows().iter().enumerate() {
            let name = row.full_name();
            assert_eq!(row.index(), index, "{name}");
            assert!(row.args_min <= row.args_max, "{name}");
            assert!(row.rest_of_line.is_none_or(|index| index < row.args_max), "{name}");
            assert!(row.positive_arg.is_none_or(|index| index < row.args_min), "{name}");
            let keys = row.keys.range(row.args_min, |_| b"0").0.len();
            assert!(
                keys > 0
                    || matches!(row.keys, Keys::None | Keys::Numbered { .. } | Keys::NumberedPairs { .. }),
                "{name}"
            );
            let is_of_server = matches!(row.run, Run::Server(_) | Run::Script);
            assert_eq!(matches!(SORTED[index].runs, Runs::OnServer), is_of_server, "{name}");
            assert_eq!(matches!(SORTED[index].runs, Runs::Combining(_)), row.run == Run::Combine, "{name}");
            assert_eq!(
                row.keys == Keys::None,
                !matches!(row.run, Run::Key | Run::Keys(_) | Run::Combine | Run::Script)
                    && row.name != "WATCH",
                "{name}"
            );
            assert!(!row.has(Flags::WRITE.with(Flags::READONLY)), "{name}");
            assert!(is_of_server || row.has(Flags::WRITE) || row.has(Flags::READONLY), "{name}");
            assert!(!row.has(Flags::STORES_ARG) || row.has(Flags::WRITE) && row.run == Run::Key, "{name}");
            assert!(!row.summary.is_empty() && !row.summary.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn every_command_has_an_example_of_its_own() {
        for row in rows() {
            let name = row.full_name().replace('|', " ").to_uppercase();
            let is_asked = |line: &str| {
                let line = line.strip_prefix("resp: ").unwrap_or(line);
                line.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            };
            // What a container answers without a subcommand is that it needs one.
            let does_nothing = row.run == Run::Server(Server::Container);
            assert_eq!(row.example.lines().any(is_asked), !does_nothing, "{name}: {:?}", row.example);
            assert_eq!(row.complexity.is_empty(), does_nothing, "{name}: {:?}", row.complexity);
        }
    }
}
