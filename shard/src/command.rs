//! The command table: one row a command. Both protocols, the router, the statistics and `COMMAND` read it.

use crate::{Changes, Reply, Request, Shard, commands};

/// Runs a command on the shard that owns its keys: reads and writes the keyspace, puts what it changed
/// into `changes`. `now_ms` is the time since the Unix epoch in milliseconds.
pub type ShardFn =
    for<'s> fn(shard: &'s mut Shard, request: &Request<'_>, now_ms: u64, changes: &mut Changes) -> Reply<'s>;

/// One row of the command table.
#[derive(Debug)]
pub struct Command {
    /// The name in capitals.
    pub name: &'static str,
    /// The least number of arguments, without the name.
    pub args_min: usize,
    /// The greatest number of arguments, without the name.
    pub args_max: usize,
    /// Which arguments are keys.
    pub keys: Keys,
    /// What it does to the state.
    pub access: Access,
    /// Who runs it, and how the answers of several shards become one.
    pub run: Run,
    /// How the text protocol shows its reply where that differs from the plain form.
    pub text_form: TextForm,
    /// The text protocol takes the rest of the line, blanks included, as this argument.
    pub rest_of_line: Option<usize>,
    /// What it needs, in the words of the text protocol's error: `SET requires key and value`.
    pub needs: &'static str,
    /// The arguments, as the help and the documentation show them.
    pub usage: &'static str,
    /// What it does, in one sentence without a full stop.
    pub summary: &'static str,
}

impl Command {
    /// Whether it runs while the keys are still being read back from the disk: it is about the connection or the
    /// server, and needs neither keys nor files.
    pub fn runs_while_loading(&self) -> bool {
        use Server::{Client, Config, Echo, Health, Hello, Info, Lastsave, Ping, Quit, Reset, Select, Stats};
        let Run::Server(server) = self.run else { return false };
        let of_connection = matches!(server, Client | Echo | Hello | Ping | Quit | Reset | Select);
        of_connection || matches!(server, Server::Command | Config | Health | Info | Lastsave | Stats)
    }

    /// To which of Redis' groups of commands it belongs; `redis-cli` and others look commands up by them.
    pub fn group(&self) -> &'static str {
        use Server::{Client, Echo, Hello, Keys, Ping, Quit, Reset, Scan, Select, Waitaof};
        match self.run {
            Run::Server(Client | Echo | Hello | Ping | Quit | Reset | Select) => "connection",
            Run::Server(Keys | Scan | Waitaof) => "generic",
            Run::Server(_) | Run::EveryShard(..) => "server",
            Run::Key(_) | Run::Keys(..) => match self.name {
                "ANALYZE" | "DEL" | "DELETE" | "EXISTS" | "EXPIRE" | "MDEL" | "PERSIST" | "PTTL" | "TTL" => {
                    "generic"
                }
                _ => "string",
            },
        }
    }

    /// Whether it runs for a client that is between `MULTI` and `EXEC`.
    pub fn runs_in_multi(&self) -> bool {
        matches!(self.run, Run::Server(Server::Quit | Server::Reset))
    }
}

impl PartialEq for Command {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name // The name is the table's key.
    }
}

/// Which arguments of a command are keys: every `step`-th from `first` to the end, or only `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Index of the first key among the arguments.
    pub first: usize,
    /// Distance between keys; 0 for one key only.
    pub step: usize,
    /// Whether there are keys at all.
    pub any: bool,
}

impl Keys {
    /// The command has no keys.
    pub const NONE: Keys = Keys { first: 0, step: 0, any: false };
    /// The first argument is the only key.
    pub const ONE: Keys = Keys { first: 0, step: 0, any: true };
    /// Every argument is a key.
    pub const ALL: Keys = Keys { first: 0, step: 1, any: true };
    /// Keys and values in turn.
    pub const PAIRS: Keys = Keys { first: 0, step: 2, any: true };

    /// The index behind the last argument that may be a key, of `arg_count` arguments.
    pub fn end(self, arg_count: usize) -> usize {
        match (self.any, self.step) {
            (false, _) => 0,
            (true, 0) => arg_count.min(self.first + 1),
            (true, _) => arg_count,
        }
    }
}

