//! The commands that the server answers outside the keyspace: about the connection, the server and its files.
//!
//! Each is answered at once, or says by [`Next`] what its worker has to do for it. Where all workers have to be asked,
//! the command comes back here with what they have answered ([`gathered`]).

mod arguments;
pub(crate) mod backup;
pub(crate) mod client_commands;
mod client_filter;
mod command_docs;
mod config;
mod debug;
pub(crate) mod info;
mod key_specs;
pub(crate) mod listing;
mod lolwut;
mod memory;
pub(crate) mod persistence;
mod scan;
mod slowlog;
pub(crate) mod vocabulary;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use shard::analytics::query::{Detail, Question};
use shard::command::{self, Merge, Server};
use shard::{AutoTtl, Error, Glob, Reply, Request};

use crate::client::Client;
use crate::client::listing::Listing;
use crate::client::reply::answer;
use crate::clock::{Clock, wall_clock_us};
use crate::config::InvalidValue;
use crate::mesh::Call;
use crate::metrics::Report;
use crate::protocol::Dialect;
use crate::recovery::random_seeds;
use crate::shared::Shared;
use crate::txn::gather::Gather;

pub(crate) use scan::ScanArguments;

/// The version of Redis whose commands and replies kvlite follows; clients choose their features by it.
const REDIS_VERSION: &str = "7.0.15";

/// The error for a client that wants to follow this server. `SYNC` is among what it asks for on the RESP ports, where
/// it would wait for a snapshot behind an `+OK`.
const NO_REPLICATION: Error = Error::Unavailable(
    "there is no replication yet: BACKUP copies the data, KVLITE.SYNC and WAITAOF bring it to disk",
);

/// What the commands are told of the server and of the worker that runs them.
pub(crate) struct About<'a> {
    pub shared: &'a Shared,
    /// The number of the worker, and of all workers.
    pub worker: usize,
    pub workers: usize,
    pub clock: &'a Clock,
    /// The server's time.
    pub now_ms: u64,
    /// Milliseconds from the start of the server.
    pub uptime_ms: u64,
    /// Which TTL keys get that are written without one.
    pub auto_ttl: &'a Arc<AutoTtl>,
    /// A shard hangs in its disk.
    pub some_hang: bool,
}

/// What a worker has to do for a command.
pub(crate) enum Next {
    /// Nothing: the client was answered.
    Nothing,
    /// Ask workers; then [`gathered`] has the reply.
    Ask(Ask),
    /// Describe the client that asks.
    Describe,
    /// Let the client wait for what does not come, for so long or without an end.
    Wait {
        /// How long.
        timeout_ms: Option<u64>,
    },
    /// Do nothing for so long.
    Sleep(Duration),
    /// End the server.
    Stop,
    /// Lock all shards, and copy them.
    Backup,
    /// Walk over all keys.
    Keys(Arc<Glob>),
    /// Walk over a page of keys.
    Scan(ScanArguments),
    /// Go on with this in the turns to come.
    Listing(Listing),
    /// Something about scripts and libraries, which the worker keeps.
    Scripting,
}

impl Next {
    /// Whether other workers have to take part.
    pub(crate) fn needs_others(&self) -> bool {
        matches!(self, Next::Ask(_) | Next::Backup | Next::Keys(_) | Next::Scan(_))
    }
}

/// A call to every worker.
pub(crate) struct Ask {
    pub call: Call,
    /// Workers that hang in their disks are asked, too, for later; the client is told that they have not answered.
    pub asks_hung: bool,
    /// What the client is answered once all is done, where that is known.
    pub then: Option<Reply<'static>>,
    /// How long the client waits, if it does not wait for ever.
    pub timeout_ms: Option<u64>,
    /// The first worker alone is asked.
    pub is_of_first: bool,
}

impl From<Call> for Next {
    fn from(call: Call) -> Next {
        Next::Ask(Ask { call, asks_hung: false, then: None, timeout_ms: None, is_of_first: false })
    }
}

/// Answers a command of the server, or says what is to be done for it.
pub(crate) fn run(client: &mut Client, request: &Request<'_>, about: &About<'_>) -> Next {
    match try_run(client, request, about) {
        Ok(next) => next,
        Err(error) => {
            answer(client, request, &Reply::Error(error));
            Next::Nothing
        }
    }
}

/// The answer to a request whose subcommand has no row: each command that has subcommands has `HELP` among them.
pub(crate) fn unknown_subcommand(error: Error) -> Reply<'static> {
    match error {
        Error::UnknownSubcommand { command, name } if name.eq_ignore_ascii_case(b"HELP") => {
            command_docs::help(command)
        }
        error => Reply::Error(error),
    }
}

