//! Commands about the server, its files and all keys together.

use crate::command::row::{Row, container, on_server, on_shard};
use crate::command::spec::{Command, Flags, Group, Keys, Merge, Run, Server, TextForm};
use crate::context::Context;
use crate::error::Error;
use crate::reply::Reply;
use crate::request::Request;

const fn of(server: Server) -> Command {
    Command { flags: Flags::ADMIN, ..Command::of_server(server, Group::Server) }
}

/// What tells how the server is, at any time.
const REPORTS: Flags = Flags::LOADING.with(Flags::STALE);
const SAVES: Flags = Flags::ADMIN.with(Flags::NOSCRIPT).with(Flags::NO_ASYNC_LOADING);
const CONFIGURES: Flags = Flags::ADMIN.with(Flags::NOSCRIPT).with(REPORTS);
const REPLICATES: Flags = Flags::ADMIN.with(Flags::NOSCRIPT);

const FOLLOWS: Flags = REPLICATES.with(Flags::STALE).with(Flags::NO_ASYNC_LOADING);

const CLEAR: Command = Command {
    group: Group::Server,
    args_min: 0,
    args_max: Command::MANY,
    keys: Keys::None,
    flags: Flags::WRITE,
    run: Run::EveryShard(Merge::AllOk),
    needs: "no arguments",
    usage: "[ASYNC | SYNC]",
    summary: "Removes every key of every database",
    ..Command::OF_KEY
};

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_server(Command {
        name: "BACKUP", args_min: 1, args_max: 1, flags: Flags::ADMIN.with(Flags::NO_MULTI), text_form: TextForm::Fields, rest_of_line: Some(0),
        needs: "path", usage: "path",
        summary: "Copies all shards as of one moment below --backup-dir, and returns once that is on disk",
        example: "SET greeting hello\nBACKUP monday", complexity: "O(n), n bytes of data",
        ..of(Server::Backup)
    }),
    on_server(Command {
        name: "BGREWRITEAOF", flags: SAVES,
        summary: "Begins what COMPACT does and returns at once",
        example: "BGREWRITEAOF", complexity: "O(1); the snapshot O(n), n keys in all",
        ..of(Server::Bgrewriteaof)
    }),
    on_server(Command {
        name: "BGSAVE", args_max: 1, flags: SAVES, needs: "at most SCHEDULE", usage: "[SCHEDULE]",
        summary: "Begins what COMPACT does and returns at once",
        example: "BGSAVE", complexity: "O(1); the snapshot O(n), n keys in all",
        ..of(Server::Bgsave)
    }),
    on_shard(clear, Command {
        name: "CLEAR", args_max: 1, usage: "",
        example: "SET greeting hello\nCLEAR\nDBSIZE", complexity: "O(1)",
        ..CLEAR
    }),
    container(Command {
        name: "COMMAND", args_max: Command::MANY, flags: REPORTS,
        summary: "Describes the commands of the server",
        example: "COMMAND", complexity: "O(n), n commands",
        ..of(Server::Command)
    }, &[
        on_server(Command {
            name: "COUNT", flags: REPORTS, summary: "Returns the number of commands",
            example: "COMMAND COUNT", complexity: "O(1)",
            ..of(Server::CommandCount)
        }),
        on_server(Command {
            name: "DOCS", args_max: Command::MANY, flags: REPORTS.with(Flags::LISTS), usage: "[name ...]",
            summary: "Returns what the documentation says of commands",
            example: "COMMAND DOCS get", complexity: "O(n), n commands named",
            ..of(Server::CommandDocs)
        }),
        on_server(Command {
            name: "GETKEYS", args_min: 2, args_max: Command::MANY, flags: REPORTS, usage: "command [argument ...]",
            summary: "Returns which arguments of a request are keys",
            example: "COMMAND GETKEYS mset a 1 b 2", complexity: "O(n), n arguments",
            ..of(Server::CommandGetkeys)
        }),
        on_server(Command {
            name: "GETKEYSANDFLAGS", args_min: 2, args_max: Command::MANY, flags: REPORTS,
            usage: "command [argument ...]",
            summary: "Returns which arguments of a request are keys, and what it does with each",
            example: "COMMAND GETKEYSANDFLAGS mset a 1 b 2", complexity: "O(n), n arguments",
            ..of(Server::CommandGetkeysandflags)
        }),
        on_server(Command {
            name: "INFO", args_max: Command::MANY, flags: REPORTS.with(Flags::LISTS), usage: "[name ...]",
            summary: "Returns arity, flags and keys of commands",
            example: "COMMAND INFO get", complexity: "O(n), n commands named",
            ..of(Server::CommandInfo)
        }),
        on_server(Command {
            name: "LIST", args_max: Command::MANY, flags: REPORTS,
            usage: "[FILTERBY MODULE module | FILTERBY ACLCAT category | FILTERBY PATTERN pattern]",
            summary: "Returns the names of the commands",
            example: "COMMAND LIST", complexity: "O(n), n commands",
            ..of(Server::CommandList)
        }),
    ]),
    container(Command {
        name: "COMPACT", args_max: Command::MANY, flags: Flags::ADMIN.with(Flags::NO_MULTI), text_form: TextForm::Fields, needs: "at most WHEN",
        summary: "Writes a snapshot of every shard and drops the log that it replaces, or says when that will happen",
        example: "SET greeting hello\nCOMPACT", complexity: "O(n), n keys in all",
        ..of(Server::Compact)
    }, &[
        on_server(Command {
            name: "WHEN", text_form: TextForm::Fields,
            summary: "Says when the log will be compacted",
            example: "COMPACT WHEN", complexity: "O(1)",
            ..of(Server::CompactWhen)
        }),
    ]),
    container(Command {
        name: "CONFIG", needs: "GET and an option",
        summary: "Shows the options of the server, changes those that can change, and writes them down",
        ..Command::container(Group::Server)
    }, &[
        on_server(Command {
            name: "GET", args_min: 1, args_max: Command::MANY, flags: CONFIGURES.with(Flags::LISTS),
            usage: "option [option ...]", summary: "Shows options of the server",
            example: "CONFIG GET sync-mode\nCONFIG GET ttl-*", complexity: "O(n), n options",
            ..of(Server::ConfigGet)
        }),
        on_server(Command {
            name: "RESETSTAT", flags: CONFIGURES, summary: "Has INFO count from zero again",
            example: "CONFIG RESETSTAT", complexity: "O(1)",
            ..of(Server::ConfigResetstat)
        }),
        on_server(Command {
            name: "REWRITE", flags: CONFIGURES,
            summary: "Writes the options that have changed into the file of --config",
            example: "CONFIG REWRITE", complexity: "O(n), n lines of the file",
            ..of(Server::ConfigRewrite)
        }),
        on_server(Command {
            name: "SET", args_min: 2, args_max: Command::MANY, flags: CONFIGURES, usage: "option value [option value ...]",
            summary: "Changes options of the server, all or none",
            example: "CONFIG SET auto-ttl \"session:* 1h\"\nSET session:1 ada\nTTL session:1\nCONFIG SET timeout 300 maxclients 1000",
            complexity: "O(n), n options",
            ..of(Server::ConfigSet)
        }),
    ]),
    on_shard(dbsize, Command {
        name: "DBSIZE", args_max: 0, flags: Flags::READONLY.with(Flags::FAST), run: Run::EveryShard(Merge::Sum),
        usage: "", summary: "Returns the number of keys of the database",
        example: "SET greeting hello\nDBSIZE", complexity: "O(1)",
        ..CLEAR
    }),
    on_shard(clear, Command {
        name: "FLUSHALL",
        example: "SET greeting hello\nFLUSHALL\nDBSIZE", complexity: "O(1)",
        ..CLEAR
    }),
    on_shard(flushdb, Command {
        name: "FLUSHDB", summary: "Removes every key of the database",
        example: "SET greeting hello\nFLUSHDB\nDBSIZE", complexity: "O(1)",
        ..CLEAR
    }),
    on_server(Command {
        name: "DEBUG", args_min: 1, args_max: Command::MANY, flags: CONFIGURES,
        needs: "a subcommand", usage: "subcommand [argument ...]",
        summary: "Does what tests need, where --enable-debug-command allows it",
        example: "DEBUG HELP", complexity: "O(1)",
        ..of(Server::Debug)
    }),
    on_server(Command {
        name: "HEALTH", flags: REPORTS,
        summary: "Returns the state of the server as a line of JSON",
        example: "HEALTH", complexity: "O(1)",
        ..of(Server::Health)
    }),
    on_server(Command {
        name: "HELP", args_max: 2, flags: REPORTS, needs: "at most a command and its subcommand",
        usage: "[command [subcommand]]",
        summary: "Says what a command does and how it is called, or which commands there are",
        example: "HELP get", complexity: "O(n), n commands",
        ..of(Server::Help)
    }),
    on_server(Command {
        name: "INFO", args_max: Command::MANY, flags: REPORTS, text_form: TextForm::Fields, usage: "[section ...]",
        summary: "Describes the server and its counters",
        example: "SET greeting hello\nINFO keyspace", complexity: "O(1)",
        ..of(Server::Info)
    }),
    on_server(Command {
        name: "KVLITE.SYNC",
        summary: "Returns once everything acknowledged before it is on disk",
        example: "SET greeting hello\nKVLITE.SYNC", complexity: "O(1), and a wait for the disk",
        ..of(Server::Sync)
    }),
    on_server(Command {
        name: "LOLWUT", args_max: Command::MANY, flags: Flags::READONLY.with(Flags::FAST), needs: "options",
        usage: "[VERSION version [columns [rows]]]",
        summary: "Draws something, and tells the version",
        example: "resp: LOLWUT VERSION 5 16 8", complexity: "O(1)",
        ..Command::of_server(Server::Lolwut, Group::Server)
    }),
    on_server(Command {
        name: "LASTSAVE", flags: REPORTS.with(Flags::FAST),
        summary: "Returns the Unix time of the last snapshot of all shards, or of the start",
        example: "LASTSAVE", complexity: "O(1)",
        ..of(Server::Lastsave)
    }),
    container(Command {
        name: "LATENCY", summary: "Tells which kinds of commands were slow, and how long calls took",
        ..Command::container(Group::Server)
    }, &[
        on_server(Command {
            name: "DOCTOR", flags: CONFIGURES, summary: "Tells people what was slow",
            example: "LATENCY DOCTOR", complexity: "O(1)",
            ..of(Server::LatencyDoctor)
        }),
        on_server(Command {
            name: "HISTOGRAM", args_max: Command::MANY, flags: CONFIGURES, usage: "[command ...]",
            summary: "Returns how long the calls of commands took",
            example: "LATENCY HISTOGRAM nothing", complexity: "O(n), n commands",
            ..of(Server::LatencyHistogram)
        }),
        on_server(Command {
            name: "HISTORY", args_min: 1, args_max: 1, flags: CONFIGURES, usage: "event",
            summary: "Returns when an event was slow, and how slow",
            example: "LATENCY HISTORY command", complexity: "O(1)",
            ..of(Server::LatencyHistory)
        }),
        on_server(Command {
            name: "LATEST", flags: CONFIGURES, summary: "Returns when each event was slow last",
            example: "LATENCY LATEST", complexity: "O(1)",
            ..of(Server::LatencyLatest)
        }),
        on_server(Command {
            name: "RESET", args_max: Command::MANY, flags: CONFIGURES, usage: "[event ...]",
            summary: "Forgets when events were slow",
            example: "LATENCY RESET", complexity: "O(1)",
            ..of(Server::LatencyReset)
        }),
    ]),
    container(Command {
        name: "MEMORY", needs: "a subcommand, such as STATS, or USAGE and a key",
        summary: "Tells what the memory is used for, or how much of it a key takes",
        ..Command::container(Group::Server)
    }, &[
        on_server(Command {
            name: "DOCTOR", flags: Flags::NONE,
            summary: "Tells whether something is wrong with the memory, and what helps",
            example: "MEMORY DOCTOR", complexity: "O(1)",
            ..of(Server::MemoryDoctor)
        }),
        on_server(Command {
            name: "MALLOC-STATS", flags: Flags::NONE,
            summary: "Says that the allocator is built without statistics",
            example: "MEMORY MALLOC-STATS", complexity: "O(1)",
            ..of(Server::MemoryMallocStats)
        }),
        on_server(Command {
            name: "PURGE", flags: Flags::NONE,
            summary: "Returns OK: freed memory goes back to the system by itself, a second later",
            example: "MEMORY PURGE", complexity: "O(1)",
            ..of(Server::MemoryPurge)
        }),
        on_server(Command {
            name: "STATS", flags: Flags::NONE, text_form: TextForm::Fields,
            summary: "Tells what the memory is used for",
            example: "MEMORY STATS", complexity: "O(1)",
            ..of(Server::MemoryStats)
        }),
        on_shard(memory_usage, Command {
            name: "USAGE", group: Group::Server, args_max: Command::MANY, flags: Flags::READONLY, usage: "key [SAMPLES count]",
            summary: "Tells how many bytes of memory a key takes",
            example: "SET greeting hello\nMEMORY USAGE greeting", complexity: "O(1)",
            ..Command::OF_KEY
        }),
    ]),
    on_server(Command {
        name: "MONITOR", flags: CONFIGURES,
        summary: "Shows this connection the commands of all clients from now on",
        example: "MONITOR", complexity: "O(1); each command then O(n), n clients that are shown it",
        ..of(Server::Monitor)
    }),
    on_server(Command {
        name: "PSYNC", args_min: 2, args_max: Command::MANY,
        flags: REPLICATES.with(Flags::NO_ASYNC_LOADING).with(Flags::NO_MULTI),
        needs: "a replication id and an offset", usage: "replicationid offset",
        summary: "Is refused: there is no replication yet",
        example: "PSYNC ? -1", complexity: "O(1)",
        ..of(Server::Replication)
    }),
    on_server(Command {
        name: "REPLICAOF", args_min: 2, args_max: 2, flags: FOLLOWS, needs: "NO ONE", usage: "NO ONE",
        summary: "Says that this server follows none, which is so: there is no replication yet",
        example: "REPLICAOF NO ONE", complexity: "O(1)",
        ..of(Server::Replicaof)
    }),
    on_server(Command {
        name: "ROLE", flags: Flags::NOSCRIPT.with(REPORTS).with(Flags::FAST),
        summary: "Says that this server is a master without replicas",
        example: "ROLE", complexity: "O(1)",
        ..of(Server::Role)
    }),
    on_server(Command {
        name: "REPLCONF", args_max: Command::MANY, flags: REPLICATES.with(Flags::ALLOW_BUSY),
        usage: "[option value ...]",
        summary: "Is refused: there is no replication yet",
        example: "REPLCONF listening-port 6380", complexity: "O(1)",
        ..of(Server::Replication)
    }),
    on_server(Command {
        name: "SAVE", flags: SAVES.with(Flags::NO_MULTI),
        summary: "Writes a snapshot of every shard and drops the log that it replaces",
        example: "SAVE", complexity: "O(n), n keys in all",
        ..of(Server::Save)
    }),
    on_server(Command {
        name: "SHUTDOWN", args_max: Command::MANY,
        flags: CONFIGURES.with(Flags::NO_MULTI).with(Flags::ALLOW_BUSY),
        usage: "[SAVE | NOSAVE] [NOW] [FORCE] [ABORT]",
        summary: "Ends the server as a signal does, behind a snapshot with SAVE",
        example: "SHUTDOWN ABORT", complexity: "O(1); with SAVE O(n), n keys in all",
        ..of(Server::Shutdown)
    }),
    on_server(Command {
        name: "SLAVEOF", args_min: 2, args_max: 2, flags: FOLLOWS, needs: "NO ONE", usage: "NO ONE",
        summary: "Does what REPLICAOF does",
        example: "SLAVEOF NO ONE", complexity: "O(1)",
        ..of(Server::Replicaof)
    }),
    container(Command {
        name: "SLOWLOG", summary: "Shows the slowest commands of late",
        ..Command::container(Group::Server)
    }, &[
        on_server(Command {
            name: "GET", args_max: Command::MANY, flags: Flags::ADMIN.with(REPORTS), usage: "[count]",
            summary: "Returns the newest slow commands",
            example: "SLOWLOG GET 0", complexity: "O(n), n commands",
            ..of(Server::SlowlogGet)
        }),
        on_server(Command {
            name: "LEN", flags: Flags::ADMIN.with(REPORTS), summary: "Returns how many slow commands are kept",
            example: "SLOWLOG RESET\nSLOWLOG LEN", complexity: "O(1)",
            ..of(Server::SlowlogLen)
        }),
        on_server(Command {
            name: "RESET", flags: Flags::ADMIN.with(REPORTS), summary: "Forgets the slow commands",
            example: "SLOWLOG RESET", complexity: "O(1)",
            ..of(Server::SlowlogReset)
        }),
    ]),
    on_server(Command {
        name: "STATS", flags: REPORTS, text_form: TextForm::Fields,
        summary: "Returns the counters of the server",
        example: "STATS", complexity: "O(1)",
        ..of(Server::Stats)
    }),
    on_shard(swapdb, Command {
        name: "SWAPDB", args_min: 2, args_max: 2, flags: Flags::WRITE.with(Flags::FAST),
        needs: "two database indexes", usage: "index index",
        summary: "Gives each of two databases the keys of the other",
        example: "SET greeting hello\nSWAPDB 0 1\nGET greeting\nSELECT 1\nGET greeting", complexity: "O(1)",
        ..CLEAR
    }),
    on_server(Command {
        name: "SYNC", flags: REPLICATES.with(Flags::NO_ASYNC_LOADING).with(Flags::NO_MULTI),
        summary: "Does what KVLITE.SYNC does, on the text port only: replicas of Redis mean another thing by it",
        example: "SET greeting hello\nSYNC", complexity: "O(1), and a wait for the disk",
        ..of(Server::SyncOfText)
    }),
    on_server(Command {
        name: "TIME", flags: REPORTS.with(Flags::FAST),
        summary: "Returns the Unix time, in seconds, and the microseconds of this second",
        example: "TIME", complexity: "O(1)",
        ..of(Server::Time)
    }),
];

