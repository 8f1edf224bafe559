//! Commands about the connection of a client: their rows. The server runs them.

use crate::command::row::{Row, container, on_server};
use crate::command::spec::{Command, Flags, Group, Server};

/// What runs at any time, for any client.
const ANY_TIME: Flags = Flags::NOSCRIPT
    .with(Flags::LOADING)
    .with(Flags::STALE)
    .with(Flags::FAST)
    .with(Flags::NO_AUTH)
    .with(Flags::ALLOW_BUSY);

const CLIENT: Flags = Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE);
const FAST: Flags = Flags::LOADING.with(Flags::STALE).with(Flags::FAST);

const fn of(server: Server) -> Command {
    Command::of_server(server, Group::Connection)
}

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    container(Command {
        name: "CLIENT", summary: "Names and describes this connection, or lists all",
        ..Command::container(Group::Connection)
    }, &[
        on_server(Command {
            name: "CACHING", args_min: 1, args_max: 1, flags: CLIENT, usage: "YES | NO",
            summary: "Says whether copies are kept of what the next command reads",
            example: "CLIENT TRACKING ON OPTOUT\nCLIENT CACHING NO\nGET cart", complexity: "O(1)",
            ..of(Server::ClientCaching)
        }),
        on_server(Command {
            name: "GETNAME", flags: CLIENT, summary: "Returns the name of this connection",
            example: "CLIENT SETNAME cart\nCLIENT GETNAME", complexity: "O(1)",
            ..of(Server::ClientGetname)
        }),
        on_server(Command {
            name: "GETREDIR", flags: CLIENT,
            summary: "Returns the number of the connection that is told of changed keys in place of this one",
            example: "CLIENT GETREDIR", complexity: "O(1)",
            ..of(Server::ClientGetredir)
        }),
        on_server(Command {
            name: "ID", flags: CLIENT, summary: "Returns the number of this connection",
            example: "CLIENT ID", complexity: "O(1)",
            ..of(Server::ClientId)
        }),
        on_server(Command {
            name: "INFO", flags: CLIENT, summary: "Describes this connection",
            example: "CLIENT INFO", complexity: "O(1)",
            ..of(Server::ClientInfo)
        }),
        on_server(Command {
            name: "LIST", args_max: Command::MANY, flags: CLIENT.with(Flags::ADMIN),
            summary: "Describes all connections",
            example: "CLIENT LIST", complexity: "O(n), n clients",
            ..of(Server::ClientList)
        }),
        on_server(Command {
            name: "SETINFO", args_min: 2, args_max: 2, flags: CLIENT, usage: "attribute value",
            summary: "Notes the library of the client and its version",
            example: "CLIENT SETINFO lib-name shop", complexity: "O(1)",
            ..of(Server::ClientSetinfo)
        }),
        on_server(Command {
            name: "SETNAME", args_min: 1, args_max: 1, flags: CLIENT, usage: "name",
            summary: "Gives this connection a name",
            example: "CLIENT SETNAME cart", complexity: "O(1)",
            ..of(Server::ClientSetname)
        }),
        on_server(Command {
            name: "TRACKING", args_min: 1, args_max: Command::MANY, flags: CLIENT,
            usage: "ON | OFF [REDIRECT id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
            summary: "Has this connection be told when keys change that it has read, or that have a prefix",
            example: "CLIENT TRACKING ON", complexity: "O(1)",
            ..of(Server::ClientTracking)
        }),
        on_server(Command {
            name: "TRACKINGINFO", flags: CLIENT,
            summary: "Describes how this connection is told of changed keys",
            example: "CLIENT TRACKINGINFO", complexity: "O(1)",
            ..of(Server::ClientTrackinginfo)
        }),
    ]),
    on_server(Command {
        name: "ECHO", args_min: 1, args_max: 1, flags: FAST,
        rest_of_line: Some(0), needs: "message", usage: "message",
        summary: "Returns its argument",
        example: "ECHO hello", complexity: "O(1)",
        ..of(Server::Echo)
    }),
    on_server(Command {
        name: "HELLO", args_max: Command::MANY, flags: ANY_TIME, needs: "a protocol version",
        usage: "[2 | 3 [SETNAME name]]",
        summary: "Switches the protocol version and describes the server",
        example: "HELLO 3", complexity: "O(1)",
        ..of(Server::Hello)
    }),
    on_server(Command {
        name: "PING", args_max: 1, flags: FAST.with(Flags::WHILE_SUBSCRIBED), rest_of_line: Some(0),
        needs: "at most one message", usage: "[message]",
        summary: "Returns PONG, or its argument",
        example: "PING\nPING hello", complexity: "O(1)",
        ..of(Server::Ping)
    }),
    on_server(Command {
        name: "QUIT", args_max: Command::MANY,
        flags: ANY_TIME.with(Flags::NOT_QUEUED).with(Flags::WHILE_SUBSCRIBED),
        summary: "Closes the connection",
        example: "QUIT", complexity: "O(1)",
        ..of(Server::Quit)
    }),
    on_server(Command {
        name: "RESET", flags: ANY_TIME.with(Flags::NOT_QUEUED).with(Flags::WHILE_SUBSCRIBED),
        summary: "Takes the connection back to the state of a new one",
        example: "CLIENT SETNAME cart\nRESET\nCLIENT GETNAME", complexity: "O(1)",
        ..of(Server::Reset)
    }),
    on_server(Command {
        name: "SELECT", args_min: 1, args_max: 1, flags: FAST,
        needs: "database index", usage: "index",
        summary: "Selects the database in which the commands of this connection run",
        example: "SELECT 1\nSELECT 16", complexity: "O(1)",
        ..of(Server::Select)
    }),
];
