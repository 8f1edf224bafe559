//! The clients of a worker: accepted, read from, served in order, and let go once their replies have left.
//!
//! What their requests do is not known here; see `dispatch.rs`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shard::{Error, Reply, SHARED_LEN_MIN};

use super::Worker;
use super::dispatch::Flow;
use crate::admin::listing;
use crate::client::job::Job;
use crate::client::reply::{answer_error, job_id, write_error, write_protocol_error};
use crate::client::{Client, Connection, Stage};
use crate::mesh::{Answer, Call, RequestId};
use crate::net::SocketId;
use crate::protocol::{self, Parsed, ProtocolError};
use crate::slots;

/// A turn that has served others serves clients that had sent more than a turn takes, all of them together, for as long
/// as it has served the others, and at least for this time: no client waits for long for a pipeline that has no end.
/// After so many commands the clock is read.
pub(super) const BACKLOG_TIME_MIN: Duration = Duration::from_micros(60);
const COMMANDS_PER_LOOK: usize = 16;

/// How long a turn runs commands of one client, from the first look at the clock on: some take long by themselves.
const CLIENT_TIME_MAX: Duration = Duration::from_millis(2);

/// How many bytes of a large request are received in a turn, on average. The kernel delivers up to half a megabyte at
/// once, which takes about as long as a turn may: most of it, to find pages for them.
const LARGE_BYTES_PER_TURN: usize = 128 << 10;

/// The memory for what a client has sent is kept for reuse up to this size.
const INPUT_KEPT_BYTES: usize = 64 << 10;

/// How many requests of a pipeline are read ahead at a time.
pub(super) const READ_AHEAD_MAX: usize = 32;

/// Up to this size the bytes at hand are taken for one request, for which reading ahead is not worth it.
const LONE_REQUEST_BYTES: usize = 128;

/// How long a client that was sent its last reply may take to close its side.
const LINGER_MS: u64 = 1000;

impl Worker {
    pub(super) fn on_bytes(&mut self, id: SocketId, mut chunk: &[u8]) {
        self.traffic.received_bytes += chunk.len() as u64;
        self.traffic.receives += 1;
        let Some(mut connection) = self.clients.take_out(id) else { return };
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
        self.clients.put_back(connection);
    }

