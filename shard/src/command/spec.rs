//! What a row of the command table says of a command: its names, arguments, keys, flags and subcommands. It knows no
//! function that runs a command, and no shard.

use crate::integer;

/// One row of the command table.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The name in capitals; of a subcommand the word behind the name of its container.
    pub name: &'static str,
    /// The name of the command whose subcommand this is.
    pub container: Option<&'static str>,
    /// The part of the documentation to which it belongs.
    pub group: Group,
    /// The least number of arguments, without the name.
    pub args_min: usize,
    /// The greatest number of arguments, without the name.
    pub args_max: usize,
    /// Which arguments are keys.
    pub keys: Keys,
    /// What it does, and when it may run.
    pub flags: Flags,
    /// Who runs it, and how the answers of several shards become one.
    pub run: Run,
    /// How the text protocol shows its reply where that differs from the plain form.
    pub text_form: TextForm,
    /// The text protocol takes the rest of the line, blanks included, as this argument.
    pub rest_of_line: Option<usize>,
    /// The text protocol takes no integer below 1 as this argument, which is a time.
    pub positive_arg: Option<usize>,
    /// What it needs, in the words of the text protocol's error: `SET requires key and value`.
    pub needs: &'static str,
    /// The arguments, as the help and the documentation show them; nothing where there are subcommands.
    pub usage: &'static str,
    /// What it does, in one sentence without a full stop.
    pub summary: &'static str,
    /// Requests as the documentation shows them, a line each, the earlier ones to set up what the last ones show. One
    /// behind `resp: ` is for the Redis protocol alone. Empty for a container that does nothing without a subcommand.
    pub example: &'static str,
    /// How the time that it takes grows.
    pub complexity: &'static str,
    /// Its place in the table, and that of its subcommands.
    pub(crate) place: Place,
}

/// Where a row stands in the table; the table fills it in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) index: u16,
    pub(crate) first_subcommand: u16,
    pub(crate) subcommand_count: u16,
}

impl Command {
    /// Arguments without a bound of their own; the protocols bound a request.
    pub const MANY: usize = usize::MAX;

    /// A command of one key without further arguments that its shard runs: what rows say differs from it.
    pub(crate) const OF_KEY: Command = Command {
        name: "",
        container: None,
        group: Group::Generic,
        args_min: 1,
        args_max: 1,
        keys: Keys::ONE,
        flags: Flags::NONE,
        run: Run::Key,
        text_form: TextForm::Plain,
        rest_of_line: None,
        positive_arg: None,
        needs: "key",
        usage: "key",
        summary: "",
        example: "",
        complexity: "",
        place: Place { index: 0, first_subcommand: 0, subcommand_count: 0 },
    };

    /// A command without arguments that the server answers outside the keyspace.
    pub(crate) const fn of_server(server: Server, group: Group) -> Command {
        Command {
            group,
            args_min: 0,
            args_max: 0,
            keys: Keys::None,
            run: Run::Server(server),
            needs: "no arguments",
            usage: "",
            ..Command::OF_KEY
        }
    }

    /// Its place among all rows of the table, subcommands included.
    #[inline]
    pub const fn index(&self) -> usize {
        self.place.index as usize
    }

    /// Whether it has all of these flags.
    #[inline]
    pub const fn has(&self, flags: Flags) -> bool {
        self.flags.0 & flags.0 == flags.0
    }

    /// A container of subcommands, which does nothing without one.
    pub(crate) const fn container(group: Group) -> Command {
        Command {
            args_min: 1,
            args_max: Command::MANY,
            needs: "a subcommand",
            ..Command::of_server(Server::Container, group)
        }
    }

    /// The name in small letters, behind that of the container: `get`, `config|get`.
    pub fn full_name(&self) -> String {
        let container = self.container.map_or(String::new(), |container| format!("{container}|"));
        format!("{container}{}", self.name).to_ascii_lowercase()
    }
}

impl PartialEq for Command {
    fn eq(&self, other: &Self) -> bool {
        // The names are the table's keys.
        self.name == other.name && self.container == other.container
    }
}

/// A part of Redis' documentation; `redis-cli` and others look commands up by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// About the bits of values.
    Bitmap,
    /// About the client's connection.
    Connection,
    /// About keys, whatever their values are.
    Generic,
    /// About values that count distinct things.
    Hyperloglog,
    /// About messages and those who want them.
    Pubsub,
    /// About programs that the server runs.
    Scripting,
    /// About the server and its files.
    Server,
    /// About values that are strings.
    String,
    /// About commands that run as one.
    Transactions,
}