/// `MEMORY USAGE key [SAMPLES count]`. A value is never a sum over samples here, so that the count changes nothing.
/// It does not count as a use of the key.
fn memory_usage<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    match request.arg_count() {
        1 => {}
        3 if request.arg(1).eq_ignore_ascii_case(b"SAMPLES") && request.integer(2)? >= 0 => {}
        _ => return Err(Error::Syntax),
    }
    let found = context.find(request.arg(0));
    Ok(found.map_or(Reply::Nil, |found| Reply::count(context.footprint_bytes(found))))
}

/// `DBSIZE`.
#[expect(clippy::needless_pass_by_value, reason = "every command function takes the context so")]
fn dbsize<'s>(context: Context<'s, '_>, _request: &Request<'_>) -> Result<Reply<'s>, Error> {
    Ok(Reply::count(context.key_count()))
}

/// `FLUSHALL [ASYNC | SYNC]`, also as `CLEAR`.
fn clear<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    expect_mode(request)?;
    context.clear();
    Ok(Reply::Ok)
}

/// `FLUSHDB [ASYNC | SYNC]`.
fn flushdb<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    expect_mode(request)?;
    context.clear_database();
    Ok(Reply::Ok)
}

/// The memory of keys that are flushed is freed in the background in either mode.
fn expect_mode(request: &Request<'_>) -> Result<(), Error> {
    let known = |mode: &[u8]| mode.eq_ignore_ascii_case(b"ASYNC") || mode.eq_ignore_ascii_case(b"SYNC");
    if request.arg_count() > 1 || !request.args().all(known) {
        return Err(Error::Syntax);
    }
    Ok(())
}

