//! The commands that the server answers outside the keyspace: about the connection, the server and its files.
//!
//! A command that every worker must be asked about begins here and ends in [`Worker::gathered`].

pub(crate) mod backup;

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use shard::analytics::inquiry::Question;
use shard::analytics::load::{AHEAD, Outlook};
use shard::command::{self, Access, Server};
use shard::{AutoTtl, Command, Dialect, Error, Glob, Reply, Request, Stats, parse_integer};

use crate::client::job::Job;
use crate::client::listing::Listing;
use crate::client::reply::{answer, job_id};
use crate::client::{Client, Stage};
use crate::config::{InvalidValue, auto_ttl, auto_ttl_text, option_name};
use crate::durability::{compaction, snapshotter};
use crate::mesh::{Batch, Call, RequestId};
use crate::metrics::Report;
use crate::txn::gather::Gather;
use crate::worker::Worker;

/// The version of Redis whose commands and replies kvlite follows; clients choose their features by it.
const REDIS_VERSION: &str = "7.0.15";

/// The version of kvlite that had every command of the table first.
const FIRST_VERSION: &str = "0.1.0";

/// How many keys a page of `SCAN` visits when the client does not say.
const SCAN_COUNT_DEFAULT: usize = 10;

/// The error for a client that wants to follow this server. `SYNC` is among what it asks for on the RESP ports, where
/// it would wait for a snapshot behind an `+OK`.
const NO_REPLICATION: Error = Error::Unavailable(
    "there is no replication yet: BACKUP copies the data, KVLITE.SYNC and WAITAOF bring it to disk",
);

impl Worker {
    /// Answers a command of the server, now or, where other workers have to be asked, by a job.
    pub(crate) fn run_server_command(&mut self, client: &mut Client, request: &Request<'_>) {
        match self.try_server_command(client, request) {
            Ok(()) => {}
            Err(Error::UnknownSubcommand { command, name }) if name.eq_ignore_ascii_case(b"HELP") => {
                answer(client, request, &subcommands(command));
            }
            Err(error) => answer(client, request, &Reply::Error(error)),
        }
    }

