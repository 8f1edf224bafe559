//! Commands about messages and those who want them: their rows. The server runs them.

use crate::command::row::{Row, container, on_server};
use crate::command::spec::{Command, Flags, Group, Server};

const ASKS: Flags = Flags::PUBSUB.with(Flags::LOADING).with(Flags::STALE);
const PUBLISHES: Flags = ASKS.with(Flags::FAST).with(Flags::ACTS_AS_WRITE);
const SUBSCRIBES: Flags = ASKS.with(Flags::NOSCRIPT).with(Flags::LISTS).with(Flags::WHILE_SUBSCRIBED);

const fn of(server: Server) -> Command {
    Command::of_server(server, Group::Pubsub)
}

/// A command with a list of channels or patterns.
const fn listing(server: Server) -> Command {
    Command { args_max: Command::MANY, flags: SUBSCRIBES, ..of(server) }
}

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_server(Command {
        name: "PSUBSCRIBE", args_min: 1, needs: "a pattern", usage: "pattern [pattern ...]",
        summary: "Has the messages of all channels come whose names match a pattern",
        example: "PSUBSCRIBE news.*", complexity: "O(n), n patterns",
        ..listing(Server::Psubscribe)
    }),
    on_server(Command {
        name: "PUBLISH", args_min: 2, args_max: 2, flags: PUBLISHES,
        rest_of_line: Some(1), needs: "channel and message", usage: "channel message",
        summary: "Sends a message to all who are subscribed to its channel",
        example: "PUBLISH news.tech Hello", complexity: "O(n + p), n subscribers, p patterns",
        ..of(Server::Publish)
    }),
    container(Command {
        name: "PUBSUB", summary: "Describes channels and who is subscribed to them",
        ..Command::container(Group::Pubsub)
    }, &[
        on_server(Command {
            name: "CHANNELS", args_max: Command::MANY, flags: ASKS, usage: "[pattern]",
            summary: "Lists the channels with subscribers",
            example: "PUBSUB CHANNELS\nPUBSUB CHANNELS news.*", complexity: "O(n), n channels",
            ..of(Server::PubsubChannels)
        }),
        on_server(Command {
            name: "NUMPAT", flags: ASKS,
            summary: "Counts the patterns with subscribers",
            example: "PUBSUB NUMPAT", complexity: "O(1)",
            ..of(Server::PubsubNumpat)
        }),
        on_server(Command {
            name: "NUMSUB", args_max: Command::MANY, flags: ASKS.with(Flags::LISTS),
            usage: "[channel [channel ...]]",
            summary: "Counts the subscribers of channels",
            example: "PUBSUB NUMSUB news.tech", complexity: "O(n), n channels",
            ..of(Server::PubsubNumsub)
        }),
        on_server(Command {
            name: "SHARDCHANNELS", args_max: Command::MANY, flags: ASKS, usage: "[pattern]",
            summary: "Lists the shard channels with subscribers",
            example: "PUBSUB SHARDCHANNELS", complexity: "O(n), n shard channels",
            ..of(Server::PubsubShardchannels)
        }),
        on_server(Command {
            name: "SHARDNUMSUB", args_max: Command::MANY, flags: ASKS.with(Flags::LISTS),
            usage: "[shardchannel [shardchannel ...]]",
            summary: "Counts the subscribers of shard channels",
            example: "PUBSUB SHARDNUMSUB orders", complexity: "O(n), n shard channels",
            ..of(Server::PubsubShardnumsub)
        }),
    ]),
    on_server(Command {
        name: "PUNSUBSCRIBE", needs: "patterns", usage: "[pattern [pattern ...]]",
        summary: "Ends subscriptions to patterns, or all of them",
        example: "PUNSUBSCRIBE news.*", complexity: "O(n), n patterns",
        ..listing(Server::Punsubscribe)
    }),
    on_server(Command {
        name: "SPUBLISH", args_min: 2, args_max: 2, flags: PUBLISHES,
        rest_of_line: Some(1), needs: "channel and message", usage: "shardchannel message",
        summary: "Sends a message to all who are subscribed to its shard channel",
        example: "SPUBLISH orders shipped", complexity: "O(n), n subscribers",
        ..of(Server::Spublish)
    }),
    on_server(Command {
        name: "SSUBSCRIBE", args_min: 1, needs: "a channel", usage: "shardchannel [shardchannel ...]",
        summary: "Has the messages of shard channels come",
        example: "SSUBSCRIBE orders", complexity: "O(n), n shard channels",
        ..listing(Server::Ssubscribe)
    }),
    on_server(Command {
        name: "SUBSCRIBE", args_min: 1, needs: "a channel", usage: "channel [channel ...]",
        summary: "Has the messages of channels come",
        example: "SUBSCRIBE news.tech", complexity: "O(n), n channels",
        ..listing(Server::Subscribe)
    }),
    on_server(Command {
        name: "SUNSUBSCRIBE", needs: "channels", usage: "[shardchannel [shardchannel ...]]",
        summary: "Ends subscriptions to shard channels, or all of them",
        example: "SUNSUBSCRIBE orders", complexity: "O(n), n shard channels",
        ..listing(Server::Sunsubscribe)
    }),
    on_server(Command {
        name: "UNSUBSCRIBE", needs: "channels", usage: "[channel [channel ...]]",
        summary: "Ends subscriptions to channels, or all of them",
        example: "UNSUBSCRIBE news.tech", complexity: "O(n), n channels",
        ..listing(Server::Unsubscribe)
    }),
];