/// `SWAPDB index index`.
fn swapdb<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let number = |index| request.integer(index).ok().and_then(|number| i32::try_from(number).ok());
    let one = number(0).ok_or(Error::OutOfRange("invalid first DB index"))?;
    let other = number(1).ok_or(Error::OutOfRange("invalid second DB index"))?;
    let count = context.database_count();
    let existing = |number: i32| u16::try_from(number).ok().filter(|number| *number < count);
    match (existing(one), existing(other)) {
        (Some(one), Some(other)) if one == other => {}
        (Some(one), Some(other)) => context.swap_databases(one, other),
        _ => return Err(Error::DbIndexOutOfRange),
    }
    Ok(Reply::Ok)
}

#[cfg(test)]
mod tests {
    use crate::commands::transcript;

    #[test]
    fn flushing_takes_a_mode_and_nothing_else() {
        transcript::run(
            "> MSET a 1 b 2
             OK
             > FLUSHALL ASYNC SYNC
             Syntax
             !
             > FLUSHALL now
             Syntax
             !
             > DBSIZE
             2
             > FLUSHALL async
             OK
             ! clear
             > DBSIZE
             0
             > SET a 1
             OK
             > FLUSHDB SYNC
             OK
             > GET a
             nil
             > CLEAR
             OK",
        );
    }