    fn try_server_command(&mut self, client: &mut Client, request: &Request<'_>) -> Result<(), Error> {
        let (command::Run::Server(server), text) = (request.command.run, client.dialect == Dialect::Text)
        else {
            unreachable!("the shards run {}", request.command.name);
        };
        let reply = match server {
            Server::Analytics => {
                let question = Question::of(request)?;
                if !self.shared.config.enable_analytics {
                    return Err(Error::AnalyticsOff);
                }
                self.begin_gather(client, request, |_| Call::Ask(question.clone()));
                return Ok(());
            }
            Server::Command | Server::Config if let Some(listing) = Listing::of(request, client) => {
                self.begin_job(client, Job::Listing(listing));
                return Ok(());
            }
            Server::Client if request.arg(0).eq_ignore_ascii_case(b"LIST") => {
                if request.arg_count() > 1 {
                    return Err(Error::Syntax);
                }
                self.begin_gather(client, request, |_| Call::Clients);
                return Ok(());
            }
            Server::Client => self.client_command(client, request)?,
            Server::Command => describe_commands(request)?,
            Server::Config if request.arg(0).eq_ignore_ascii_case(b"SET") => {
                let auto_ttl = self.setting(request)?;
                let gather = self.set_auto_ttl(request, auto_ttl, Reply::Ok, job_id(client));
                self.begin_job(client, Job::Gather(gather));
                return Ok(());
            }
            Server::Config => self.config_command(request)?,
            Server::Echo => Reply::bytes(request.arg(0)),
            Server::Hello => hello(client, request)?,
            Server::Ping => request.args().next().map_or(Reply::Simple("PONG"), Reply::bytes),
            Server::Select => match parse_integer(request.arg(0)) {
                Some(0) => Reply::Ok,
                Some(_) => return Err(Error::DbIndexOutOfRange),
                None => return Err(Error::InvalidDbIndex),
            },
            Server::Quit => {
                client.stage = Stage::Closing;
                if text { Reply::Simple("OK goodbye") } else { Reply::Ok }
            }
            Server::Keys => {
                let pattern = Glob::new(request.arg(0))?;
                self.begin_keys(client, Arc::new(pattern));
                return Ok(());
            }
            Server::Scan => {
                let ScanArguments { cursor, count, pattern } = scan_arguments(request)?;
                self.begin_scan(client, cursor, count, pattern);
                return Ok(());
            }
            Server::Bgsave if request.args().any(|arg| !arg.eq_ignore_ascii_case(b"SCHEDULE")) => {
                return Err(Error::Syntax);
            }
            Server::Bgrewriteaof
            | Server::Bgsave
            | Server::Health
            | Server::Info
            | Server::Lastsave
            | Server::Stats => {
                self.begin_gather(client, request, |_| Call::Report);
                return Ok(());
            }
            Server::Memory if request.arg(0).eq_ignore_ascii_case(b"USAGE") => {
                let (row, count) = (&command::MEMORY_USAGE, request.arg_count() - 1);
                if !(row.args_min..=row.args_max).contains(&count) {
                    return Err(Error::WrongSubcommandArity(request.command, "usage"));
                }
                self.run_at_owner(client, &request.subcommand(row));
                return Ok(());
            }
            Server::Memory if !request.arg(0).eq_ignore_ascii_case(b"STATS") => {
                return Err(Error::UnknownSubcommand {
                    command: request.command,
                    name: request.arg(0).into(),
                });
            }
            Server::Memory if request.arg_count() > 1 => {
                return Err(Error::WrongSubcommandArity(request.command, "stats"));
            }
            Server::Memory => {
                self.begin_gather(client, request, |_| Call::Report);
                return Ok(());
            }
            Server::Reset => {
                client.reset();
                Reply::Simple("RESET")
            }
            Server::Sync if !text && request.command.name == "SYNC" => return Err(NO_REPLICATION),
            Server::Replication => return Err(NO_REPLICATION),
            Server::Waitaof if waitaof_arguments(request)?.numlocal == 0 => synced_count(0),
            Server::Backup | Server::Compact | Server::Save | Server::Sync | Server::Waitaof
                if self.some_hang() =>
            {
                return Err(Error::Unavailable("the disk of a shard hangs; nothing was done"));
            }
            Server::Backup => {
                backup::place(self.shared.config.backup_dir.as_deref(), request.arg(0))?;
                self.shared.backups.begin()?;
                self.begin_transaction(client, request);
                return Ok(());
            }
            Server::Sync => {
                self.begin_gather(client, request, |_| Call::Sync);
                return Ok(());
            }
            Server::Waitaof => {
                let timeout_ms = waitaof_arguments(request)?.timeout_ms;
                self.begin_gather(client, request, |_| Call::Sync);
                if let (Some(Job::Gather(gather)), 1..) = (client.job.as_deref_mut(), timeout_ms) {
                    gather.deadline_ms = Some(client.job_since_ms.saturating_add(timeout_ms));
                }
                return Ok(());
            }
            Server::Compact if asks_when(request)? => {
                self.begin_gather(client, request, |_| Call::Report);
                return Ok(());
            }
            Server::Compact | Server::Save => {
                self.begin_gather(client, request, |_| Call::Compact);
                return Ok(());
            }
        };
        // HELLO and RESET have just changed the dialect in which they are answered themselves.
        client.replies.now(|out| {
            crate::protocol::write_reply(
                &reply,
                Some(request.command),
                request.arg_count(),
                client.dialect,
                out,
            );
        });
        Ok(())
    }