    /// Serves clients with bytes that could not be served when they arrived, and not for long after `until`: those that
    /// have to go without are the first in the next turn. Returns whether it served any.
    pub(super) fn serve_backlog(&mut self, until: Option<Instant>) -> bool {
        let mut progressed = false;
        for _ in 0..self.clients.backlog_len() {
            if progressed && is_over(until) {
                break;
            }
            let id = self.clients.next_in_backlog().expect("there are as many as were counted");
            let Some(mut connection) = self.clients.take_out(id) else { continue };
            let before = connection.unserved_bytes();
            let client = &mut connection.client;
            let full = client.waits_for.is_some_and(|worker| self.mesh.is_full(worker));
            let is_postponed = self.control.postpones(client);
            if client.is_servable() && !full && !is_postponed && !self.shared.stopping() {
                client.is_in_backlog = false;
                client.waits_for = None;
                self.serve_input(&mut connection, until);
                progressed |= connection.unserved_bytes() != before;
                self.clients.put_back(connection);
            } else {
                self.clients.stay_in_backlog(connection);
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
        client.share.begin(self.clock.now().turn);
        *input_needed = 0;
        let (mut until_ahead, mut begun) = (0, None);
        while used < bytes.len() {
            if matches!(client.stage, Stage::Closing | Stage::Lingering { .. } | Stage::Gone) {
                return bytes.len();
            }
            let count = client.share.commands();
            let looks = count > 0 && count.is_multiple_of(COMMANDS_PER_LOOK);
            let enough = client.share.is_used_up() || looks && (is_over(until) || is_long(&mut begun));
            if !client.is_servable() || enough || self.shared.stopping() {
                self.clients.add_to_backlog(client);
                return used;
            }
            let rest = &bytes[used..];
            if until_ahead == 0 && rest.len() > LONE_REQUEST_BYTES {
                until_ahead = READ_AHEAD_MAX;
                self.read_ahead(client.session.database, rest);
            }
            until_ahead = until_ahead.saturating_sub(1);
            match parser.parse(rest) {
                Ok(Parsed::Request { consumed }) => {
                    client.is_greeted_first = false;
                    match self.dispatch(parser, client, &rest[..consumed], memory.filter(|_| used == 0)) {
                        Flow::Taken => used += consumed,
                        Flow::Later => {
                            self.clients.add_to_backlog(client);
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
                    let dialect = client.session.dialect;
                    client.replies.now(|out| write_protocol_error(error, dialect, out));
                    client.stage = Stage::Closing;
                    return bytes.len();
                }
            }
            client.share.count(parser.arg_count());
        }
        used
    }

    /// Makes the memory behind the keys of the next requests ready: the waits for several keys overlap.
    fn read_ahead(&self, database: u16, bytes: &[u8]) {
        let shards = self.mesh.worker_count();
        let own = |key: &&[u8]| slots::owner(key, shards) == self.index;
        self.runtime.prefetch(database, protocol::first_args(bytes).take(READ_AHEAD_MAX).filter(own));
    }

    /// Moves the replies of clients on, and their connections towards their end.
    pub(super) fn look_after_clients(&mut self) {
        self.clients.end_gathering(self.clock.now().uptime_us);
        for id in self.clients.take_ready() {
            let Some(mut connection) = self.clients.take_out(id) else { continue };
            connection.client.listed = false;
            let stays = self.look_after(&mut connection);
            if (connection.client.subscriptions.is_some() || connection.client.tracking.is_some())
                && !(stays && matches!(connection.client.stage, Stage::Open | Stage::Ended))
            {
                self.forget_subscriptions(&mut connection.client);
            }
            if stays {
                self.clients.keep(connection);
            } else {
                self.net.close(id);
                self.traffic.paused -= u64::from(connection.client.paused);
                if connection.client.session.is_counted_as_monitor {
                    self.shared.control.monitors(self.index, false);
                }
                if connection.client.refused {
                    self.acceptor.on_refused_gone();
                } else if !connection.is_inside() {
                    self.shared.connections.remove();
                }
            }
        }
    }

    /// Ends what a client that is gone has asked for, wherever it is under way: the reply will not be read. What is
    /// about to change something does so, unless it waits for locks or for its value to be written.
    fn abandon(&mut self, client: &mut Client) {
        client.replies.discard();
        if std::mem::take(&mut client.waits_for_last)
            && let Some((sequence, worker)) = client.replies.last_awaited()
        {
            self.mesh.to(worker).call(RequestId { socket: client.socket, sequence }, Call::Forget);
        }
        self.unwatch(client);
        let request_id = job_id(client);
        match client.job.as_deref_mut() {
            Some(Job::Program(running)) if running.program.is_of_backup() => return,
            Some(Job::Program(running)) => {
                running.give_up(&mut client.replies);
                if let Some(Job::Listing(_)) = running.inner.as_deref() {
                    running.inner = None;
                    self.mesh.to(self.index).answer(request_id, Answer::Part(Reply::Ok));
                } else if let Some(inner) = &running.inner {
                    self.forget_job(inner, request_id);
                }
            }
            Some(Job::Listing(_) | Job::Wait(_)) => {
                client.job = None;
                return;
            }
            Some(job @ (Job::Walk(_) | Job::Watch(_))) => self.forget_job(job, request_id),
            Some(Job::Gather(gather)) if !gather.is_of_results() => return,
            Some(job @ Job::Gather(_)) => self.forget_job(job, request_id),
            Some(Job::Backup(_) | Job::Subscribe(_) | Job::FindClient(_)) | None => return,
        }
        let job = client.job.take().expect("it was looked at");
        client.given_up.push((client.replies.skip_number(), job));
    }

    /// Has workers forget what they were asked for a job, where nothing but the reply comes of it.
    fn forget_job(&mut self, job: &Job, request_id: RequestId) {
        let is_forgotten = match job {
            Job::Walk(_) => true,
            Job::Gather(gather) => gather.is_of_results(),
            _ => false,
        };
        if is_forgotten {
            for worker in job.unanswered() {
                self.mesh.to(worker).call(request_id, Call::Forget);
            }
        }
    }

    /// Puts an error in the place of all replies of a client that have not left; none leaves behind it.
    pub(super) fn end_with_error(&mut self, client: &mut Client, error: Error) {
        self.abandon(client);
        if let Some(job) = client.job.take() {
            client.given_up.push((client.replies.skip_number(), job));
        }
        let dialect = client.session.dialect;
        client.replies.end_with(|out| write_error(error, dialect, out));
    }

    /// Moves a client's replies on, and its connection towards its end. Returns whether it stays.
    fn look_after(&mut self, connection: &mut Connection) -> bool {
        let unserved_bytes = connection.unserved_bytes();
        let client = &mut connection.client;
        let id = client.socket;
        let now = self.clock.now();
        client.progress.note(now.uptime_ms);
        if client.measured.is_some() && client.is_quiet() {
            // A listing, or what was answered in place of its worker.
            let (_, measured) = client.measured.take().expect("it was looked at");
            self.end_measured(client, measured);
        }
        if client.job.is_none() {
            client.replies.release_all_messages();
        }
        if client.stage == Stage::Gone {
            self.abandon(client);
            let is_done = client.is_done();
            connection.drop_input();
            return !is_done;
        }
        if client.job.is_some() && (listing::go_on(client, &self.about()) || self.go_on_listing(client)) {
            self.clients.list(client);
        }
        client.replies.drop_muted();
        let may_send = client.replies.is_ready()
            && !client.held_back
            && !client.holds_replies()
            && !self.net.is_sending(id);
        if may_send && !self.clients.gathers(client, now.uptime_us) {
            client.gathering_since_us = None;
            client.is_greeted_first = false;
            let bytes = client.replies.take(|| self.clients.buffer());
            self.traffic.sent_bytes += bytes.len() as u64;
            self.traffic.sends += 1;
            self.net.send(id, bytes).expect("nothing is being sent, and the socket is open");
        }
        client.early_bytes = client.early_bytes.saturating_sub(LARGE_BYTES_PER_TURN);
        if client.early_bytes > 0 {
            self.clients.list(client);
        }
        let full =
            unserved_bytes >= client.limits.query_bytes.max(connection.input_needed) && client.is_in_backlog;
        let hold = full || client.early_bytes > 0;
        if hold != client.paused {
            client.paused = hold;
            self.traffic.paused = self.traffic.paused.wrapping_add_signed(if hold { 1 } else { -1 });
            client.progress.is_told_of &= hold;
            if hold { self.net.pause(id) } else { self.net.resume(id) }
        }
        if !client.is_quiet() || client.replies.is_ready() || self.net.is_sending(id) {
            return true;
        }
        match client.stage {
            Stage::Ended if client.is_in_backlog || client.is_done() => client.is_in_backlog,
            Stage::Ended | Stage::Closing => {
                self.net.shutdown_write(id);
                client.stage = Stage::Lingering { until_ms: now.uptime_ms + LINGER_MS };
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

/// Whether it is long since this was asked first.
fn is_long(begun: &mut Option<Instant>) -> bool {
    begun.get_or_insert_with(Instant::now).elapsed() > CLIENT_TIME_MAX
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
}
