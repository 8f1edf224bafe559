//! Commands that have others run as one: their rows. The server runs them.

use crate::command::row::{Row, on_server};
use crate::command::spec::{Command, Flags, Group, Keys, Server};

const ANY_TIME: Flags =
    Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST).with(Flags::ALLOW_BUSY);

const fn of(server: Server) -> Command {
    Command { flags: ANY_TIME, ..Command::of_server(server, Group::Transactions) }
}

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_server(Command {
        name: "DISCARD", flags: ANY_TIME.with(Flags::NOT_QUEUED),
        summary: "Drops the commands that were queued since MULTI, and forgets the watched keys",
        example: "MULTI\nSET greeting hello\nDISCARD\nGET greeting", complexity: "O(n), n commands queued",
        ..of(Server::Discard)
    }),
    on_server(Command {
        name: "EXEC",
        flags: Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::SKIP_SLOWLOG)
            .with(Flags::NOT_QUEUED),
        summary: "Runs the commands that were queued since MULTI as one",
        example: "MULTI\nSET greeting hello\nINCR visits\nEXEC",
        complexity: "That of the commands; between shards two messages to each and back",
        ..of(Server::Exec)
    }),
    on_server(Command {
        name: "MULTI", flags: ANY_TIME.with(Flags::NOT_QUEUED),
        summary: "Has the commands to come queued, for EXEC to run them as one",
        example: "MULTI\nSET greeting hello\nEXEC", complexity: "O(1)",
        ..of(Server::Multi)
    }),
    on_server(Command {
        name: "UNWATCH", summary: "Forgets the watched keys",
        example: "WATCH greeting\nUNWATCH", complexity: "O(n), n keys watched",
        ..of(Server::Unwatch)
    }),
    on_server(Command {
        name: "WATCH", args_min: 1, args_max: Command::MANY, keys: Keys::ALL,
        flags: ANY_TIME.with(Flags::NOT_QUEUED).with(Flags::LISTS), needs: "key",
        usage: "key [key ...]",
        summary: "Has EXEC run nothing if one of these keys changes before",
        example: "SET visits 1\nWATCH visits\nMULTI\nINCR visits\nEXEC", complexity: "O(n), n keys",
        ..of(Server::Watch)
    }),
];