    /// The reply to a command for which every worker was asked.
    pub(crate) fn gathered(&mut self, request: &Request<'_>, gather: &mut Gather) -> Reply<'static> {
        let command::Run::Server(server) = request.command.run else {
            unreachable!("the shards run {}", request.command.name);
        };
        match server {
            Server::Analytics if gather.then.is_none() => found(request, gather),
            Server::Analytics | Server::Config => gather.then.take().expect("it was known from the start"),
            Server::Client => gather.text(),
            Server::Info if request.dialect == Dialect::Text => self.text_info(gather),
            Server::Info => self.info(request, gather),
            Server::Stats => self.stats(gather),
            Server::Memory => memory_stats(&gather.report),
            Server::Health => self.health(gather),
            Server::Compact if request.arg_count() > 0 => self.compact_when(gather),
            Server::Bgrewriteaof | Server::Bgsave => self.compact_unheard(request, gather.report.compacting),
            Server::Lastsave => Reply::Integer(gather.report.saved_s.unwrap_or_default() as i64),
            Server::Waitaof => match gather.merge(command::Merge::AllOk) {
                Reply::Ok => synced_count(1),
                error => error,
            },
            _ => gather.merge(command::Merge::AllOk),
        }
    }

    /// Asks every worker for a snapshot for which nobody waits; it follows the one that is being written, if any.
    fn compact_unheard(&mut self, request: &Request<'_>, compacting: bool) -> Reply<'static> {
        let is_save = request.command.name == "BGSAVE";
        if is_save && compacting && request.arg_count() == 0 {
            return Reply::Error(Error::SaveInProgress);
        }
        for worker in 0..self.mesh.worker_count() {
            self.mesh.to(worker).call(snapshotter::REQUEST_ID, Call::CompactUnheard);
        }
        Reply::Simple(match (is_save, compacting) {
            (true, false) => "Background saving started",
            (true, true) => "Background saving scheduled",
            (false, false) => "Background append only file rewriting started",
            (false, true) => "Background append only file rewriting scheduled",
        })
    }

    fn text_info(&self, gather: &Gather) -> Reply<'static> {
        fields([
            ("keys", gather.report.shard.keys),
            ("connections", self.shared.connections.count() as u64),
            ("wal_size", gather.report.wal_size_bytes),
        ])
    }

    fn stats(&self, gather: &Gather) -> Reply<'static> {
        let report = &gather.report;
        let mut reply = fields([
            ("keys", report.shard.keys),
            ("connections", self.shared.connections.count() as u64),
            ("wal_size", report.wal_size_bytes),
            ("wal_entries", report.wal_entries),
        ]);
        let more = fields([
            ("ttl_expired", report.shard.ttl_expired),
            ("ttl_checks", report.shard.ttl_checks),
            ("reads", report.shard.reads),
            ("writes", report.shard.writes),
            ("hits", report.shard.hits),
            ("misses", report.shard.misses),
            ("commands", report.commands),
            ("keys_with_ttl", report.shard.keys_with_deadline),
            ("memory_bytes", report.shard.memory_bytes),
            ("analytics_memory_bytes", report.shard.analytics_memory_bytes),
            ("shards", self.mesh.worker_count() as u64),
            ("uptime_seconds", self.shared.started.elapsed().as_secs()),
        ]);
        let (Reply::Map(fields), Reply::Map(more)) = (&mut reply, more) else {
            unreachable!("both were made as maps");
        };
        fields.push(("needs_compaction".into(), Reply::Bool(report.needs_compaction)));
        fields.extend(more);
        fields.push(("wal_healthy".into(), Reply::Bool(report.wal_fault.is_none())));
        fields.push(("snapshot_healthy".into(), Reply::Bool(report.snapshot_fault.is_none())));
        reply
    }

