//! Commands that run scripts and functions of libraries, and those that keep them: their rows. The server runs them.

use crate::command::row::{Row, container, on_server};
use crate::command::spec::{Command, Flags, Group, Keys, Library, Run, Server};

/// Runs a program that a client has sent.
const RUNS: Command = Command {
    group: Group::Scripting,
    args_min: 2,
    args_max: Command::MANY,
    keys: Keys::Numbered { at: 1 },
    flags: Flags::NOSCRIPT.with(Flags::STALE).with(Flags::LISTS).with(Flags::MAY_WRITE),
    run: Run::Script,
    complexity: "O(n), n instructions of the script, and its commands",
    ..Command::OF_KEY
};
const READS: Flags = Flags::READONLY.with(Flags::NOSCRIPT).with(Flags::STALE).with(Flags::LISTS);
const KEEPS: Flags = Flags::WRITE.with(Flags::NOSCRIPT);

const fn of(server: Server) -> Command {
    Command { flags: Flags::NOSCRIPT, ..Command::of_server(server, Group::Scripting) }
}

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_server(Command {
        name: "EVAL", needs: "script and number of keys", usage: "script numkeys [key ...] [arg ...]",
        summary: "Runs a Lua script, alone and as a whole",
        example: "EVAL \"return redis.call('INCRBY', KEYS[1], ARGV[1])\" 1 hits 5",
        ..RUNS
    }),
    on_server(Command {
        name: "EVALSHA", needs: "name and number of keys", usage: "sha1 numkeys [key ...] [arg ...]",
        summary: "Runs a script that the server knows, by its SHA1",
        example: "SCRIPT LOAD \"return ARGV[1]\"\nEVALSHA 098e0f0d1448c0a81dafe820f66d460eb09263da 0 hello",
        ..RUNS
    }),
    on_server(Command {
        name: "EVALSHA_RO", flags: READS, needs: "name and number of keys", usage: "sha1 numkeys [key ...] [arg ...]",
        summary: "As EVALSHA, for a script that changes no key",
        example: "SCRIPT LOAD \"return ARGV[1]\"\nEVALSHA_RO 098e0f0d1448c0a81dafe820f66d460eb09263da 0 hello",
        ..RUNS
    }),
    on_server(Command {
        name: "EVAL_RO", flags: READS, needs: "script and number of keys", usage: "script numkeys [key ...] [arg ...]",
        summary: "As EVAL, for a script that changes no key",
        example: "SET greeting hello\nEVAL_RO \"return redis.call('GET', KEYS[1])\" 1 greeting",
        ..RUNS
    }),
    on_server(Command {
        name: "FCALL", needs: "function and number of keys", usage: "function numkeys [key ...] [arg ...]",
        summary: "Runs a function of a library, alone and as a whole",
        example: "resp: FUNCTION LOAD \"#!lua name=shop\\nredis.register_function('visit', function(keys) return redis.call('INCR', keys[1]) end)\"\nresp: FCALL visit 1 hits",
        ..RUNS
    }),
    on_server(Command {
        name: "FCALL_RO", flags: READS, needs: "function and number of keys", usage: "function numkeys [key ...] [arg ...]",
        summary: "As FCALL, for a function that changes no key",
        example: "resp: FUNCTION LOAD \"#!lua name=shop\\nredis.register_function{function_name='last', callback=function(keys) return redis.call('GET', keys[1]) end, flags={'no-writes'}}\"\nSET seen ada\nresp: FCALL_RO last 1 seen",
        ..RUNS
    }),
    container(Command {
        name: "FUNCTION", summary: "Keeps libraries of functions",
        ..Command::container(Group::Scripting)
    }, &[
        on_server(Command {
            name: "DELETE", args_min: 1, args_max: 1, flags: KEEPS, needs: "library", usage: "library",
            summary: "Removes a library and its functions",
            example: "resp: FUNCTION LOAD \"#!lua name=shop\\nredis.register_function('visit', function(keys) return 1 end)\"\nFUNCTION DELETE shop", complexity: "O(1)",
            ..of(Server::Function(Library::Delete))
        }),
        on_server(Command {
            name: "FLUSH", args_max: Command::MANY, flags: KEEPS, needs: "at most ASYNC or SYNC", usage: "[ASYNC | SYNC]",
            summary: "Removes all libraries",
            example: "FUNCTION FLUSH", complexity: "O(n), n libraries",
            ..of(Server::Function(Library::Flush))
        }),
        on_server(Command {
            name: "KILL", flags: Flags::NOSCRIPT.with(Flags::ALLOW_BUSY),
            summary: "Ends the function that is running, if it has changed no key",
            example: "FUNCTION KILL", complexity: "O(1)",
            ..of(Server::Function(Library::Kill))
        }),
        on_server(Command {
            name: "LIST", args_max: Command::MANY, usage: "[LIBRARYNAME pattern] [WITHCODE]",
            summary: "Describes the libraries",
            example: "resp: FUNCTION LOAD \"#!lua name=shop\\nredis.register_function('visit', function(keys) return 1 end)\"\nFUNCTION LIST", complexity: "O(n), n functions",
            ..of(Server::Function(Library::List))
        }),
        on_server(Command {
            name: "LOAD", args_min: 1, args_max: Command::MANY, flags: KEEPS.with(Flags::DENYOOM), needs: "code",
            usage: "[REPLACE] code", summary: "Adds a library",
            example: "resp: FUNCTION LOAD \"#!lua name=shop\\nredis.register_function('visit', function(keys) return 1 end)\"\nFUNCTION FLUSH", complexity: "O(n), n bytes of code",
            ..of(Server::Function(Library::Load))
        }),
        on_server(Command {
            name: "STATS", flags: Flags::NOSCRIPT.with(Flags::ALLOW_BUSY),
            summary: "Says what is running, and how many libraries there are",
            example: "FUNCTION STATS", complexity: "O(1)",
            ..of(Server::Function(Library::Stats))
        }),
    ]),
    container(Command {
        name: "SCRIPT", summary: "Keeps scripts",
        ..Command::container(Group::Scripting)
    }, &[
        on_server(Command {
            name: "DEBUG", args_min: 1, args_max: 1, needs: "YES, SYNC or NO", usage: "YES | SYNC | NO",
            summary: "Chooses whether scripts are run step by step, which this server cannot do",
            example: "SCRIPT DEBUG NO", complexity: "O(1)",
            ..of(Server::ScriptDebug)
        }),
        on_server(Command {
            name: "EXISTS", args_min: 1, args_max: Command::MANY, flags: Flags::NOSCRIPT.with(Flags::LISTS),
            needs: "names", usage: "sha1 [sha1 ...]", summary: "Says which scripts the server knows",
            example: "SCRIPT LOAD \"return ARGV[1]\"\nSCRIPT EXISTS 098e0f0d1448c0a81dafe820f66d460eb09263da", complexity: "O(n), n names",
            ..of(Server::ScriptExists)
        }),
        on_server(Command {
            name: "FLUSH", args_max: Command::MANY, needs: "at most ASYNC or SYNC", usage: "[ASYNC | SYNC]",
            summary: "Forgets all scripts",
            example: "SCRIPT FLUSH", complexity: "O(n), n scripts",
            ..of(Server::ScriptFlush)
        }),
        on_server(Command {
            name: "KILL", flags: Flags::NOSCRIPT.with(Flags::ALLOW_BUSY),
            summary: "Ends the script that is running, if it has changed no key",
            example: "SCRIPT KILL", complexity: "O(1)",
            ..of(Server::ScriptKill)
        }),
        on_server(Command {
            name: "LOAD", args_min: 1, args_max: 1, flags: Flags::NOSCRIPT.with(Flags::STALE), needs: "script",
            usage: "script", summary: "Has the server know a script, and returns its SHA1",
            example: "SCRIPT LOAD \"return ARGV[1]\"", complexity: "O(n), n bytes",
            ..of(Server::ScriptLoad)
        }),
    ]),
];