fn try_run(client: &mut Client, request: &Request<'_>, about: &About<'_>) -> Result<Next, Error> {
    let command::Run::Server(server) = request.command.run else {
        unreachable!("the shards run {}", request.command.name);
    };
    let config = &about.shared.config;
    let reply = match server {
        Server::Question(_) => {
            let question = Question::of(request)?;
            return if config.enable_analytics {
                Ok(Call::Ask(question).into())
            } else {
                Err(Error::AnalyticsOff)
            };
        }
        Server::CommandDocs | Server::CommandInfo | Server::ConfigGet
            if let Some(listing) = Listing::of(request, client) =>
        {
            return Ok(Next::Listing(listing));
        }
        Server::ClientInfo => return Ok(Next::Describe),
        Server::ClientList => {
            let filter = client_filter::of_list(request, client.id)?;
            return Ok(Call::Clients(Arc::new(filter)).into());
        }
        Server::ClientKill => {
            let filter = client_filter::of_kill(request, client.id)?;
            return Ok(Call::KillClients(Arc::new(filter)).into());
        }
        Server::ClientPause => {
            let pause = client_commands::pause(request, about.uptime_ms)?;
            about.shared.control.pause(pause, about.uptime_ms);
            return Ok(Call::TakeNote.into());
        }
        Server::ClientUnpause => {
            about.shared.control.unpause();
            return Ok(Call::TakeNote.into());
        }
        Server::ClientUnblock => return Ok(client_commands::unblock(request)?.into()),
        Server::ClientReply => match client_commands::set_replies(client, request)? {
            Some(reply) => reply,
            None => return Ok(Next::Nothing),
        },
        Server::Monitor if client.session.is_counted_as_monitor => return Ok(Next::Nothing), // As in Redis.
        Server::Monitor => {
            client.session.is_counted_as_monitor = true;
            about.shared.control.monitors(about.worker, true);
            return Ok(Call::TakeNote.into());
        }
        Server::Debug => match debug::run(request, client, about)? {
            debug::Debugged::Reply(reply) => reply,
            debug::Debugged::Next(next) => return Ok(next),
        },
        Server::Shutdown => return persistence::shutdown(request, about),
        Server::Role => {
            let role = Reply::bytes(b"master");
            Reply::Array(vec![role, Reply::Integer(0), Reply::Array(Vec::new())])
        }
        Server::Replicaof if follows_none(request) => Reply::Ok,
        Server::Replicaof => return Err(NO_REPLICATION),
        Server::Wait => match persistence::wait_timeout(request)? {
            Some(timeout_ms) => {
                return Ok(Next::Wait { timeout_ms: Some(timeout_ms).filter(|ms| *ms > 0) });
            }
            None => Reply::Integer(0),
        },
        Server::Command => command_docs::all_infos(),
        Server::CommandCount => Reply::count(command::TABLE.len()),
        Server::CommandDocs => command_docs::docs(request),
        Server::CommandGetkeys => command_docs::keys(request)?,
        Server::CommandGetkeysandflags => command_docs::keys_and_flags(request)?,
        Server::CommandInfo => command_docs::infos(request),
        Server::CommandList => command_docs::list(request)?,
        Server::Help => command_docs::help_for_people(request)?,
        Server::MemoryMallocStats => memory::malloc_stats(),
        Server::MemoryPurge => Reply::Ok,
        Server::Time => time(),
        Server::Lolwut => lolwut::lolwut(request)?,
        Server::Randomkey => {
            let [random, ..] = random_seeds();
            return Ok(Call::RandomKey { database: request.database, random }.into());
        }
        Server::Pfselftest if shard::hyperloglog_passes_self_test() => Reply::Ok,
        Server::Pfselftest => {
            return Err(Error::Unavailable("TESTFAILED distinct elements are not counted well"));
        }
        Server::ConfigGet => config::get(about, request, client.session.dialect)?,
        Server::ConfigResetstat => return Ok(Call::Report.into()),
        Server::ConfigRewrite => {
            let rewrite = Arc::new(config::rewrite(about)?);
            return Ok(Call::RewriteConfig { worker: about.worker, rewrite }.into());
        }
        Server::ConfigSet => match config::set(about, request, client.session.dialect)? {
            Some(auto_ttl) => return Ok(Next::Ask(set_auto_ttl(auto_ttl, Reply::Ok, about))),
            None => {
                about.shared.control.changed();
                Reply::Ok
            }
        },
        Server::Discard | Server::Exec | Server::Multi | Server::Unwatch | Server::Watch => {
            unreachable!("{} is about transactions", request.command.name)
        }
        Server::Container => unreachable!("{} has a subcommand", request.command.name),
        Server::Auth
        | Server::ClientGetname
        | Server::ClientId
        | Server::ClientNoEvict
        | Server::ClientSetinfo
        | Server::ClientSetname
        | Server::Echo
        | Server::Hello
        | Server::Ping
        | Server::Quit
        | Server::Reset
        | Server::Select => client_commands::run(client, request, server, about)?,
        Server::LatencyDoctor
        | Server::LatencyHistogram
        | Server::LatencyHistory
        | Server::LatencyLatest
        | Server::LatencyReset
        | Server::SlowlogGet
        | Server::SlowlogLen
        | Server::SlowlogReset => return Ok(slowlog::question(request, server)?.into()),
        Server::Keys => return Ok(Next::Keys(Arc::new(Glob::new(request.arg(0))?))),
        Server::Function(_)
        | Server::ScriptDebug
        | Server::ScriptExists
        | Server::ScriptFlush
        | Server::ScriptKill
        | Server::ScriptLoad => return Ok(Next::Scripting),
        Server::Scan => return Ok(Next::Scan(scan::scan_arguments(request)?)),
        Server::CompactWhen
        | Server::Health
        | Server::Info
        | Server::Lastsave
        | Server::MemoryDoctor
        | Server::MemoryStats
        | Server::Stats => return Ok(Call::Report.into()),
        Server::Psubscribe
        | Server::Publish
        | Server::PubsubChannels
        | Server::PubsubNumpat
        | Server::PubsubNumsub
        | Server::PubsubShardchannels
        | Server::PubsubShardnumsub
        | Server::Punsubscribe
        | Server::Spublish
        | Server::Ssubscribe
        | Server::Subscribe
        | Server::Sunsubscribe
        | Server::Unsubscribe
        | Server::ClientCaching
        | Server::ClientGetredir
        | Server::ClientTracking
        | Server::ClientTrackinginfo => unreachable!("messages are the worker's"),
        Server::Backup
        | Server::Bgrewriteaof
        | Server::Bgsave
        | Server::Compact
        | Server::Replication
        | Server::Save
        | Server::Sync
        | Server::SyncOfText
        | Server::Waitaof => match persistence::run(client, request, server, about)? {
            Some(next) => return Ok(next),
            None => persistence::synced_count(0),
        },
    };
    answer(client, request, &reply); // In the dialect that HELLO and RESET may just have set.
    Ok(Next::Nothing)
}

