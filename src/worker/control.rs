//! What this worker knows of the orders that clients give to all workers: a pause, and who is shown the commands of
//! all clients. Where nothing is ordered it costs a look at a number each turn, and one at a flag each command.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use shard::command::{self, Flags, Run, Server};
use shard::{Command, Error};

use super::Worker;
use super::dispatch::Flow;
use crate::admin::client_commands::without_secrets;
use crate::client::reply::reject;
use crate::client::session::ReplyMode;
use crate::client::{Client, Connection, Stage};
use crate::clock::wall_clock_us;
use crate::durability::snapshotter;
use crate::mesh::Call;
use crate::net::listener::Endpoint;
use crate::protocol::{self, Dialect, Parser};
use crate::shared::control::{Control, Pause};

/// What is to be shown is passed on within a turn once it has this size.
const FEED_BYTES_MAX: usize = 1 << 20;

/// A client that is shown all commands and lets so much wait is let go, and so are all of a worker that does not get
/// to show them what others have sent it.
const MONITOR_BYTES_MAX: usize = 32 << 20;

/// Where commands are slow that take less than so many microseconds, all of them are measured.
const MEASURED_BY_SAMPLE_US_MIN: i64 = 1000;

/// The error for a client that is shown all commands and asks for keys.
const NOT_FOR_MONITORS: Error = Error::OutOfRange("Replica can't interact with the keyspace");

/// The orders as a worker last saw them.
#[derive(Default)]
pub(super) struct ControlView {
    version: u64,
    pause: Option<Pause>,
    /// The workers with clients that are shown all commands.
    monitoring: Vec<usize>,
    /// What they are to be shown of this turn.
    feed: Vec<u8>,
    /// Commands are to be looked at more closely.
    is_active: bool,
}

impl ControlView {
    /// Whether something may have changed since the last turn.
    #[inline]
    pub(super) fn has_to_look(&self, control: &Control) -> bool {
        self.version != control.version() || self.pause.is_some()
    }

    /// Whether commands are to be looked at more closely.
    #[inline]
    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// When the pause ends, if there is one, in milliseconds from the start of the server.
    pub(super) fn pause_until_ms(&self) -> Option<u64> {
        self.pause.map(|pause| pause.until_ms)
    }

    /// Whether a client waits for the end of the pause.
    pub(super) fn postpones(&self, client: &Client) -> bool {
        client.is_postponed && self.pause.is_some()
    }

    fn pauses(&self, client: &Client, command: Option<&'static Command>) -> bool {
        let Some(pause) = self.pause else { return false };
        let writes = |row: &Command| {
            [Flags::WRITE, Flags::MAY_WRITE, Flags::ACTS_AS_WRITE].into_iter().any(|flag| row.has(flag))
        };
        let is_exec = command.is_some_and(|row| row.run == Run::Server(Server::Exec));
        let queued = client.session.queue.as_ref().filter(|_| is_exec);
        let executes_writes =
            queued.is_some_and(|queue| queue.requests().iter().any(|request| writes(request.command)));
        pause.is_of_all || executes_writes || command.is_some_and(writes)
    }
}

impl Worker {
    /// Takes note of the orders.
    #[cold]
    pub(super) fn take_note(&mut self) {
        let (control, view) = (&self.shared.control, &mut self.control);
        view.version = control.version();
        view.pause = control.pause_at(self.clock.now().uptime_ms);
        view.monitoring.clear();
        view.monitoring.extend(control.monitoring_workers());
        view.is_active = view.pause.is_some() || !view.monitoring.is_empty();
        let slower_than_us = self.shared.settings.slowlog_log_slower_than_us.load(Ordering::Relaxed);
        self.traffic.calls.measure_all((0..MEASURED_BY_SAMPLE_US_MIN).contains(&slower_than_us));
    }

