//! The clients of a worker: accepted, read from, served in order, and let go once their replies have left.
//!
//! What their requests do is not known here; see `commands.rs`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::net::SendFlags;
use shard::{Error, Reply, SHARED_LEN_MIN};

use super::Worker;
use super::dispatch::Flow;
use crate::client::job::Job;
use crate::client::reply::{answer_error, job_id};
use crate::client::{Client, Connection, Limits, Stage};
use crate::config::Config;
use crate::mesh::{AcceptedSocket, Call, RequestId};
use crate::net::SocketId;
use crate::net::listener::Endpoint;
use crate::protocol::{self, Listener, Parsed, Parser, ProtocolError};
use crate::slots;

/// How many commands of one client a turn runs at most: a quarter of a millisecond of work.
const COMMANDS_PER_TURN_MAX: usize = 256;

/// After how many arguments of its commands a client's turn has come to its end: a key costs a fraction of a command.
const ARGS_PER_TURN_MAX: usize = 2048;

/// A turn that has served others serves clients that had sent more than a turn takes, all of them together, for as long
/// as it has served the others, and at least for this time: nobody waits for long for a pipeline that has no end. After
/// so many commands the clock is read.
pub(super) const BACKLOG_TIME_MIN: Duration = Duration::from_micros(60);
const COMMANDS_PER_LOOK: usize = 16;

/// How many bytes of a large request are received in a turn, on average. The kernel delivers up to half a megabyte at
/// once, which takes about as long as a turn may: most of it, to find pages for them.
const LARGE_BYTES_PER_TURN: usize = 128 << 10;

/// The memory for what a client has sent is kept for reuse up to this size.
const INPUT_KEPT_BYTES: usize = 64 << 10;

/// How many requests of a pipeline are read ahead at a time.
pub(super) const READ_AHEAD_MAX: usize = 32;

/// Up to this size the bytes at hand are taken for one request, for which reading ahead is not worth it.
const LONE_REQUEST_BYTES: usize = 128;

/// How long replies that are ready wait for those behind them, which other shards owe: a pipeline whose keys live on
/// several shards is then answered with one send and not with two.
const GATHERING_US: u64 = 1000;

/// How many clients that were one too many are told so and waited for, so that they hear it whatever they have sent.
/// Further ones are told and closed at once: a storm of them takes no descriptors.
pub(crate) const REFUSED_AT_ONCE_MAX: usize = 32;

/// How long a client that was sent its last reply may take to close its side.
const LINGER_MS: u64 = 1000;

impl Worker {
    pub(super) fn on_accepted(&mut self, endpoint: Endpoint, socket: std::os::fd::OwnedFd) {
        if endpoint != Endpoint::Unix && crate::net::prepare_tcp(&socket).is_err() {
            return; // The peer is gone already.
        }
        let client_id = self.shared.clients_accepted.next();
        let accepted = AcceptedSocket { socket, endpoint, client_id };
        if self.shared.connections.count() >= self.shared.config.max_connections as usize {
            self.refuse(accepted);
            return;
        }
        self.shared.connections.add();
        let count = self.mesh.worker_count();
        let mut in_turn = (0..count).map(|step| (self.next_worker + step) % count);
        let worker = in_turn.find(|worker| !self.hung[*worker]).expect("this worker does not hang");
        self.next_worker = (worker + 1) % count;
        if worker == self.index {
            self.welcome(accepted);
        } else {
            self.mesh.to(worker).accepted(accepted);
        }
    }

    pub(super) fn welcome(&mut self, accepted: AcceptedSocket) -> &mut Connection {
        let AcceptedSocket { socket, endpoint, client_id } = accepted;
        let id = self.net.attach(socket);
        let listener = match endpoint {
            Endpoint::Text => Listener::Text { resp_port: self.shared.resp_port },
            Endpoint::Resp | Endpoint::Unix => Listener::Resp,
        };
        let Config { client_query_buffer_limit, client_reply_buffer_limit, .. } = self.shared.config;
        let limits = Limits {
            query_bytes: client_query_buffer_limit as usize,
            reply_bytes: client_reply_buffer_limit as usize,
        };
        let mut connection = Connection::new(id, client_id, endpoint, Parser::new(listener), limits);
        if endpoint == Endpoint::Text {
            connection.client.replies.now(|out| out.extend_from_slice(protocol::GREETING));
            connection.client.is_greeted_first = true;
        }
        let index = id.index as usize;
        if index >= self.connections.len() {
            self.connections.resize_with(index + 1, || None);
        }
        connection.client.listed = true;
        self.ready.push(id);
        self.connections[index].insert(connection)
    }