/// What a command does to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads keys.
    Read,
    /// May change keys.
    Write,
    /// Touches no key: the connection, the server, its files.
    Admin,
}

/// Who runs a command.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// The shard that owns its key; all keys lie on one shard.
    Key(ShardFn),
    /// The shards that own its keys, each with its part; the parts' answers are merged.
    Keys(ShardFn, Merge),
    /// Every shard; the answers are merged.
    EveryShard(ShardFn, Merge),
    /// The server, outside the keyspace.
    Server(Server),
}

/// How the answers of several shards become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Each is an integer: their sum.
    Sum,
    /// Each is an array with one item a key: the items in the order of the request's keys.
    ByKey,
    /// Each is `Ok`.
    AllOk,
}

/// The commands that the server answers outside the keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each is named as its command, whose row says what it does.
pub enum Server {
    Analytics,
    Backup,
    Bgrewriteaof,
    Bgsave,
    Client,
    Command,
    Compact,
    Config,
    Echo,
    Health,
    Hello,
    Info,
    Keys,
    Lastsave,
    Memory,
    Ping,
    Quit,
    Replication,
    Reset,
    Save,
    Scan,
    Select,
    Stats,
    Sync,
    Waitaof,
}

/// How the text protocol shows a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    /// As every reply of its kind.
    Plain,
    /// For one key: `+OK` for 1, `-ERR key not found` for 0. For several keys: the number.
    OkOrNotFound,
    /// A map as `+OK name=value name=value`.
    Fields,
    /// Of every map in a list its first field, which is a text, as a line; of none, that nothing is unusual.
    Sentences,
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

/// Several times as many places as rows: most names are found at their first place.
const INDEX_LEN: usize = 512;
const NO_ROW: u8 = u8::MAX;