    fn health(&self, gather: &Gather) -> Reply<'static> {
        let report = &gather.report;
        let loading = &self.shared.loading;
        let status = match (&report.wal_fault, &report.snapshot_fault) {
            _ if !loading.is_over() => "loading",
            (None, None) => "healthy",
            _ => "degraded",
        };
        let error = |name: &str, fault: &Option<Arc<str>>| {
            let cause = fault.as_deref();
            cause.map(|cause| format!(",\"{name}\":{}", json_string(cause))).unwrap_or_default()
        };
        let percent = (!loading.is_over()).then(|| format!(",\"loading_percent\":{}", loading.percent()));
        let json = format!(
            "{{\"status\":\"{status}\",\"keys\":{},\"connections\":{},\"wal_size\":{},\"wal_healthy\":{}{},\
             \"snapshot_healthy\":{}{},\"needs_compaction\":{},\"shards\":{},\"uptime_seconds\":{}{}}}",
            report.shard.keys,
            self.shared.connections.count(),
            report.wal_size_bytes,
            report.wal_fault.is_none(),
            error("wal_error", &report.wal_fault),
            report.snapshot_fault.is_none(),
            error("snapshot_error", &report.snapshot_fault),
            report.needs_compaction,
            self.mesh.worker_count(),
            self.shared.started.elapsed().as_secs(),
            percent.unwrap_or_default(),
        );
        Reply::Bulk(Cow::Owned(json.into_bytes()))
    }

    /// When the log will be compacted: the load now, by the forecast, and in the quietest hour of the next day.
    fn compact_when(&self, gather: &Gather) -> Reply<'static> {
        let report = &gather.report;
        let decision = compaction::decide(report.log_fill, report.outlook.as_deref());
        let integer = |rate: f32| Reply::Integer(rate.round() as i64);
        let known = report.outlook.as_deref().filter(|outlook| outlook.hours_known == AHEAD);
        let (hours_ahead, lowest) = known.map(Outlook::lowest).unzip();
        let unix_ms = self.clock.unix_ms(self.now_ms);
        let hour = hours_ahead.map(|ahead| (unix_ms / 3_600_000 + ahead as u64) % 24);
        let text = |text: String| Reply::Bulk(Cow::Owned(text.into_bytes()));
        Reply::Map(vec![
            ("reason".into(), Reply::bytes(decision.reason().as_bytes())),
            ("log_percent".into(), Reply::Integer((report.log_fill * 100.0) as i64)),
            ("load".into(), report.outlook.as_ref().map_or(Reply::Nil, |outlook| integer(outlook.rate))),
            ("forecast".into(), known.map_or(Reply::Nil, |outlook| integer(outlook.forecast[0]))),
            ("lowest".into(), lowest.map_or(Reply::Nil, integer)),
            ("hour".into(), hour.map_or(Reply::Nil, |hour| text(format!("{hour:02}:00Z")))),
            (
                "hours_known".into(),
                Reply::Integer(report.outlook.as_ref().map_or(0, |it| it.hours_known as i64)),
            ),
        ])
    }

    fn info(&self, request: &Request<'_>, gather: &Gather) -> Reply<'static> {
        let report = &gather.report;
        let config = &self.shared.config;
        let uptime = self.shared.started.elapsed().as_secs();
        let sections: [(&str, Vec<(&str, String)>); 6] = [
            (
                "Server",
                vec![
                    ("redis_version", REDIS_VERSION.to_owned()),
                    ("redis_mode", "standalone".to_owned()),
                    ("kvlite_version", env!("CARGO_PKG_VERSION").to_owned()),
                    ("process_id", std::process::id().to_string()),
                    ("tcp_port", self.shared.resp_port.unwrap_or(0).to_string()),
                    ("text_port", config.port.to_string()),
                    ("shards", self.mesh.worker_count().to_string()),
                    ("uptime_in_seconds", uptime.to_string()),
                    ("uptime_in_days", (uptime / 86_400).to_string()),
                ],
            ),
            (
                "Clients",
                vec![
                    ("connected_clients", self.shared.connections.count().to_string()),
                    ("maxclients", config.max_connections.to_string()),
                ],
            ),
            ("Memory", {
                let mut lines = vec![("used_memory", report.shard.memory_bytes.to_string())];
                lines.extend(resident_bytes().map(|bytes| ("used_memory_rss", bytes.to_string())));
                lines.push(("maxmemory", "0".to_owned()));
                lines
            }),
            ("Persistence", self.persistence(report)),
            (
                "Stats",
                vec![
                    ("total_connections_received", self.shared.clients_accepted.count().to_string()),
                    ("rejected_connections", self.shared.connections_refused.count().to_string()),
                    ("total_commands_processed", report.commands.to_string()),
                    ("expired_keys", report.shard.ttl_expired.to_string()),
                    ("keyspace_hits", report.shard.hits.to_string()),
                    ("keyspace_misses", report.shard.misses.to_string()),
                ],
            ),
            (
                "Keyspace",
                match report.shard.keys {
                    0 => vec![],
                    keys => vec![(
                        "db0",
                        format!("keys={keys},expires={},avg_ttl=0", report.shard.keys_with_deadline),
                    )],
                },
            ),
        ];
        let asked = |name: &str| {
            let everything = ["all", "default", "everything"];
            let mut asked = request.args().peekable();
            asked.peek().is_none()
                || asked.any(|arg| {
                    let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
                    is(name) || everything.into_iter().any(is)
                })
        };
        let mut text = String::new();
        for (name, lines) in sections.iter().filter(|(name, _)| asked(name)) {
            let separator = if text.is_empty() { "" } else { "\r\n" };
            let _ = write!(text, "{separator}# {name}\r\n"); // Writing to a string cannot fail.
            for (field, value) in lines {
                let _ = write!(text, "{field}:{value}\r\n");
            }
        }
        Reply::Text(text)
    }

    fn persistence(&self, report: &Report) -> Vec<(&'static str, String)> {
        let flag = |is: bool| u8::from(is).to_string();
        let status = |fault: &Option<Arc<str>>| if fault.is_none() { "ok" } else { "err" }.to_owned();
        let loading = &self.shared.loading;
        let is_loading = !loading.is_over();
        let mut lines = vec![
            ("loading", flag(is_loading)),
            ("rdb_bgsave_in_progress", flag(report.compacting)),
            ("rdb_last_bgsave_status", status(&report.snapshot_fault)),
            ("rdb_last_save_time", report.saved_s.unwrap_or_default().to_string()),
            ("aof_enabled", "1".to_owned()),
            ("aof_rewrite_in_progress", flag(report.compacting)),
            ("aof_last_bgrewrite_status", status(&report.snapshot_fault)),
            ("aof_last_write_status", status(&report.wal_fault)),
            ("wal_error", report.wal_fault.as_deref().unwrap_or_default().to_owned()),
            ("snapshot_error", report.snapshot_fault.as_deref().unwrap_or_default().to_owned()),
            ("wal_size", report.wal_size_bytes.to_string()),
            ("wal_entries", report.wal_entries.to_string()),
            ("wal_needs_compaction", flag(report.needs_compaction)),
        ];
        let backups = &self.shared.backups;
        let percent = backups.percent();
        lines.extend([
            ("backup_in_progress", flag(percent.is_some())),
            ("backup_last_status", if backups.last_failed() { "err" } else { "ok" }.to_owned()),
            ("backup_last_time", backups.last_ms().map_or(0, |ms| self.clock.unix_ms(ms) / 1000).to_string()),
        ]);
        lines.extend(percent.map(|percent| ("backup_percent", percent.to_string())));
        if is_loading {
            let extent = loading.extent();
            lines.extend([
                ("loading_start_time", (self.clock.unix_ms(self.clock.now_ms(0)) / 1000).to_string()),
                ("loading_total_bytes", extent.total_bytes.to_string()),
                ("loading_loaded_bytes", extent.read_bytes.to_string()),
                ("loading_loaded_perc", format!("{}.00", loading.percent())),
                ("loading_eta_seconds", loading.seconds_left().to_string()),
            ]);
        }
        lines
    }

    fn config_command(&self, request: &Request<'_>) -> Result<Reply<'static>, Error> {
        let subcommand = request.arg(0);
        if !subcommand.eq_ignore_ascii_case(b"GET") {
            return Err(Error::UnknownSubcommand { command: request.command, name: subcommand.into() });
        }
        if request.arg_count() < 2 {
            return Err(Error::WrongSubcommandArity(request.command, "get"));
        }
        let options = self.options();
        if request.dialect == Dialect::Text
            && request.arg_count() == 2
            && let name = option_name(request.arg(1))
            && !name.iter().any(|byte| b"*?[\\".contains(byte))
        {
            let option = options.into_iter().find(|(known, _)| known.as_bytes() == name);
            let (_, value) = option.ok_or_else(|| Error::UnknownOption(request.arg(1).into()))?;
            return Ok(Reply::Bulk(Cow::Owned(value.into_bytes())));
        }
        let mut shown = Vec::new();
        self.mark_options(request.args().skip(1), &mut shown)?;
        Ok(self.shown_options(&shown, request.dialect))
    }

    /// The options of the server and their values.
    pub(crate) fn options(&self) -> Vec<(&'static str, String)> {
        let options = self.shared.config.options().into_iter().map(|(name, value)| match name {
            "auto-ttl" => (name, auto_ttl_text(self.shard.auto_ttl())),
            _ => (name, value),
        });
        options.collect()
    }

    /// The reply with those options that are marked, in their order.
    pub(crate) fn shown_options(&self, shown: &[bool], dialect: Dialect) -> Reply<'static> {
        let shown =
            self.options().into_iter().zip(shown).filter_map(|(option, shown)| shown.then_some(option));
        let value = |value: String| Reply::Bulk(Cow::Owned(value.into_bytes()));
        match dialect {
            Dialect::Text => {
                Reply::Array(shown.map(|(name, text)| value(format!("{name} {text}"))).collect())
            }
            _ => Reply::Map(shown.map(|(name, text)| (name.into(), value(text))).collect()),
        }
    }

    /// What `CONFIG SET` asks for; of all options, one can change while the server runs.
    fn setting(&self, request: &Request<'_>) -> Result<AutoTtl, Error> {
        if request.arg_count() != 3 {
            return Err(Error::WrongSubcommandArity(request.command, "set"));
        }
        let name = request.arg(1);
        match self.shared.config.option(name) {
            Some(("auto-ttl", _)) => {}
            Some(_) => return Err(Error::FixedOption(name.into())),
            None => return Err(Error::UnknownSetting(name.into())),
        }
        let rules = std::str::from_utf8(request.arg(2)).map_err(|_| InvalidValue::AutoTtl).and_then(auto_ttl);
        rules.map_err(|error| Error::InvalidSetting("auto-ttl", error.to_string().into()))
    }

    /// Brings rules for times to live to all shards. The client is then answered.
    fn set_auto_ttl(
        &mut self,
        request: &Request<'_>,
        auto_ttl: AutoTtl,
        then: Reply<'static>,
        request_id: RequestId,
    ) -> Gather {
        let (auto_ttl, version) = (Arc::new(auto_ttl), self.shared.auto_ttl_versions.next());
        let call = |_: &mut Batch| Call::SetAutoTtl { auto_ttl: auto_ttl.clone(), version };
        // A shard that hangs in its disk gets them, too, for later; the client is told that it has not answered.
        let workers = (0..self.mesh.worker_count()).collect();
        let mut gather = Gather::begin(workers, request, request_id, &mut self.mesh, call);
        gather.then = Some(then);
        gather
    }

    /// What is left to do before the client gets the reply to a question: to apply a suggestion.
    pub(crate) fn follow_up(
        &mut self,
        request: &Request<'_>,
        reply: &Reply<'static>,
        request_id: RequestId,
    ) -> Option<Gather> {
        let command::Run::Server(Server::Analytics) = request.command.run else { return None };
        let rule = Question::of(request).ok()?.rule_to_apply(reply)?;
        let (auto_ttl, then) = match self.shard.auto_ttl().with(rule) {
            Some(auto_ttl) => (auto_ttl, reply.clone()),
            None => {
                let error =
                    Error::InvalidSetting("auto-ttl", InvalidValue::AutoTtlTooMany.to_string().into());
                (AutoTtl::clone(self.shard.auto_ttl()), Reply::Error(error))
            }
        };
        Some(self.set_auto_ttl(request, auto_ttl, then, request_id))
    }

    fn client_command(&self, client: &mut Client, request: &Request<'_>) -> Result<Reply<'static>, Error> {
        let command = request.command;
        let subcommand = request.arg(0).to_ascii_uppercase();
        let arity = |count: usize, name: &'static str| match request.arg_count() == count + 1 {
            true => Ok(()),
            false => Err(Error::WrongSubcommandArity(command, name)),
        };
        match &subcommand[..] {
            b"ID" => arity(0, "id").map(|()| Reply::Integer(client.id as i64)),
            b"GETNAME" => {
                arity(0, "getname")?;
                let name = client.name.clone();
                Ok(if name.is_empty() { Reply::Nil } else { Reply::Bulk(Cow::Owned(name)) })
            }
            b"SETNAME" => {
                arity(1, "setname")?;
                client.name = client_name(request.arg(1))?;
                Ok(Reply::Ok)
            }
            b"SETINFO" => {
                arity(2, "setinfo")?;
                let attribute = request.arg(1).to_ascii_lowercase();
                let known: [&[u8]; 2] = [b"lib-name", b"lib-ver"];
                let Some(index) = known.into_iter().position(|name| name == attribute) else {
                    return Err(Error::UnknownClientAttribute(request.arg(1).into()));
                };
                client.library[index] = client_name(request.arg(2))?;
                Ok(Reply::Ok)
            }
            b"INFO" => {
                arity(0, "info")?;
                Ok(Reply::Text(describe(client, "", self.index)))
            }
            _ => Err(Error::UnknownSubcommand { command, name: request.arg(0).into() }),
        }
    }
}