impl Group {
    /// All of them, in the order of their names.
    pub const ALL: [Group; 9] = [
        Group::Bitmap,
        Group::Connection,
        Group::Generic,
        Group::Hyperloglog,
        Group::Pubsub,
        Group::Scripting,
        Group::Server,
        Group::String,
        Group::Transactions,
    ];

    /// The name that `COMMAND DOCS` shows.
    pub fn name(self) -> &'static str {
        match self {
            Group::Bitmap => "bitmap",
            Group::Connection => "connection",
            Group::Generic => "generic",
            Group::Hyperloglog => "hyperloglog",
            Group::Pubsub => "pubsub",
            Group::Scripting => "scripting",
            Group::Server => "server",
            Group::String => "string",
            Group::Transactions => "transactions",
        }
    }
}

/// Which arguments of a command are keys. Indexes count from 0 behind the command's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// None of them.
    None,
    /// Every `step`-th from `first` to `last`; a negative `last` counts from the end, -1 for the last argument.
    Range {
        /// Index of the first key.
        first: usize,
        /// Index behind which no key stands.
        last: isize,
        /// Distance between keys; at least 1.
        step: usize,
    },
    /// As many as an argument says, right behind it. There is none where it says no number, or too great a one.
    Numbered {
        /// Index of the argument that says how many.
        at: usize,
    },
    /// The same, with a value behind each key.
    NumberedPairs {
        /// Index of the argument that says how many.
        at: usize,
    },
}

/// How many keys an argument says there are, of which each takes `step` arguments behind it.
fn said_count<'a>(
    at: usize,
    step: usize,
    arg_count: usize,
    arg: impl Fn(usize) -> &'a [u8],
) -> Option<usize> {
    let behind = arg_count.checked_sub(at + 1)?;
    let count = usize::try_from(integer::parse(arg(at))?).ok()?;
    (count <= behind / step).then_some(count)
}

impl Keys {
    /// The first argument is the only key.
    pub const ONE: Keys = Keys::Range { first: 0, last: 0, step: 1 };
    /// Every argument is a key.
    pub const ALL: Keys = Keys::Range { first: 0, last: -1, step: 1 };
    /// Keys and values in turn.
    pub const PAIRS: Keys = Keys::Range { first: 0, last: -1, step: 2 };

    /// Whether there are keys at all.
    #[inline]
    pub fn any(self) -> bool {
        self != Keys::None
    }

    /// The indexes between which keys stand, of `arg_count` arguments which `arg` knows, and the distance between two
    /// keys.
    #[inline]
    pub fn range<'a>(
        self,
        arg_count: usize,
        arg: impl Fn(usize) -> &'a [u8],
    ) -> (std::ops::Range<usize>, usize) {
        match self {
            Keys::None => (0..0, 1),
            Keys::Numbered { at } => {
                let count = said_count(at, 1, arg_count, arg).unwrap_or(0);
                (at + 1..at + 1 + count, 1)
            }
            Keys::NumberedPairs { at } => {
                let count = said_count(at, 2, arg_count, arg).unwrap_or(0);
                (at + 1..at + 1 + 2 * count, 2)
            }
            Keys::Range { first, last, step } => {
                let end = match usize::try_from(last) {
                    Ok(last) => arg_count.min(last + 1),
                    Err(_) => arg_count.saturating_add_signed(last + 1),
                };
                (first.min(end)..end, step)
            }
        }
    }

    /// Whether there are as many arguments behind each key as belong to it.
    #[inline]
    pub fn are_complete(self, arg_count: usize) -> bool {
        match self {
            Keys::None | Keys::Numbered { .. } | Keys::NumberedPairs { .. } => true,
            Keys::Range { step, .. } => self.range(arg_count, |_| b"").0.len().is_multiple_of(step),
        }
    }

    /// The arguments that belong to the key with this number, itself the first, in a command that several shards may
    /// run each with its part.
    pub fn part(self, number: usize) -> std::ops::Range<usize> {
        match self {
            Keys::None => 0..0,
            Keys::Range { first, step, .. } => first + number * step..first + (number + 1) * step,
            Keys::Numbered { at } => at + 1 + number..at + 2 + number,
            Keys::NumberedPairs { at } => at + 1 + 2 * number..at + 3 + 2 * number,
        }
    }

    /// First key, last key and distance as `COMMAND INFO` shows them, where the name of the command is counted.
    pub fn as_redis_shows_them(self) -> [i64; 3] {
        match self {
            Keys::None | Keys::Numbered { .. } | Keys::NumberedPairs { .. } => [0, 0, 0],
            Keys::Range { first, last, step } => {
                let shown_last = if last < 0 { last } else { last + 1 };
                [first as i64 + 1, shown_last as i64, step as i64]
            }
        }
    }
}