    #[test]
    fn a_database_is_flushed_alone_and_all_are_together() {
        transcript::run(
            "> SET a 1
             OK
             = 3
             > SET a 3
             OK
             ! keyspace 3, put a=3
             > DBSIZE
             1
             > FLUSHDB
             OK
             ! keyspace 3, clear keyspace
             > DBSIZE
             0
             > SET b 3
             OK
             = 0
             > GET a
             \"1\"
             > FLUSHDB async
             OK
             ! clear keyspace
             = 3
             > GET b
             \"3\"
             > FLUSHDB
             OK
             ! clear
             > SET b 3
             OK
             = 0
             > SET a 1
             OK
             > FLUSHALL
             OK
             ! clear
             = 3
             > DBSIZE
             0",
        );
    }

    #[test]
    fn swapped_databases_have_each_others_keys_from_then_on() {
        transcript::run(
            "> SET a 0
             OK
             = 2
             > SET a 2
             OK
             > SWAPDB 0 2
             OK
             ! databases 2 1 0
             > GET a
             \"0\"
             > APPEND a +
             2
             ! splice a@1=+
             = 0
             > GET a
             \"2\"
             > SWAPDB 1 0
             OK
             ! databases 1 2 0
             > GET a
             nil
             > SET a 1
             OK
             ! keyspace 1, put a=1
             > SWAPDB 15 1
             OK
             > SWAPDB 15 15
             OK
             !
             = 15
             > GET a
             \"2\"
             = 1
             > DBSIZE
             0
             > SWAPDB x 99
             OutOfRange(\"invalid first DB index\")
             > SWAPDB 99 4294967296
             OutOfRange(\"invalid second DB index\")
             > SWAPDB 16 0
             DbIndexOutOfRange
             > SWAPDB 0 -1
             DbIndexOutOfRange
             !",
        );
    }
}