/// The row of each place; a place that is taken passes a name on to the next one.
static INDEX: [u8; INDEX_LEN] = {
    assert!(TABLE.len() < NO_ROW as usize);
    let mut index = [NO_ROW; INDEX_LEN];
    let mut row = 0;
    while row < TABLE.len() {
        let mut place = index_place(TABLE[row].name.as_bytes());
        while index[place] != NO_ROW {
            place = (place + 1) % INDEX_LEN;
        }
        index[place] = row as u8;
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
    mixed as usize >> 23
}

/// Arguments without a bound of their own; the protocols bound a request.
const MANY: usize = usize::MAX;

macro_rules! rows {
    ($($name:literal $min:literal..$max:tt $keys:ident $access:ident $run:expr, $form:ident, $rest:expr, $needs:literal, $usage:literal, $summary:literal;)*) => {
        &[$(Command {
            name: $name,
            args_min: $min,
            args_max: $max,
            keys: Keys::$keys,
            access: Access::$access,
            run: $run,
            text_form: TextForm::$form,
            rest_of_line: $rest,
            needs: $needs,
            usage: $usage,
            summary: $summary,
        }),*]
    };
}

/// Every command, sorted by name.
#[rustfmt::skip] // One row a command.
pub static TABLE: &[Command] = rows![
    "ANALYTICS" 1..1   NONE  Admin Run::Server(Server::Analytics), Fields, None, "STATUS or RESET", "STATUS | RESET", "Tells how much is known of the use of the keys, or forgets it";
    "ANALYZE"  1..1    ONE   Read  Run::Key(commands::analyze), Fields, None, "key", "key", "Tells how a key has been used";
    "ANOMALIES" 0..0   NONE  Read  Run::Server(Server::Analytics), Sentences, None, "no arguments", "", "Tells which rates, ratios and keys are not as usual, and since when";
    "APPEND"   2..2    ONE   Write Run::Key(commands::append), Plain, Some(1), "key and value", "key value", "Appends bytes to the value of a key and returns the new length";
    "BACKUP"   1..1    NONE  Admin Run::Server(Server::Backup), Fields, Some(0), "path", "path", "Copies all shards as of one moment below --backup-dir, and returns once that is on disk";
    "BGREWRITEAOF" 0..0 NONE Admin Run::Server(Server::Bgrewriteaof), Plain, None, "no arguments", "", "Begins what COMPACT does and returns at once";
    "BGSAVE"   0..1    NONE  Admin Run::Server(Server::Bgsave), Plain, None, "at most SCHEDULE", "[SCHEDULE]", "Begins what COMPACT does and returns at once";
    "CACHE-ADVICE" 0..0 NONE Read  Run::Server(Server::Analytics), Plain, None, "no arguments", "", "Tells the hit ratio to expect with less and with more memory";
    "CLEAR"    0..1    NONE  Write Run::EveryShard(commands::clear, Merge::AllOk), Plain, None, "no arguments", "", "Removes every key";
    "CLIENT"   1..MANY NONE  Admin Run::Server(Server::Client), Plain, None, "a subcommand", "SETNAME name | GETNAME | ID | SETINFO attribute value | INFO | LIST", "Names and describes this connection, or lists all";
    "COLDKEYS" 1..2    NONE  Read  Run::Server(Server::Analytics), Plain, None, "seconds", "seconds [count]", "Lists the largest keys that nobody has used for so long";
    "COMMAND"  0..MANY NONE  Admin Run::Server(Server::Command), Plain, None, "no arguments", "[COUNT | DOCS [name ...] | INFO [name ...] | LIST]", "Describes the commands of the server";
    "COMPACT"  0..1    NONE  Admin Run::Server(Server::Compact), Fields, None, "at most WHEN", "[WHEN]", "Writes a snapshot of every shard and drops the log that it replaces, or says when that will happen";
    "CONFIG"   1..MANY NONE  Admin Run::Server(Server::Config), Plain, None, "GET and an option", "GET option [option ...] | SET auto-ttl pairs", "Shows the options of the server, or changes the one that can change";
    "DBSIZE"   0..0    NONE  Read  Run::EveryShard(commands::dbsize, Merge::Sum), Plain, None, "no arguments", "", "Returns the number of keys";
    "DECR"     1..1    ONE   Write Run::Key(commands::decr), Plain, None, "key", "key", "Subtracts one from the integer value of a key";
    "DECRBY"   2..2    ONE   Write Run::Key(commands::decrby), Plain, None, "key and decrement", "key decrement", "Subtracts a number from the integer value of a key";
    "DEL"      1..MANY ALL   Write Run::Keys(commands::del, Merge::Sum), OkOrNotFound, None, "key", "key [key ...]", "Removes keys and returns how many there were";
    "DELETE"   1..MANY ALL   Write Run::Keys(commands::del, Merge::Sum), OkOrNotFound, None, "key", "key [key ...]", "Removes keys and returns how many there were";
    "ECHO"     1..1    NONE  Admin Run::Server(Server::Echo), Plain, Some(0), "message", "message", "Returns its argument";
    "EXISTS"   1..MANY ALL   Read  Run::Keys(commands::exists, Merge::Sum), Plain, None, "key", "key [key ...]", "Returns how many of the keys exist";
    "EXPIRE"   2..MANY ONE   Write Run::Key(commands::expire), Plain, None, "key and seconds", "key seconds [NX | XX | GT | LT]", "Sets the time to live of a key in seconds";
    "FLUSHALL" 0..MANY NONE  Write Run::EveryShard(commands::clear, Merge::AllOk), Plain, None, "no arguments", "[ASYNC | SYNC]", "Removes every key";
    "FLUSHDB"  0..MANY NONE  Write Run::EveryShard(commands::clear, Merge::AllOk), Plain, None, "no arguments", "[ASYNC | SYNC]", "Removes every key";
    "GET"      1..1    ONE   Read  Run::Key(commands::get), Plain, None, "key", "key", "Returns the value of a key";
    "HEALTH"   0..0    NONE  Admin Run::Server(Server::Health), Plain, None, "no arguments", "", "Returns the state of the server as a line of JSON";
    "HELLO"    0..MANY NONE  Admin Run::Server(Server::Hello), Plain, None, "a protocol version", "[2 | 3 [SETNAME name]]", "Switches the protocol version and describes the server";
    "HOTKEYS"  0..MANY NONE  Read  Run::Server(Server::Analytics), Plain, None, "at most a count", "[count] [BY reads | writes | bytes] [TOTAL] [EXPLAIN]", "Lists the keys that are used most";
    "INCR"     1..1    ONE   Write Run::Key(commands::incr), Plain, None, "key", "key", "Adds one to the integer value of a key";
    "INCRBY"   2..2    ONE   Write Run::Key(commands::incrby), Plain, None, "key and increment", "key increment", "Adds a number to the integer value of a key";
    "INFO"     0..MANY NONE  Admin Run::Server(Server::Info), Fields, None, "no arguments", "[section ...]", "Describes the server and its counters";
    "KEYS"     1..1    NONE  Read  Run::Server(Server::Keys), Plain, None, "pattern", "pattern", "Returns the keys that match a glob pattern";
    "KVLITE.SYNC" 0..0 NONE  Admin Run::Server(Server::Sync), Plain, None, "no arguments", "", "Returns once everything acknowledged before it is on disk";
    "LASTSAVE" 0..0    NONE  Admin Run::Server(Server::Lastsave), Plain, None, "no arguments", "", "Returns the Unix time of the last snapshot of all shards, or of the start";
    "MDEL"     1..MANY ALL   Write Run::Keys(commands::del, Merge::Sum), Plain, None, "at least one key", "key [key ...]", "Removes keys and returns how many there were";
    "MEMORY"   1..4    NONE  Admin Run::Server(Server::Memory), Fields, None, "STATS, or USAGE and a key", "STATS | USAGE key [SAMPLES count]", "Tells what the memory is used for, or how much of it a key takes";
    "MGET"     1..MANY ALL   Read  Run::Keys(commands::mget, Merge::ByKey), Plain, None, "at least one key", "key [key ...]", "Returns the values of keys, all of the same moment";
    "MSET"     2..MANY PAIRS Write Run::Keys(commands::mset, Merge::AllOk), Plain, None, "key value pairs", "key value [key value ...]", "Sets keys, all at the same moment";
    "PERSIST"  1..1    ONE   Write Run::Key(commands::persist), Plain, None, "key", "key", "Removes the time to live of a key";
    "PING"     0..1    NONE  Admin Run::Server(Server::Ping), Plain, Some(0), "at most one message", "[message]", "Returns PONG, or its argument";
    "PREFIXES" 0..1    NONE  Read  Run::Server(Server::Analytics), Plain, None, "at most a count", "[count]", "Lists the classes of keys, such as user:*, with their size and use";
    "PSYNC"    2..MANY NONE  Admin Run::Server(Server::Replication), Plain, None, "a replication id and an offset", "replicationid offset", "Is refused: there is no replication yet";
    "PTTL"     1..1    ONE   Read  Run::Key(commands::pttl), Plain, None, "key", "key", "Returns the time to live of a key in milliseconds";
    "QUIT"     0..MANY NONE  Admin Run::Server(Server::Quit), Plain, None, "no arguments", "", "Closes the connection";
    "REPLCONF" 0..MANY NONE  Admin Run::Server(Server::Replication), Plain, None, "no arguments", "[option value ...]", "Is refused: there is no replication yet";
    "RESET"    0..0    NONE  Admin Run::Server(Server::Reset), Plain, None, "no arguments", "", "Takes the connection back to the state of a new one";
    "SAVE"     0..0    NONE  Admin Run::Server(Server::Save), Plain, None, "no arguments", "", "Writes a snapshot of every shard and drops the log that it replaces";
    "SCAN"     1..MANY NONE  Read  Run::Server(Server::Scan), Plain, None, "cursor", "cursor [MATCH pattern] [COUNT count] [TYPE type]", "Returns some keys and the cursor at which to go on";
    "SELECT"   1..1    NONE  Admin Run::Server(Server::Select), Plain, None, "database index", "0", "Selects the database, of which there is one";
    "SET"      2..MANY ONE   Write Run::Key(commands::set), Plain, Some(1), "key and value", "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | KEEPTTL]", "Sets the value of a key";
    "SETEX"    3..3    ONE   Write Run::Key(commands::setex), Plain, Some(2), "key, seconds and value", "key seconds value", "Sets the value of a key with a time to live in seconds";
    "SETNX"    2..2    ONE   Write Run::Key(commands::setnx), Plain, Some(1), "key and value", "key value", "Sets the value of a key that does not exist yet";
    "STATS"    0..0    NONE  Admin Run::Server(Server::Stats), Fields, None, "no arguments", "", "Returns the counters of the server";
    "STRLEN"   1..1    ONE   Read  Run::Key(commands::strlen), Plain, None, "key", "key", "Returns the length of the value of a key in bytes";
    "SUGGEST-TTL" 1..MANY NONE Read Run::Server(Server::Analytics), Plain, None, "key", "key | CLASS name [TARGET share] [EXPLAIN] [APPLY]", "Suggests a time to live in seconds that keeps most re-accesses hits";
    "SYNC"     0..0    NONE  Admin Run::Server(Server::Sync), Plain, None, "no arguments", "", "Does what KVLITE.SYNC does, on the text port only: replicas of Redis mean another thing by it";
    "TTL"      1..1    ONE   Read  Run::Key(commands::ttl), Plain, None, "key", "key", "Returns the time to live of a key in seconds";
    "WAITAOF"  3..3    NONE  Admin Run::Server(Server::Waitaof), Plain, None, "numlocal, numreplicas and timeout", "numlocal numreplicas timeout", "Returns once everything acknowledged before it is on disk, or the timeout in milliseconds is over";
];

/// What runs `MEMORY USAGE`, whose arguments begin behind that word: unlike its container, it has a key.
pub static MEMORY_USAGE: Command = Command {
    name: "MEMORY USAGE",
    args_min: 1,
    args_max: 3,
    keys: Keys::ONE,
    access: Access::Read,
    run: Run::Key(commands::memory_usage),
    text_form: TextForm::Plain,
    rest_of_line: None,
    needs: "key",
    usage: "key [SAMPLES count]",
    summary: "Tells how many bytes of memory a key takes",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_by_unique_names_in_capitals() {
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
        assert!(
            TABLE
                .iter()
                .all(|row| row.name.bytes().all(|byte| byte.is_ascii_uppercase() || b"-.".contains(&byte)))
        );
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
    fn commands_that_redis_has_are_in_its_groups() {
        let groups = [
            ("connection", "CLIENT ECHO HELLO PING QUIT RESET SELECT"),
            ("generic", "DEL EXISTS EXPIRE KEYS PERSIST PTTL SCAN TTL WAITAOF"),
            (
                "server",
                "BGREWRITEAOF BGSAVE COMMAND CONFIG DBSIZE FLUSHALL FLUSHDB INFO LASTSAVE MEMORY PSYNC",
            ),
            ("server", "REPLCONF SAVE SYNC"),
            ("string", "APPEND DECR DECRBY GET INCR INCRBY MGET MSET SET SETEX SETNX STRLEN"),
        ];
        for (group, names) in groups {
            for name in names.split(' ') {
                assert_eq!(find(name.as_bytes()).unwrap().group(), group, "{name}");
            }
        }
    }

    #[test]
    fn rows_agree_with_themselves() {
        for row in TABLE {
            assert!(row.args_min <= row.args_max, "{}", row.name);
            assert!(row.rest_of_line.is_none_or(|index| index < row.args_max), "{}", row.name);
            assert!(row.keys == Keys::NONE || row.args_min > row.keys.first, "{}", row.name);
            assert_eq!(
                row.access == Access::Admin,
                matches!(row.run, Run::Server(_)) && row.access != Access::Read
            );
            assert!(!row.summary.is_empty() && !row.summary.ends_with('.'), "{}", row.name);
        }
    }
}