/// Whether a `REPLICAOF` asks for what is so anyway.
fn follows_none(request: &Request<'_>) -> bool {
    request.arg(0).eq_ignore_ascii_case(b"NO") && request.arg(1).eq_ignore_ascii_case(b"ONE")
}

/// The Unix time by the wall clock: seconds, and the microseconds of this one.
fn time() -> Reply<'static> {
    let unix_us = wall_clock_us();
    let number = |number: u64| Reply::Bulk(Cow::Owned(number.to_string().into_bytes()));
    Reply::Array(vec![number(unix_us / 1_000_000), number(unix_us % 1_000_000)])
}

/// What comes of a command for which every worker was asked.
pub(crate) enum Gathered {
    /// The reply.
    Reply(Reply<'static>),
    /// Another question.
    Ask(Box<Ask>),
    /// The reply, and a snapshot of every shard, which is not waited for.
    Compact(Reply<'static>),
    /// The client is shown the commands of all clients from now on.
    Monitor,
    /// The server is to end.
    Stop,
}

/// What comes of a command for which every worker was asked, for a client that is answered in this dialect.
pub(crate) fn gathered(
    request: &Request<'_>,
    dialect: Dialect,
    gather: &mut Gather,
    about: &About<'_>,
) -> Gathered {
    let command::Run::Server(server) = request.command.run else {
        unreachable!("the shards run {}", request.command.name);
    };
    Gathered::Reply(match server {
        Server::Question(_) if gather.then.is_none() => {
            let reply = found(request, dialect, gather);
            return follow_up(request, &reply, about)
                .map_or(Gathered::Reply(reply), |ask| Gathered::Ask(Box::new(ask)));
        }
        Server::Function(_) | Server::ScriptLoad if let Some(libraries) = gather.libraries.take() => {
            let then = gather.then.take();
            let call = Call::TakeLibraries(libraries);
            let ask = Ask { call, asks_hung: true, then, timeout_ms: None, is_of_first: false };
            return Gathered::Ask(Box::new(ask));
        }
        Server::Function(_) | Server::ScriptLoad => match gather.merge(Merge::AllOk) {
            Reply::Ok => gather.then.take().unwrap_or(Reply::Ok),
            error => error,
        },
        Server::Question(_) | Server::ConfigSet => gather.then.take().expect("it was known from the start"),
        Server::ClientList => gather.lines(),
        Server::ClientKill => match (gather.merge(Merge::Sum), request.arg_count()) {
            (Reply::Integer(0), 1) => Reply::Error(Error::OutOfRange("No such client")),
            (_, 1) => Reply::Ok,
            (killed, _) => killed,
        },
        Server::ClientUnblock => gather.merge(Merge::Sum),
        Server::Monitor => match gather.merge(Merge::AllOk) {
            Reply::Ok => return Gathered::Monitor,
            error => error,
        },
        Server::Shutdown => match gather.merge(Merge::AllOk) {
            Reply::Error(_) if !persistence::is_forced(request) => {
                Reply::Error(Error::OutOfRange("Errors trying to SHUTDOWN. Check logs."))
            }
            _ => return Gathered::Stop,
        },
        Server::ConfigResetstat => {
            about.shared.leave_out(Report::clone(&gather.report));
            Reply::Ok
        }
        Server::Randomkey => random_key(gather.take_parts()),
        Server::Info if dialect == Dialect::Text => info::text_info(about, gather),
        Server::Info => info::info(about, request, gather),
        Server::Stats => info::stats(about, gather),
        Server::MemoryDoctor => memory::doctor(about.shared, &gather.report),
        Server::MemoryStats => memory::memory_stats(about.shared, &gather.report),
        Server::Health => info::health(about, gather),
        Server::CompactWhen => persistence::compact_when(about, gather),
        Server::Bgrewriteaof | Server::Bgsave => {
            return persistence::begin_compaction(request, server, gather.report.compacting);
        }
        Server::Lastsave => Reply::Integer(gather.report.saved_s.unwrap_or_default() as i64),
        Server::Waitaof => match gather.merge(Merge::AllOk) {
            Reply::Ok => persistence::synced_count(1),
            error => error,
        },
        Server::LatencyDoctor
        | Server::LatencyHistogram
        | Server::LatencyHistory
        | Server::LatencyLatest
        | Server::LatencyReset
        | Server::SlowlogGet
        | Server::SlowlogLen
        | Server::SlowlogReset => slowlog::reply(request, server, gather, about),
        _ => gather.merge(Merge::AllOk),
    })
}

/// One of the keys that the shards have chosen, by how many each has chosen it from.
fn random_key(parts: Vec<Reply<'static>>) -> Reply<'static> {
    let chosen = parts.into_iter().filter_map(|part| match part {
        Reply::Array(items) => match <[_; 2]>::try_from(items) {
            Ok([key, Reply::Integer(count)]) => Some((key, count as u64)),
            _ => None,
        },
        _ => None,
    });
    let chosen: Vec<_> = chosen.collect();
    let [random, ..] = random_seeds();
    let mut place = random.checked_rem(chosen.iter().map(|(_, count)| count).sum()).unwrap_or_default();
    for (key, count) in chosen {
        match place.checked_sub(count) {
            Some(rest) => place = rest,
            None => return key,
        }
    }
    Reply::Nil
}

/// What is left to do before the client gets the reply to a question: to apply a suggestion.
fn follow_up(request: &Request<'_>, reply: &Reply<'static>, about: &About<'_>) -> Option<Ask> {
    let rule = Question::of(request).ok()?.rule_to_apply(reply)?;
    let (auto_ttl, then) = match about.auto_ttl.with(rule) {
        Some(auto_ttl) => (auto_ttl, reply.clone()),
        None => {
            let error = Error::InvalidSetting("auto-ttl", InvalidValue::AutoTtlTooMany.to_string().into());
            (AutoTtl::clone(about.auto_ttl), Reply::Error(error))
        }
    };
    Some(set_auto_ttl(auto_ttl, then, about))
}

/// Brings rules for TTLs to all shards. The client is then answered.
fn set_auto_ttl(auto_ttl: AutoTtl, then: Reply<'static>, about: &About<'_>) -> Ask {
    let (auto_ttl, version) = (Arc::new(auto_ttl), about.shared.auto_ttl_versions.next());
    let call = Call::SetAutoTtl { auto_ttl, version };
    Ask { call, asks_hung: true, then: Some(then), timeout_ms: None, is_of_first: false }
}

/// The reply to a question about the use of keys, out of what all shards have found.
fn found(request: &Request<'_>, dialect: Dialect, gather: &mut Gather) -> Reply<'static> {
    let question = Question::of(request).expect("it was understood before it was asked");
    let mut all = gather.results.drain(..);
    let mut result = all.next().expect("each worker has answered");
    all.for_each(|more| result.add(more, &question));
    result.reply(&question, if dialect == Dialect::Text { Detail::Brief } else { Detail::Full })
}