/// A line about a client, with some fields in the middle.
pub(crate) fn describe(client: &Client, fields: &str, shard: usize) -> String {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "id={} name={} db=0{fields} resp={} lib-name={} lib-ver={} shard={shard}\n",
        client.id,
        shown(&client.name),
        if client.dialect == Dialect::Resp3 { 3 } else { 2 },
        shown(&client.library[0]),
        shown(&client.library[1]),
    )
}

/// The reply to a question about the use of keys, out of what all shards have found.
fn found(request: &Request<'_>, gather: &mut Gather) -> Reply<'static> {
    let question = Question::of(request).expect("it was understood before it was asked");
    let mut all = gather.findings.drain(..);
    let mut findings = all.next().expect("each worker has answered");
    all.for_each(|more| findings.add(more, &question));
    findings.reply(&question, request.dialect)
}

/// What the memory is used for. The names are those of Redis where they mean the same.
fn memory_stats(report: &Report) -> Reply<'static> {
    let Stats { keys, memory_bytes, analytics_memory_bytes, .. } = report.shard;
    let allocated_bytes = memory_bytes + analytics_memory_bytes;
    let resident_bytes = resident_bytes();
    let fragmentation = resident_bytes.map(|resident| resident as f64 / allocated_bytes.max(1) as f64);
    let integer = |number: u64| Reply::Integer(number as i64);
    let decimal = |number: f64| Reply::Bulk(Cow::Owned(format!("{number:.2}").into_bytes()));
    Reply::Map(vec![
        ("total.allocated".into(), integer(allocated_bytes)),
        ("dataset.bytes".into(), integer(memory_bytes)),
        ("keys.count".into(), integer(keys)),
        ("keys.bytes-per-key".into(), integer(memory_bytes.checked_div(keys).unwrap_or(0))),
        ("analytics.bytes".into(), integer(analytics_memory_bytes)),
        ("resident.bytes".into(), resident_bytes.map_or(Reply::Nil, integer)),
        ("fragmentation".into(), fragmentation.map_or(Reply::Nil, decimal)),
    ])
}