    fn refuse(&mut self, accepted: AcceptedSocket) {
        self.shared.connections_refused.next();
        if self.refusing == REFUSED_AT_ONCE_MAX {
            let dialect = accepted.endpoint.first_dialect();
            let mut told = Vec::new();
            protocol::write_reply(&Reply::Error(Error::ConnectionLimit), None, 0, dialect, &mut told);
            // As far as it can be said without waiting.
            let _ = rustix::net::send(&accepted.socket, &told, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            return;
        }
        self.refusing += 1;
        let client = &mut self.welcome(accepted).client;
        client.refused = true;
        client.is_greeted_first = false;
        client.replies.discard();
        answer_error(client, Error::ConnectionLimit);
        client.stage = Stage::Closing;
    }

    fn connection(&mut self, id: SocketId) -> Option<&mut Box<Connection>> {
        let connection = self.connections.get_mut(id.index as usize)?.as_mut();
        connection.filter(|connection| connection.client.socket == id)
    }

    /// Takes a connection out, so that it can be served with the rest of the worker at hand.
    pub(super) fn take_out(&mut self, id: SocketId) -> Option<Box<Connection>> {
        let place = self.connections.get_mut(id.index as usize)?;
        place.take_if(|connection| connection.client.socket == id)
    }

    pub(super) fn put_back(&mut self, mut connection: Box<Connection>) {
        let id = connection.client.socket;
        if !std::mem::replace(&mut connection.client.listed, true) {
            self.ready.push(id);
        }
        self.connections[id.index as usize] = Some(connection);
    }

    pub(super) fn make_ready(&mut self, id: SocketId) {
        if let Some(connection) = self.connection(id)
            && !std::mem::replace(&mut connection.client.listed, true)
        {
            self.ready.push(id);
        }
    }

    pub(super) fn set_stage(&mut self, id: SocketId, next: impl FnOnce(Stage) -> Stage) {
        if let Some(connection) = self.connection(id) {
            connection.client.stage = next(connection.client.stage);
            self.make_ready(id);
        }
    }

    pub(super) fn on_bytes(&mut self, id: SocketId, mut chunk: &[u8]) {
        let Some(mut connection) = self.take_out(id) else { return };
        while !chunk.is_empty() {
            if connection.input.is_empty() {
                let used = self.serve(&mut connection, chunk, None, None);
                take_in(&mut connection, &chunk[used..]);
                break;
            }
            let missing = connection.missing_bytes();
            let (bytes, rest) = chunk.split_at(connection.taken_at_once(chunk.len()));
            if missing >= LARGE_BYTES_PER_TURN {
                connection.client.early_bytes += bytes.len();
            }
            take_in(&mut connection, bytes);
            chunk = rest;
            if !connection.client.is_in_backlog {
                self.serve_input(&mut connection, None);
            }
        }
        self.put_back(connection);
    }

    /// Serves clients with bytes that could not be served when they arrived, and not for long after `until`: those that
    /// have to go without are the first in the next turn. Returns whether it served any.
    pub(super) fn serve_backlog(&mut self, until: Option<Instant>) -> bool {
        let mut progressed = false;
        for _ in 0..self.backlog.len() {
            if progressed && is_over(until) {
                break;
            }
            let id = self.backlog.pop_front().expect("there are as many as were counted");
            let Some(mut connection) = self.take_out(id) else { continue };
            let before = connection.unserved_bytes();
            let client = &mut connection.client;
            let full = client.waits_for.is_some_and(|worker| self.mesh.is_full(worker));
            if client.is_servable() && !full && !self.shared.stopping() {
                client.is_in_backlog = false;
                client.waits_for = None;
                self.serve_input(&mut connection, until);
                progressed |= connection.unserved_bytes() != before;
                self.put_back(connection);
            } else {
                self.backlog.push_back(id);
                self.connections[id.index as usize] = Some(connection);
            }
        }
        progressed
    }

    fn serve_input(&mut self, connection: &mut Connection, until: Option<Instant>) {
        if connection.unserved_bytes() < connection.input_needed {
            return;
        }
        let mut input = std::mem::take(&mut connection.input);
        let mut served = connection.served_bytes;
        if served > 0 || input.len() < SHARED_LEN_MIN {
            served += self.serve(connection, &input[served..], None, until);
        } else {
            let memory = Bytes::from(input);
            served = self.serve(connection, &memory, Some(&memory), until);
            input = if memory.is_unique() {
                memory.into()
            } else {
                memory.slice(std::mem::take(&mut served)..).into() // A copy: the first request has kept the memory.
            };
        }
        if served == input.len() {
            input.clear();
            input.shrink_to(INPUT_KEPT_BYTES);
            served = 0;
        } else if served > input.len() / 2 {
            // Not each time: what is left may be large, and would be moved once a turn.
            input.drain(..served);
            served = 0;
        }
        connection.input = input;
        connection.served_bytes = served;
    }

    /// Runs the requests in `bytes` in order, as far as they go now, and not for long after `until`; `memory` is where
    /// these bytes lie, if it may be shared with the first one. Returns how many bytes are done with.
    fn serve(
        &mut self,
        connection: &mut Connection,
        bytes: &[u8],
        memory: Option<&Bytes>,
        until: Option<Instant>,
    ) -> usize {
        let Connection { parser, client, input_needed, .. } = connection;
        let mut used = 0;
        if client.last_turn != self.turn_number {
            (client.last_turn, client.commands_in_turn, client.args_in_turn) = (self.turn_number, 0, 0);
        }
        *input_needed = 0;
        let mut until_ahead = 0;
        while used < bytes.len() {
            if matches!(client.stage, Stage::Closing | Stage::Lingering { .. } | Stage::Gone) {
                return bytes.len();
            }
            let count = client.commands_in_turn;
            let enough = count == COMMANDS_PER_TURN_MAX
                || client.args_in_turn >= ARGS_PER_TURN_MAX
                || count > 0 && count.is_multiple_of(COMMANDS_PER_LOOK) && is_over(until);
            if !client.is_servable() || enough || self.shared.stopping() {
                self.add_to_backlog(client);
                return used;
            }
            let rest = &bytes[used..];
            if until_ahead == 0 && rest.len() > LONE_REQUEST_BYTES {
                until_ahead = READ_AHEAD_MAX;
                self.read_ahead(rest);
            }
            until_ahead = until_ahead.saturating_sub(1);
            match parser.parse(rest) {
                Ok(Parsed::Request { consumed }) => {
                    client.is_greeted_first = false;
                    match self.dispatch(parser, client, &rest[..consumed], memory.filter(|_| used == 0)) {
                        Flow::Taken => used += consumed,
                        Flow::Later => {
                            self.add_to_backlog(client);
                            return used;
                        }
                    }
                }
                Ok(Parsed::Skip { consumed }) => used += consumed,
                Ok(Parsed::Incomplete { needed }) => {
                    *input_needed = needed;
                    return used;
                }
                Err(error) => {
                    if client.is_greeted_first && matches!(error, ProtocolError::RespOnTextPort { .. }) {
                        client.replies.discard(); // To a Redis client the greeting would be the reply.
                    }
                    client.replies.now(|out| error.write(client.dialect, out));
                    client.stage = Stage::Closing;
                    return bytes.len();
                }
            }
            client.commands_in_turn += 1;
            client.args_in_turn += parser.arg_count();
        }
        used
    }

    /// Makes the memory behind the keys of the next requests ready: the waits for several keys overlap.
    fn read_ahead(&self, bytes: &[u8]) {
        let shards = self.mesh.worker_count();
        let own = |key: &&[u8]| slots::owner(key, shards) == self.index;
        self.shard.warm(protocol::first_args(bytes).take(READ_AHEAD_MAX).filter(own));
    }

    fn add_to_backlog(&mut self, client: &mut Client) {
        client.is_in_backlog = true;
        self.backlog.push_back(client.socket);
    }

    pub(super) fn look_after_clients(&mut self) {
        while self.next_gathered_us().is_some_and(|due_us| due_us <= self.turn_began_us) {
            let (id, _) = self.gathering.pop_front().expect("it is due");
            self.make_ready(id);
        }
        for id in std::mem::take(&mut self.ready) {
            let Some(mut connection) = self.take_out(id) else { continue };
            connection.client.listed = false;
            if self.look_after(&mut connection) {
                self.connections[id.index as usize] = Some(connection);
            } else {
                self.net.close(id);
                if connection.client.refused {
                    self.refusing -= 1;
                } else {
                    self.shared.connections.remove();
                }
            }
        }
    }

    /// When the first replies that wait for later ones have waited for long enough.
    pub(super) fn next_gathered_us(&mut self) -> Option<u64> {
        while let Some((id, since_us)) = self.gathering.front().copied() {
            let client = self.connection(id).map(|connection| &connection.client);
            if client.is_some_and(|client| client.gathering_since_us == Some(since_us)) {
                return Some(since_us + GATHERING_US);
            }
            self.gathering.pop_front(); // They have left.
        }
        None
    }

    /// Whether a client's replies wait for those behind them, and for how long has not passed yet.
    fn gathers(&mut self, client: &mut Client) -> bool {
        if !client.replies.should_gather() && !client.is_greeted_first {
            return false;
        }
        let since_us = client.gathering_since_us.unwrap_or_else(|| {
            self.gathering.push_back((client.socket, self.turn_began_us));
            self.turn_began_us
        });
        client.gathering_since_us = Some(since_us);
        self.turn_began_us < since_us + GATHERING_US
    }

    /// Ends what a client that is gone has asked for, wherever it is under way: nobody will read the reply. What is
    /// about to change something does so, unless it waits for locks or for its value to be written.
    fn abandon(&mut self, client: &mut Client) {
        client.replies.discard();
        if std::mem::take(&mut client.waits_for_last)
            && let Some((sequence, worker)) = client.replies.last_awaited()
        {
            self.mesh.to(worker).call(RequestId { socket: client.socket, sequence }, Call::Forget);
        }
        let request_id = job_id(client);
        match client.job.as_deref_mut() {
            Some(Job::Walk(walk)) => self.mesh.to(walk.shard()).call(request_id, Call::Forget),
            Some(Job::Gather(gather)) if gather.is_of_findings() => {
                gather
                    .unanswered()
                    .iter()
                    .for_each(|worker| self.mesh.to(*worker).call(request_id, Call::Forget));
            }
            Some(Job::Transaction(transaction)) if !transaction.is_of_backup() => transaction.give_up(),
            Some(Job::Listing(_)) => {
                client.job = None;
                return;
            }
            _ => return,
        }
        let job = client.job.take().expect("it was looked at");
        client.given_up.push((client.replies.skip_number(), job));
    }

    /// Puts an error in the place of all replies of a client that have not left; none leaves behind it.
    pub(super) fn end_with_error(&mut self, client: &mut Client, error: Error) {
        self.abandon(client);
        if let Some(job) = client.job.take() {
            client.given_up.push((client.replies.skip_number(), job));
        }
        let dialect = client.dialect;
        client.replies.end_with(|out| protocol::write_error(error, dialect, out));
    }

    /// Moves a client's replies on, and its connection towards its end. Returns whether it stays.
    fn look_after(&mut self, connection: &mut Connection) -> bool {
        let unserved_bytes = connection.unserved_bytes();
        let client = &mut connection.client;
        let id = client.socket;
        client.progress_ms = self.uptime_ms;
        if client.stage == Stage::Gone {
            self.abandon(client);
            let is_done = client.is_done();
            connection.drop_input();
            return !is_done;
        }
        if self.go_on_listing(client) && !std::mem::replace(&mut client.listed, true) {
            self.ready.push(id);
        }
        let may_send = client.replies.is_ready() && !client.held_back && !self.net.is_sending(id);
        if may_send && !self.gathers(client) {
            client.gathering_since_us = None;
            client.is_greeted_first = false;
            let bytes = client.replies.take(|| self.spare_buffers.pop().unwrap_or_default());
            self.net.send(id, bytes).expect("nothing is being sent, and the socket is open");
        }
        client.early_bytes = client.early_bytes.saturating_sub(LARGE_BYTES_PER_TURN);
        if client.early_bytes > 0 && !std::mem::replace(&mut client.listed, true) {
            self.ready.push(id);
        }
        let full =
            unserved_bytes >= client.limits.query_bytes.max(connection.input_needed) && client.is_in_backlog;
        let hold = full || client.early_bytes > 0;
        if hold != client.paused {
            client.paused = hold;
            client.is_told_of &= hold;
            if hold { self.net.pause(id) } else { self.net.resume(id) }
        }
        if !client.is_quiet() || client.replies.is_ready() || self.net.is_sending(id) {
            return true;
        }
        match client.stage {
            Stage::Ended if client.is_in_backlog || client.is_done() => client.is_in_backlog,
            Stage::Ended | Stage::Closing => {
                self.net.shutdown_write(id);
                client.stage = Stage::Lingering { until_ms: self.uptime_ms + LINGER_MS };
                true
            }
            Stage::Open | Stage::Lingering { .. } | Stage::Gone => true,
        }
    }
}

/// Adds bytes to a connection's input, or lets the client go where there is no memory for them: what belongs to its
/// request and is still to come could not be told from the next one.
fn take_in(connection: &mut Connection, bytes: &[u8]) {
    if connection.take_in(bytes).is_ok() {
        return;
    }
    connection.drop_input();
    if connection.client.job.is_none() {
        answer_error(&mut connection.client, Error::OutOfMemory);
    }
    connection.client.stage = Stage::Closing;
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
}