/// What a command does and when it may run: a set of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// It may change keys: it is logged, locks its keys for itself, and is refused while the log takes no changes.
    pub const WRITE: Flags = Flags(1 << 0);
    /// It reads keys and changes none.
    pub const READONLY: Flags = Flags(1 << 1);
    /// It may take more memory.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// It is for those who run the server.
    pub const ADMIN: Flags = Flags(1 << 3);
    /// Not for scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 4);
    /// It runs while the keys are still being read back from the disk: it needs neither keys nor files.
    pub const LOADING: Flags = Flags(1 << 5);
    /// A replica without its master runs it.
    pub const STALE: Flags = Flags(1 << 6);
    /// It takes constant time, or logarithmic.
    pub const FAST: Flags = Flags(1 << 7);
    /// A client that has yet to authenticate may send it.
    pub const NO_AUTH: Flags = Flags(1 << 8);
    /// Not while the keys are read back beside other work.
    pub const NO_ASYNC_LOADING: Flags = Flags(1 << 9);
    /// Not between `MULTI` and `EXEC`.
    pub const NO_MULTI: Flags = Flags(1 << 10);
    /// It runs while a script is taking too long.
    pub const ALLOW_BUSY: Flags = Flags(1 << 11);
    /// The log of slow commands leaves it out.
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 13);
    /// It is about messages and those who want them.
    pub const PUBSUB: Flags = Flags(1 << 12);
    /// kvlite's own: it runs at once where others are kept for `EXEC`, or refused with it.
    pub const NOT_QUEUED: Flags = Flags(1 << 16);
    /// kvlite's own: its arguments are a list of keys or names, as long as the client likes.
    pub const LISTS: Flags = Flags(1 << 17);
    /// kvlite's own: an argument becomes the whole value of its only key, so that a large one can be written to the log
    /// ahead of the command.
    pub const STORES_ARG: Flags = Flags(1 << 18);
    /// kvlite's own: what it does to its keys is known only when it has run, so it locks them for itself.
    pub const MAY_WRITE: Flags = Flags(1 << 19);
    /// kvlite's own: an option `DB` names the database of its last key.
    pub const NAMES_DATABASE: Flags = Flags(1 << 20);
    /// kvlite's own: a client may send it that has subscriptions and cannot tell messages from replies.
    pub const WHILE_SUBSCRIBED: Flags = Flags(1 << 21);

    /// kvlite's own: it may have an effect on others as a write has, so that it waits for the end of a pause of writes.
    pub const ACTS_AS_WRITE: Flags = Flags(1 << 22);
    /// kvlite's own: it notes in values what it finds out, and so it writes. Redis says that it reads.
    pub const SHOWN_AS_READ: Flags = Flags(1 << 23);

    /// The names by which `COMMAND INFO` shows them, in its order.
    const NAMES: [(Flags, &str); 14] = [
        (Flags::WRITE, "write"),
        (Flags::READONLY, "readonly"),
        (Flags::DENYOOM, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::PUBSUB, "pubsub"),
        (Flags::NOSCRIPT, "noscript"),
        (Flags::LOADING, "loading"),
        (Flags::STALE, "stale"),
        (Flags::FAST, "fast"),
        (Flags::NO_AUTH, "no_auth"),
        (Flags::NO_ASYNC_LOADING, "no_async_loading"),
        (Flags::NO_MULTI, "no_multi"),
        (Flags::SKIP_SLOWLOG, "skip_slowlog"),
        (Flags::ALLOW_BUSY, "allow_busy"),
    ];

    /// These flags and others.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The names of those that `COMMAND INFO` shows.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let shown = match self.0 & Flags::SHOWN_AS_READ.0 {
            0 => self.0,
            _ => self.0 & !Flags::WRITE.0 | Flags::READONLY.0,
        };
        Flags::NAMES.into_iter().filter(move |(flag, _)| shown & flag.0 != 0).map(|(_, name)| name)
    }
}