/// The memory that the process occupies, in bytes, as far as the system tells.
fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn fields<const N: usize>(fields: [(&'static str, u64); N]) -> Reply<'static> {
    Reply::Map(fields.into_iter().map(|(name, n)| (name.into(), Reply::Integer(n as i64))).collect())
}

/// A text without control characters, as a string of JSON.
fn json_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A list of clients shows the names of all of them.
const CLIENT_NAME_BYTES_MAX: usize = 1024;

/// A name that can stand in a list of clients: printable, without blanks.
fn client_name(name: &[u8]) -> Result<Vec<u8>, Error> {
    if name.len() > CLIENT_NAME_BYTES_MAX {
        return Err(Error::Unavailable("the names of a client and of its library have 1024 bytes at most"));
    }
    match name.iter().all(u8::is_ascii_graphic) {
        true => Ok(name.to_vec()),
        false => Err(Error::InvalidClientName),
    }
}

fn hello(client: &mut Client, request: &Request<'_>) -> Result<Reply<'static>, Error> {
    if client.dialect == Dialect::Text {
        return Err(Error::Unavailable("the text protocol has one version; RESP clients use the RESP port"));
    }
    let mut args = request.args();
    let mut dialect = client.dialect;
    if let Some(version) = args.next() {
        dialect = match parse_integer(version).ok_or(Error::ProtocolNotAnInteger)? {
            2 => Dialect::Resp2,
            3 => Dialect::Resp3,
            _ => return Err(Error::NoProtocol),
        };
    }
    while let Some(option) = args.next() {
        if !option.eq_ignore_ascii_case(b"SETNAME") {
            return Err(Error::HelloSyntax(option.into()));
        }
        let name = args.next().ok_or_else(|| Error::HelloSyntax(option.into()))?;
        client.name = client_name(name)?;
    }
    client.dialect = dialect;
    let text = |text: &'static str| Reply::bytes(text.as_bytes());
    Ok(Reply::Map(vec![
        ("server".into(), text("redis")),
        ("version".into(), text(REDIS_VERSION)),
        ("proto".into(), Reply::Integer(if dialect == Dialect::Resp3 { 3 } else { 2 })),
        ("id".into(), Reply::Integer(client.id as i64)),
        ("mode".into(), text("standalone")),
        ("role".into(), text("master")),
        ("modules".into(), Reply::Array(Vec::new())),
    ]))
}

/// What `WAITAOF` answers: on how many servers everything is on disk, of which there is this one, and no replica.
pub(crate) fn synced_count(local: i64) -> Reply<'static> {
    Reply::Array(vec![Reply::Integer(local), Reply::Integer(0)])
}

/// What a `WAITAOF` asks for.
struct WaitaofArguments {
    /// How many servers, this one only, have to have everything on disk; 0 to wait for none.
    numlocal: i64,
    /// 0 for no end.
    timeout_ms: u64,
}

fn waitaof_arguments(request: &Request<'_>) -> Result<WaitaofArguments, Error> {
    let numlocal = parse_integer(request.arg(0)).ok_or(Error::NotAnInteger)?;
    if !(0..=1).contains(&numlocal) {
        return Err(Error::OutOfRange("value is out of range, value must between 0 and 1"));
    }
    // There are no replicas to wait for, however many are asked for: the reply says that none has anything on disk.
    if parse_integer(request.arg(1)).ok_or(Error::NotAnInteger)? < 0 {
        return Err(Error::OutOfRange("value is out of range, must be positive"));
    }
    let timeout = parse_integer(request.arg(2));
    let timeout = timeout.ok_or(Error::OutOfRange("timeout is not an integer or out of range"))?;
    let timeout_ms = timeout.try_into().map_err(|_| Error::OutOfRange("timeout is negative"))?;
    Ok(WaitaofArguments { numlocal, timeout_ms })
}

/// Whether a `COMPACT` asks when it would happen.
fn asks_when(request: &Request<'_>) -> Result<bool, Error> {
    match request.args().next() {
        None => Ok(false),
        Some(word) if word.eq_ignore_ascii_case(b"WHEN") => Ok(true),
        Some(word) => Err(Error::UnknownSubcommand { command: request.command, name: word.into() }),
    }
}

/// What a `SCAN` asks for.
struct ScanArguments {
    cursor: u64,
    /// The number of keys to visit, about.
    count: usize,
    pattern: Option<Arc<Glob>>,
}

fn scan_arguments(request: &Request<'_>) -> Result<ScanArguments, Error> {
    let cursor = std::str::from_utf8(request.arg(0)).ok().and_then(|digits| digits.parse().ok());
    let cursor = cursor.ok_or(Error::InvalidCursor)?;
    let (mut count, mut pattern, mut of_another_type) = (SCAN_COUNT_DEFAULT, None, false);
    let mut args = request.args().skip(1);
    while let Some(option) = args.next() {
        let value = args.next().ok_or(Error::Syntax)?;
        match &option.to_ascii_uppercase()[..] {
            b"COUNT" => {
                let given = parse_integer(value).ok_or(Error::NotAnInteger)?;
                count = usize::try_from(given).ok().filter(|n| *n > 0).ok_or(Error::Syntax)?;
            }
            b"MATCH" => pattern = Some(Arc::new(Glob::new(value)?)),
            b"TYPE" => of_another_type = !value.eq_ignore_ascii_case(b"string"),
            _ => return Err(Error::Syntax),
        }
    }
    if of_another_type {
        // Every value is a string, and no key matches a byte out of none.
        pattern = Some(Arc::new(Glob::new(b"[^\0-\xff]")?));
    }
    Ok(ScanArguments { cursor, count, pattern })
}

/// The answer to `HELP` behind a command that has subcommands, whose usage lists them.
fn subcommands(command: &Command) -> Reply<'static> {
    let title = format!("{} <subcommand> [<arg> ...]. Subcommands are:", command.name);
    let listed = command.usage.strip_prefix('[').and_then(|usage| usage.strip_suffix(']'));
    let listed = listed.unwrap_or(command.usage).split(" | ").map(str::to_owned);
    let lines = [title].into_iter().chain(listed).chain(["HELP".to_owned()]);
    Reply::Array(lines.map(|line| Reply::Bulk(Cow::Owned(line.into_bytes()))).collect())
}

fn describe_commands(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    let table = command::TABLE;
    let Some(subcommand) = request.args().next() else {
        return Ok(Reply::Array(table.iter().map(command_info).collect()));
    };
    let names = request.args().skip(1);
    let lower = |row: &Command| row.name.to_ascii_lowercase();
    match &subcommand.to_ascii_uppercase()[..] {
        b"COUNT" if request.arg_count() > 1 => Err(Error::WrongSubcommandArity(request.command, "count")),
        b"COUNT" => Ok(Reply::Integer(table.len() as i64)),
        b"LIST" if request.arg_count() > 1 => Err(Error::Syntax),
        b"LIST" => Ok(Reply::Array(
            table.iter().map(|row| Reply::Bulk(Cow::Owned(lower(row).into_bytes()))).collect(),
        )),
        b"INFO" if request.arg_count() == 1 => Ok(Reply::Array(table.iter().map(command_info).collect())),
        b"INFO" => {
            Ok(Reply::Array(names.map(|name| command::find(name).map_or(Reply::Nil, command_info)).collect()))
        }
        b"DOCS" => Ok(command_docs(&match request.arg_count() {
            1 => table.iter().collect::<Vec<_>>(),
            _ => names.filter_map(command::find).collect(),
        })),
        _ => Err(Error::UnknownSubcommand { command: request.command, name: subcommand.into() }),
    }
}

/// A command as `COMMAND INFO` describes it: name, arity with the name counted (negative: at least), flags, first
/// key, last key, step, and four lists (categories, tips, key specifications, subcommands) that are empty here.
pub(crate) fn command_info(row: &Command) -> Reply<'static> {
    let arity = row.args_min as i64 + 1;
    let keys = row.keys;
    let (first, last, step) = match (keys.any, keys.step) {
        (false, _) => (0, 0, 0),
        (true, 0) => (keys.first as i64 + 1, keys.first as i64 + 1, 1),
        (true, step) => (keys.first as i64 + 1, -1, step as i64),
    };
    let flag = match row.access {
        Access::Read => "readonly",
        Access::Write => "write",
        Access::Admin => "admin",
    };
    let name = Reply::Bulk(Cow::Owned(row.name.to_ascii_lowercase().into_bytes()));
    let empty = || Reply::Array(Vec::new());
    Reply::Array(vec![
        name,
        Reply::Integer(if row.args_min == row.args_max { arity } else { -arity }),
        Reply::Array(vec![Reply::Simple(flag)]),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        empty(),
        empty(),
        empty(),
        empty(),
    ])
}

/// The reply to `COMMAND DOCS` about these commands.
pub(crate) fn command_docs(rows: &[&Command]) -> Reply<'static> {
    let text = |text: &'static str| Reply::bytes(text.as_bytes());
    // redis-cli crashes where a command has no group.
    let docs = |row: &Command| {
        Reply::Map(vec![
            ("summary".into(), text(row.summary)),
            ("since".into(), text(FIRST_VERSION)),
            ("group".into(), text(row.group())),
            ("usage".into(), text(row.usage)),
        ])
    };
    Reply::Map(rows.iter().map(|row| (row.name.to_ascii_lowercase().into(), docs(row))).collect())
}
