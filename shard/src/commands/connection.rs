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

const CLIENT_ADMIN: Flags = CLIENT.with(Flags::ADMIN);

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_server(Command {
        name: "AUTH", args_min: 1, args_max: Command::MANY, flags: ANY_TIME,
        needs: "password, or user and password", usage: "[username] password",
        summary: "Says who the client is; the only user is default, who needs no password",
        example: "AUTH default secret", complexity: "O(1)",
        ..of(Server::Auth)
    }),
    container(Command {
        name: "CLIENT", summary: "Names and describes this connection, lists all, ends or pauses others",
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
            name: "KILL", args_min: 1, args_max: Command::MANY, flags: CLIENT_ADMIN,
            usage: "ip:port | [ID id] [TYPE type] [USER user] [ADDR ip:port] [LADDR ip:port] [SKIPME YES | NO]",
            summary: "Ends connections",
            example: "CLIENT KILL ID 999999", complexity: "O(n), n clients",
            ..of(Server::ClientKill)
        }),
        on_server(Command {
            name: "LIST", args_max: Command::MANY, flags: CLIENT_ADMIN.with(Flags::LISTS),
            usage: "[TYPE NORMAL | MASTER | REPLICA | PUBSUB] [ID id ...]",
            summary: "Describes all connections, or those of a kind or with these ids",
            example: "CLIENT LIST", complexity: "O(n), n clients",
            ..of(Server::ClientList)
        }),
        on_server(Command {
            name: "NO-EVICT", args_min: 1, args_max: 1, flags: CLIENT_ADMIN, usage: "ON | OFF",
            summary: "Marks this connection as one that is not to be closed for want of memory, as none is",
            example: "CLIENT NO-EVICT on", complexity: "O(1)",
            ..of(Server::ClientNoEvict)
        }),
        on_server(Command {
            name: "PAUSE", args_min: 1, args_max: Command::MANY, flags: CLIENT_ADMIN, usage: "timeout [WRITE | ALL]",
            summary: "Has commands of all clients wait for so many milliseconds, or those that write",
            example: "CLIENT PAUSE 1 WRITE", complexity: "O(1)",
            ..of(Server::ClientPause)
        }),
        on_server(Command {
            name: "REPLY", args_min: 1, args_max: 1, flags: CLIENT, usage: "ON | OFF | SKIP",
            summary: "Has the server answer this connection, not answer it, or not answer its next command",
            example: "CLIENT REPLY on", complexity: "O(1)",
            ..of(Server::ClientReply)
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
        on_server(Command {
            name: "UNBLOCK", args_min: 1, args_max: Command::MANY, flags: CLIENT_ADMIN,
            usage: "client-id [TIMEOUT | ERROR]",
            summary: "Ends the wait of a client, as its timeout would or with an error",
            example: "CLIENT UNBLOCK 999999", complexity: "O(1)",
            ..of(Server::ClientUnblock)
        }),
        on_server(Command {
            name: "UNPAUSE", flags: CLIENT_ADMIN, summary: "Ends what CLIENT PAUSE began",
            example: "CLIENT UNPAUSE", complexity: "O(1)",
            ..of(Server::ClientUnpause)
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
        usage: "[2 | 3 [AUTH username password] [SETNAME name]]",
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
    on_server(Command {
        name: "WAIT", args_min: 2, args_max: 2, flags: Flags::NOSCRIPT,
        group: Group::Generic, needs: "numreplicas and timeout", usage: "numreplicas timeout",
        summary: "Waits for replicas, of which there are none, until the timeout in milliseconds is over",
        example: "WAIT 1 10", complexity: "O(1)",
        ..of(Server::Wait)
    }),
];