/// Who runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The shard that owns its key; all keys lie on one shard.
    Key,
    /// The shards that own its keys, each with its part; the parts' answers are merged.
    Keys(Merge),
    /// The shard that owns its keys; where several do, a transaction [combines](crate::combine) what they hold.
    Combine,
    /// Every shard; the answers are merged.
    EveryShard(Merge),
    /// A worker's interpreter, on the shard that owns its keys; without keys on that of the client's worker.
    Script,
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
    Auth,
    Backup,
    Bgrewriteaof,
    Bgsave,
    ClientCaching,
    ClientGetname,
    ClientGetredir,
    ClientId,
    ClientInfo,
    ClientKill,
    ClientList,
    ClientNoEvict,
    ClientPause,
    ClientReply,
    ClientSetinfo,
    ClientSetname,
    ClientTracking,
    ClientTrackinginfo,
    ClientUnblock,
    ClientUnpause,
    Command,
    CommandCount,
    CommandDocs,
    CommandGetkeys,
    CommandGetkeysandflags,
    CommandInfo,
    CommandList,
    Compact,
    CompactWhen,
    ConfigGet,
    ConfigResetstat,
    ConfigRewrite,
    ConfigSet,
    /// A container, which does nothing without a subcommand.
    Container,
    Debug,
    Discard,
    Echo,
    Exec,
    Function(Library),
    Health,
    Hello,
    Help,
    Info,
    Keys,
    Lastsave,
    LatencyDoctor,
    LatencyHistogram,
    LatencyHistory,
    LatencyLatest,
    LatencyReset,
    Monitor,
    Lolwut,
    MemoryDoctor,
    MemoryMallocStats,
    MemoryPurge,
    MemoryStats,
    Multi,
    Ping,
    Pfselftest,
    Psubscribe,
    Publish,
    PubsubChannels,
    PubsubNumpat,
    PubsubNumsub,
    PubsubShardchannels,
    PubsubShardnumsub,
    Punsubscribe,
    /// What is asked about the use of keys.
    Question(Topic),
    Quit,
    Replicaof,
    Randomkey,
    Replication,
    Reset,
    Role,
    Save,
    Scan,
    ScriptDebug,
    ScriptExists,
    ScriptFlush,
    ScriptKill,
    ScriptLoad,
    Select,
    Shutdown,
    SlowlogGet,
    SlowlogLen,
    SlowlogReset,
    Spublish,
    Ssubscribe,
    Stats,
    Subscribe,
    Sunsubscribe,
    Sync,
    /// SYNC, by which replicas of Redis mean another thing than the text protocol.
    SyncOfText,
    Time,
    Wait,
    Unwatch,
    Unsubscribe,
    Waitaof,
    Watch,
}

/// What can be done with libraries of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each is named as its command, whose row says what it does.
pub enum Library {
    Delete,
    Flush,
    Kill,
    List,
    Load,
    Stats,
}

/// What can be asked about the use of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each is named as its command, whose row says what it does.
pub enum Topic {
    Anomalies,
    CacheAdvice,
    Coldkeys,
    Hotkeys,
    Prefixes,
    Reset,
    Status,
    SuggestTtl,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_from_both_ends() {
        let keys = |keys: Keys, arg_count| {
            let (range, step) = keys.range(arg_count, |_| b"2");
            range.step_by(step).collect::<Vec<_>>()
        };
        let all_but_last = Keys::Range { first: 1, last: -2, step: 1 };
        assert_eq!(keys(Keys::None, 3), []);
        assert_eq!(keys(Keys::ONE, 3), [0]);
        assert_eq!(keys(Keys::ONE, 0), []);
        assert_eq!(keys(Keys::ALL, 3), [0, 1, 2]);
        assert_eq!(keys(Keys::PAIRS, 4), [0, 2]);
        let numbered = Keys::Numbered { at: 1 };
        assert_eq!((keys(numbered, 1), keys(numbered, 3), keys(numbered, 5)), (vec![], vec![], vec![2, 3]));
        let pairs = Keys::NumberedPairs { at: 0 };
        assert_eq!((keys(pairs, 0), keys(pairs, 4), keys(pairs, 6)), (vec![], vec![], vec![1, 3]));
        for said in ["-1", "x", "", "99999999999999999999"] {
            assert_eq!(numbered.range(4, |_| said.as_bytes()), (2..2, 1), "{said}");
        }
        assert_eq!(keys(all_but_last, 5), [1, 2, 3]);
        assert_eq!(keys(all_but_last, 1), []);
        assert_eq!((Keys::PAIRS.part(1), Keys::ALL.part(2)), (2..4, 2..3));
        assert!(Keys::PAIRS.are_complete(4) && !Keys::PAIRS.are_complete(3) && Keys::ONE.are_complete(7));
        assert_eq!(Keys::PAIRS.as_redis_shows_them(), [1, -1, 2]);
        assert_eq!(Keys::ONE.as_redis_shows_them(), [1, 1, 1]);
    }
}