    /// As [`Worker::dispatch`], while something is unusual about the server or this client.
    #[cold]
    pub(super) fn dispatch_with_care(
        &mut self,
        parser: &Parser,
        client: &mut Client,
        input: &[u8],
        memory: Option<&Bytes>,
    ) -> Flow {
        let command = parser.command();
        let is_exempt = client.endpoint == Endpoint::Inside || client.session.monitors;
        client.is_postponed = !is_exempt && self.control.pauses(client, command);
        if client.is_postponed {
            return Flow::Later;
        }
        if client.session.monitors
            && let Some(command) = command.filter(|row| row.has(Flags::READONLY) || row.has(Flags::WRITE))
        {
            self.traffic.requests += 1;
            reject(client, command, NOT_FOR_MONITORS);
            return Flow::Taken;
        }
        match client.session.replies {
            // The last command is answered: it was waited for.
            ReplyMode::Skipped => {
                client.replies.unmute();
                client.session.replies = ReplyMode::On;
                client.session.note_care();
            }
            ReplyMode::SkipNext if !client.is_quiet() => return Flow::Later,
            ReplyMode::SkipNext => {
                client.replies.mute();
                client.session.replies = ReplyMode::Skipped;
            }
            ReplyMode::On | ReplyMode::Off => {}
        }
        let monitored = self.monitored_line(parser, client, input);
        let flow = self.dispatch_plainly(parser, client, input, memory);
        if matches!(flow, Flow::Taken) {
            client.waits_for_last |= client.session.replies == ReplyMode::Skipped;
            self.feed_monitors(&monitored);
        }
        flow
    }

    /// The line for those that are shown all commands; empty where there is none of them, or none for them.
    fn monitored_line(&self, parser: &Parser, client: &Client, input: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        if self.control.monitoring.is_empty() || client.endpoint == Endpoint::Inside {
            return line;
        }
        let request = parser.command().map(|row| command::resolve(parser.request(input, row)));
        if let Some(Ok(request)) = request
            && !request.command.has(Flags::ADMIN)
            && protocol::check_arity(request.command, request.arg_count()).is_ok()
        {
            let from = match (client.endpoint, &self.shared.config.unix_socket) {
                (Endpoint::Unix, Some(path)) => format!("unix:{}", path.display()),
                _ => client.addresses.text(None)[0].clone(),
            };
            let words = without_secrets(request.command, parser.words(input).collect());
            let words = words.into_iter();
            protocol::push_monitored(wall_clock_us(), client.session.database, &from, words, &mut line);
        }
        line
    }

    /// Has a line shown to all clients that are shown all commands.
    fn feed_monitors(&mut self, line: &[u8]) {
        self.control.feed.extend_from_slice(line);
        if self.control.feed.len() > FEED_BYTES_MAX {
            self.pass_feed_on();
        }
    }

    /// Passes on what is to be shown. To be called at the end of a turn.
    #[inline]
    pub(super) fn show_commands(&mut self) {
        if !self.control.feed.is_empty() {
            self.pass_feed_on();
        }
    }

    #[cold]
    fn pass_feed_on(&mut self) {
        let lines = Bytes::from(std::mem::take(&mut self.control.feed));
        for worker in std::mem::take(&mut self.control.monitoring) {
            if worker == self.index {
                self.show_to_monitors(&lines);
            } else if self.shared.control.note_fed(worker, lines.len()) <= MONITOR_BYTES_MAX {
                self.mesh.to(worker).call(snapshotter::REQUEST_ID, Call::Show(lines.clone()));
            } else {
                self.shared.control.note_shown(worker, lines.len());
                self.shared.control.note_overrun(worker);
            }
        }
        self.control.monitoring.extend(self.shared.control.monitoring_workers());
    }

    /// Shows lines that another worker has sent.
    pub(super) fn on_shown(&mut self, lines: &Bytes) {
        self.shared.control.note_shown(self.index, lines.len());
        if self.shared.control.take_overrun(self.index) {
            self.clients
                .those(|connection| connection.client.session.monitors)
                .into_iter()
                .for_each(|id| self.clients.set_stage(id, |_| Stage::Gone));
            tracing::warn!("clients are disconnected: there is more to show to MONITOR than they are shown");
            return;
        }
        self.show_to_monitors(lines);
    }

    fn show_to_monitors(&mut self, lines: &Bytes) {
        let is_shown = |connection: &Connection| {
            let session = &connection.client.session;
            session.monitors && session.replies != ReplyMode::Off
        };
        for id in self.clients.those(is_shown) {
            let mut connection = self.clients.take_out(id).expect("it is there");
            let client = &mut connection.client;
            if client.session.dialect == Dialect::Text {
                let mut text = Vec::new();
                protocol::write_monitored(lines, Dialect::Text, &mut text);
                client.replies.push(&text.into());
            } else {
                client.replies.push(lines);
            }
            if client.replies.size_bytes() > MONITOR_BYTES_MAX {
                client.stage = Stage::Gone;
                let (id, name) = (client.id, String::from_utf8_lossy(&client.session.name).into_owned());
                tracing::warn!(
                    client = id,
                    name,
                    "a client is disconnected: it does not read what MONITOR shows"
                );
            }
            self.clients.put_back(connection);
        }
    }
}
