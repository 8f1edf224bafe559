//! `SLOWLOG` and `LATENCY`: what was slow, out of what all workers have noted.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use shard::command::{self, Merge, Server};
use shard::{Command, Error, Reply, Request, parse_integer};

use super::About;
use super::client_commands::wrong_use;
use crate::mesh::{Call, SlowLogCall};
use crate::metrics::histogram::{BOUNDS_NS, Histogram};
use crate::metrics::slowlog::{EVENTS, Latency};
use crate::txn::gather::Gather;

/// How many slow commands are shown where the client does not say.
const SHOWN: usize = 10;

/// What every worker is asked.
pub(super) fn question(request: &Request<'_>, server: Server) -> Result<Call, Error> {
    Ok(match server {
        Server::SlowlogGet => Call::SlowLog(SlowLogCall::Newest(wanted_count(request)?)),
        Server::SlowlogLen => Call::SlowLog(SlowLogCall::Len),
        Server::SlowlogReset => Call::SlowLog(SlowLogCall::Clear),
        Server::LatencyReset => {
            let names: Arc<[Box<[u8]>]> = request.args().map(Box::from).collect();
            Call::SlowLog(SlowLogCall::ForgetLatencies(names))
        }
        Server::LatencyHistogram => Call::Report,
        _ => Call::SlowLog(SlowLogCall::Latencies),
    })
}

fn wanted_count(request: &Request<'_>) -> Result<usize, Error> {
    match request.arg_count() {
        0 => Ok(SHOWN),
        1 => match parse_integer(request.arg(0)) {
            Some(-1) => Ok(usize::MAX),
            Some(count @ 0..) => Ok(count as usize),
            _ => Err(Error::OutOfRange("count should be greater than or equal to -1")),
        },
        _ => Err(wrong_use("SLOWLOG", "get")),
    }
}

/// The reply, out of what all workers have told.
pub(super) fn reply(
    request: &Request<'_>,
    server: Server,
    gather: &mut Gather,
    about: &About<'_>,
) -> Reply<'static> {
    match server {
        Server::SlowlogReset => gather.merge(Merge::AllOk),
        Server::SlowlogLen => match gather.merge(Merge::Sum) {
            Reply::Integer(len) => Reply::Integer(len.min(len_max(about) as i64)),
            other => other,
        },
        Server::SlowlogGet => {
            let mut shown: Vec<Reply<'static>> = gather.take_lists().into_iter().flatten().collect();
            let id = |slow: &Reply<'_>| match slow {
                Reply::Array(fields) => match fields[0] {
                    Reply::Integer(id) => id,
                    _ => 0,
                },
                _ => 0,
            };
            shown.sort_by_key(|slow| std::cmp::Reverse(id(slow)));
            let wanted = wanted_count(request).unwrap_or(SHOWN);
            shown.truncate(wanted.min(len_max(about) as usize));
            Reply::Array(shown)
        }
        Server::LatencyHistogram => histograms(request, gather),
        Server::LatencyLatest => {
            let known = latencies(gather);
            Reply::Array(known.iter().map(|(event, latency)| latest(event, latency)).collect())
        }
        Server::LatencyHistory => {
            let name = request.arg(0);
            let known = latencies(gather);
            let asked = known.iter().find(|(event, _)| event.as_bytes() == name);
            let samples = asked.iter().flat_map(|(_, latency)| &latency.samples);
            let pair = |(unix_s, ms): &(u64, u64)| {
                Reply::Array(vec![Reply::Integer(*unix_s as i64), Reply::Integer(*ms as i64)])
            };
            Reply::Array(samples.map(pair).collect())
        }
        Server::LatencyReset => Reply::count(latencies(gather).len()),
        _ => doctor(&latencies(gather), about),
    }
}

fn len_max(about: &About<'_>) -> u64 {
    about.shared.settings.slowlog_max_len.load(Ordering::Relaxed) as u64
}

/// The kinds of events that were slow, over all workers.
fn latencies(gather: &mut Gather) -> Vec<(&'static str, Latency)> {
    let mut sums: [Latency; EVENTS.len()] = Default::default();
    for of_worker in gather.take_lists() {
        sums.iter_mut().zip(&of_worker).for_each(|(sum, told)| sum.add(&Latency::of_reply(told)));
    }
    EVENTS.into_iter().zip(sums).filter(|(_, latency)| !latency.samples.is_empty()).collect()
}

fn latest(event: &'static str, latency: &Latency) -> Reply<'static> {
    let (unix_s, ms) = latency.samples.back().copied().unwrap_or_default();
    let number = |number: u64| Reply::Integer(number as i64);
    Reply::Array(vec![Reply::bytes(event.as_bytes()), number(unix_s), number(ms), number(latency.max_ms)])
}

/// What people are told of it.
fn doctor(known: &[(&'static str, Latency)], about: &About<'_>) -> Reply<'static> {
    let threshold_ms = about.shared.settings.latency_monitor_threshold_ms.load(Ordering::Relaxed);
    let mut text = match threshold_ms {
        0 => "Nothing is watched: latency-monitor-threshold is 0. Set it to the milliseconds from which on a command \
              is too slow for you.\n"
            .to_owned(),
        _ if known.is_empty() => format!("No command has taken {threshold_ms} milliseconds.\n"),
        _ => format!("Commands that took {threshold_ms} milliseconds or more:\n"),
    };
    for (event, latency) in known {
        let sum_ms: u64 = latency.samples.iter().map(|(_, ms)| ms).sum();
        let count = latency.samples.len();
        text += &format!(
            "{event}: in {count} seconds, {} milliseconds on average in these, {} at most.\n",
            sum_ms / count as u64,
            latency.max_ms
        );
    }
    if !known.is_empty() {
        text += "SLOWLOG GET shows the slowest of them. Commands that walk over many keys or long values take long: \
                 SCAN in place of KEYS, smaller values. The debug log tells of long turns and where their time went.\n";
    }
    Reply::Text(text)
}

/// `LATENCY HISTOGRAM`: of each command that was called how many calls took so many microseconds at most.
fn histograms(request: &Request<'_>, gather: &Gather) -> Reply<'static> {
    let named: Vec<&Command> = request.args().filter_map(command::find_full).collect();
    let is_asked = |row: &Command| {
        let is =
            |name: &&Command| **name == *row || row.container == Some(name.name) && name.container.is_none();
        request.arg_count() == 0 || named.iter().any(is)
    };
    let called =
        gather.report.traffic.calls.called().filter(|(row, _, took)| took.count() > 0 && is_asked(row));
    Reply::Map(called.map(|(row, calls, took)| (row.full_name().into(), histogram(calls, took))).collect())
}

fn histogram(calls: u64, took: &Histogram) -> Reply<'static> {
    let mut sum = 0;
    let bounds = BOUNDS_NS.iter().map(|ns| ns / 1000).chain([i64::MAX as u64]);
    let cumulated = bounds.zip(took.buckets).filter(|(_, count)| *count > 0).map(|(us, count)| {
        sum += count;
        (Reply::Integer(us as i64), Reply::Integer(sum as i64))
    });
    Reply::Map(vec![
        (Cow::Borrowed("calls"), Reply::Integer(calls as i64)),
        (Cow::Borrowed("histogram_usec"), Reply::Pairs(cumulated.collect())),
    ])
}
