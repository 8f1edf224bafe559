//! Commands about the use of keys. What is known of one key is told here, by its shard; a question about all keys goes
//! to every shard, by way of the server.

use std::borrow::Cow;

use crate::command::row::{Row, container, on_server, on_shard};
use crate::command::spec::{Command, Flags, Group, Server, TextForm, Topic};
use crate::context::Context;
use crate::databases::expect_analysed;
use crate::error::Error;
use crate::reply::Reply;
use crate::request::Request;
use crate::timestamp;

const fn about(topic: Topic) -> Command {
    Command { flags: Flags::READONLY, ..Command::of_server(Server::Question(topic), Group::Server) }
}

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_shard(analyze, Command {
        name: "ANALYZE", flags: Flags::READONLY, text_form: TextForm::Fields,
        summary: "Tells how a key has been used",
        example: "SET greeting hello\nGET greeting\nANALYZE greeting", complexity: "O(1)",
        ..Command::OF_KEY
    }),
    container(Command {
        name: "ANALYTICS", flags: Flags::ADMIN, needs: "STATUS or RESET",
        summary: "Tells how much is known of the use of the keys, or forgets it", ..Command::container(Group::Server)
    }, &[
        on_server(Command {
            name: "RESET", flags: Flags::ADMIN,
            summary: "Forgets what is known of the use of the keys",
            example: "ANALYTICS RESET", complexity: "O(1)",
            ..about(Topic::Reset)
        }),
        on_server(Command {
            name: "STATUS", flags: Flags::ADMIN, text_form: TextForm::Fields,
            summary: "Tells how much is known of the use of the keys",
            example: "ANALYTICS STATUS", complexity: "O(1)",
            ..about(Topic::Status)
        }),
    ]),
    on_server(Command {
        name: "ANOMALIES", text_form: TextForm::Sentences,
        summary: "Tells which rates, ratios and keys are not as usual, and since when",
        example: "ANOMALIES", complexity: "O(1)",
        ..about(Topic::Anomalies)
    }),
    on_server(Command {
        name: "CACHE-ADVICE",
        summary: "Tells the hit ratio to expect with less and with more memory",
        example: "SET greeting hello\nCACHE-ADVICE", complexity: "O(1)",
        ..about(Topic::CacheAdvice)
    }),
    on_server(Command {
        name: "COLDKEYS", args_min: 1, args_max: 2, needs: "seconds", usage: "seconds [count]",
        summary: "Lists the largest keys that have not been used for so long",
        example: "MSET small 1 large 123456789\nCOLDKEYS 0 1", complexity: "O(n), n keys in all",
        ..about(Topic::Coldkeys)
    }),
    on_server(Command {
        name: "HOTKEYS", args_max: Command::MANY, needs: "at most a count",
        usage: "[count] [BY reads | writes | bytes] [TOTAL] [EXPLAIN]",
        summary: "Lists the keys that are used most",
        example: "MSET a 1 b 2\nGET a\nHOTKEYS 1\nHOTKEYS 1 BY reads TOTAL",
        complexity: "O(1); with TOTAL O(n), n keys in all",
        ..about(Topic::Hotkeys)
    }),
    on_server(Command {
        name: "PREFIXES", args_max: 1, needs: "at most a count", usage: "[count]",
        summary: "Lists the classes of keys, such as user:*, with their size and use",
        example: "MSET user:1 ada user:2 alan\nPREFIXES", complexity: "O(n), n keys in all",
        ..about(Topic::Prefixes)
    }),
    on_server(Command {
        name: "SUGGEST-TTL", args_min: 1, args_max: Command::MANY, needs: "key",
        usage: "key | CLASS name [TARGET share] [EXPLAIN] [APPLY]",
        summary: "Suggests a TTL in seconds that keeps most re-accesses hits",
        example: "SET greeting hello\nSUGGEST-TTL greeting\nSUGGEST-TTL greeting EXPLAIN",
        complexity: "O(1); with EXPLAIN O(n), n keys in all",
        ..about(Topic::SuggestTtl)
    }),
];

/// `ANALYZE key`: how the key has been used. It does not count as a use.
fn analyze<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    expect_analysed(request.database)?;
    let key = request.arg(0);
    let found = context.find(key);
    let analytics = context.analytics().ok_or(Error::AnalyticsOff)?;
    let Some(found) = found else { return Ok(Reply::Nil) };
    let usage = context.usage(found);
    let of_key = analytics.of_key(key, found.hash);
    let moment = |seconds| owned(timestamp::format(analytics.unix_ms(seconds)));
    let integer = |number: u64| Reply::Integer(number as i64);
    let optional = |number: Option<u64>| number.map_or(Reply::Nil, integer);
    let ttl_s = context
        .deadline_ms(found)
        .map_or(-1, |deadline_ms| ((context.due_ms(deadline_ms) - context.now_ms() + 500) / 1000) as i64);
    let fields = [
        ("reads", integer(usage.reads.into())),
        ("writes", integer(usage.writes.into())),
        ("last_access", moment(usage.last_access_s)),
        ("created", moment(usage.created_s)),
        ("size", Reply::count(context.value_len(found))),
        ("ttl", Reply::Integer(ttl_s)),
        ("idle", integer(analytics.idle_s(usage.last_access_s).into())),
        ("rate", of_key.rate.map_or(Reply::Nil, |rate| Reply::Double(format!("{rate:.2}")))),
        ("interval_p50_ms", optional(of_key.interval_p50_ms)),
        ("interval_p99_ms", optional(of_key.interval_p99_ms)),
        ("learnt_from", Reply::bytes(if of_key.has_history { b"key" } else { b"class" })),
        ("class", Reply::Bulk(Cow::Owned(of_key.class))),
    ];
    Ok(Reply::Map(fields.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()))
}

fn owned(text: String) -> Reply<'static> {
    Reply::Bulk(Cow::Owned(text.into_bytes()))
}
