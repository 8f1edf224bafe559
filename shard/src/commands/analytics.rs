//! What is known of one key. What is asked of all shards is in [`crate::analytics::inquiry`].

use std::borrow::Cow;

use crate::{Changes, Error, Reply, Request, Shard, timestamp};

/// `ANALYZE key`: how the key has been used. It does not count as a use.
pub(crate) fn analyze<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    _changes: &mut Changes,
) -> Reply<'s> {
    let key = request.arg(0);
    let found = shard.find(key, now_ms);
    let Some(analytics) = shard.analytics() else { return Error::AnalyticsOff.into() };
    let Some(found) = found else { return Reply::Nil };
    let entry = shard.entry(found);
    let usage = entry.usage().unwrap_or_default();
    let of_key = analytics.of_key(key, found.hash);
    let moment = |seconds| owned(timestamp::format(analytics.unix_ms(seconds)));
    let integer = |number: u64| Reply::Integer(number as i64);
    let optional = |number: Option<u64>| number.map_or(Reply::Nil, integer);
    let ttl_s = entry
        .deadline_ms()
        .map_or(-1, |deadline_ms| ((shard.due_ms(deadline_ms) - now_ms + 500) / 1000) as i64);
    let fields = [
        ("reads", integer(usage.reads.into())),
        ("writes", integer(usage.writes.into())),
        ("last_access", moment(usage.last_access_s)),
        ("created", moment(usage.created_s)),
        ("size", integer(entry.value().len() as u64)),
        ("ttl", Reply::Integer(ttl_s)),
        ("idle", integer(analytics.idle_s(usage.last_access_s).into())),
        ("rate", of_key.rate.map_or(Reply::Nil, |rate| owned(format!("{rate:.2}")))),
        ("interval_p50_ms", optional(of_key.interval_p50_ms)),
        ("interval_p99_ms", optional(of_key.interval_p99_ms)),
        ("learnt_from", Reply::bytes(if of_key.has_history { b"key" } else { b"class" })),
        ("class", Reply::Bulk(Cow::Owned(of_key.class))),
    ];
    Reply::Map(fields.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect())
}

fn owned(text: String) -> Reply<'static> {
    Reply::Bulk(Cow::Owned(text.into_bytes()))
}
