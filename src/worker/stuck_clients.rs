//! Clients that are stuck: those that do not read their replies while they have sent more requests than are taken in
//! ahead, and those that have sent a part of a request and do not go on. They are told of in the log, and after
//! `--request-timeout` they are let go. A client that has nothing half done may be idle for as long as it likes, or for
//! `--timeout` where that is set.

use std::sync::atomic::Ordering;

use shard::Error;

use super::Worker;
use crate::client::{Client, Connection, Stage};
use crate::net::SocketId;

/// A client that has got no further for so long, in milliseconds, is looked at more closely.
const STALLED_MS: u64 = 1000;

/// When more time than this lies between two looks, the process was not run meanwhile, and no client is to blame.
const LOOK_MS_MAX: u64 = 5000;

/// How long a client that does not read may take to read at least why it is let go.
const LAST_WORDS_MS: u64 = 1000;

/// What a stuck client has to do so that it is served further.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// To read.
    Replies,
    /// To send the rest of a request.
    Request,
}

/// Clients of which one line of the log tells: one of them, and how many there are.
#[derive(Default)]
pub(super) struct Told {
    first: Option<(u64, String)>,
    count: usize,
}

impl Told {
    pub(super) fn add(&mut self, client: &Client) {
        // A name consists of graphic characters of ASCII.
        self.first
            .get_or_insert_with(|| (client.id, String::from_utf8_lossy(&client.session.name).into_owned()));
        self.count += 1;
    }

    /// The one that is named, its name, and how many others there are.
    fn told(self) -> Option<(u64, String, usize)> {
        self.first.map(|(client, name)| (client, name, self.count - 1))
    }
}

/// Looks for clients that are stuck.
#[derive(Default)]
pub(super) struct StuckClients {
    last_look_ms: u64,
    /// Those that were let go since the last look, since they did not read their messages.
    pub(super) behind: Told,
}

impl Worker {
    /// Looks for stuck clients; to be called about once a second. Writes three lines to the log at most.
    pub(super) fn look_for_stuck_clients(&mut self) {
        let uptime_ms = self.clock.now().uptime_ms;
        let passed_ms = uptime_ms - std::mem::replace(&mut self.stuck_clients.last_look_ms, uptime_ms);
        if passed_ms > LOOK_MS_MAX {
            return self.clients.iter_mut().for_each(|connection| connection.client.progress.note(uptime_ms));
        }
        if let Some((client, name, others)) = std::mem::take(&mut self.stuck_clients.behind).told() {
            tracing::warn!(
                client,
                name,
                others,
                "a subscriber is disconnected: more messages waited for it than --client-output-buffer-limit allows"
            );
        }
        let mut unread = Told::default();
        let (mut closed_unread, mut closed_half) = (Told::default(), Told::default());
        let is_stalled =
            |connection: &Connection| connection.client.progress.stalled_ms(uptime_ms) >= STALLED_MS;
        let idle_max_ms = self.shared.settings.timeout_s.load(Ordering::Relaxed).unsigned_abs() * 1000;
        for id in self.clients.those(is_stalled) {
            let mut connection = self.clients.take_out(id).expect("it is there");
            if idle_max_ms > 0
                && connection.client.is_idle()
                && connection.client.progress.stalled_ms(uptime_ms) > idle_max_ms
                && !self.goes_on(id, &mut connection)
            {
                tracing::debug!(
                    client = connection.client.id,
                    "an idle client is disconnected, after --timeout"
                );
                connection.client.stage = Stage::Closing;
                self.clients.put_back(connection);
                continue;
            }
            if let Some(stall) = self.stall(&connection)
                && !self.goes_on(id, &mut connection)
            {
                let is_over = self.is_over(&connection);
                match stall {
                    Stall::Replies if is_over => closed_unread.add(&connection.client),
                    Stall::Request if is_over => closed_half.add(&connection.client),
                    Stall::Replies
                        if !std::mem::replace(&mut connection.client.progress.is_told_of, true) =>
                    {
                        unread.add(&connection.client);
                    }
                    Stall::Replies | Stall::Request => {}
                }
                if is_over {
                    self.let_go(&mut connection, stall);
                    self.clients.put_back(connection);
                    continue;
                }
            }
            self.clients.keep(connection);
        }
        if let Some((client, name, others)) = unread.told() {
            tracing::warn!(
                client,
                name,
                others,
                "a client does not read its replies: it is not served, nor read from, until it does"
            );
        }
        if let Some((client, name, others)) = closed_unread.told() {
            tracing::warn!(
                client,
                name,
                others,
                "a client is disconnected: it has not read its replies for --request-timeout"
            );
        }
        if let Some((client, name, others)) = closed_half.told() {
            tracing::warn!(
                client,
                name,
                others,
                "a client is disconnected: it has not ended its request for --request-timeout"
            );
        }
    }

    fn stall(&self, connection: &Connection) -> Option<Stall> {
        let client = &connection.client;
        let is_sending = self.net.is_sending(client.socket);
        if client.stage != Stage::Open {
            None
        } else if client.is_in_backlog {
            is_sending.then_some(Stall::Replies)
        } else {
            let waits = !client.is_quiet() || client.replies.is_ready() || is_sending;
            (connection.unserved_bytes() > 0 && !waits).then_some(Stall::Request)
        }
    }

    /// Whether the client has taken anything since the last look.
    fn goes_on(&mut self, id: SocketId, connection: &mut Connection) -> bool {
        let taken = self.net.taken_bytes(id).unwrap_or(0);
        connection.client.progress.takes(taken, self.clock.now().uptime_ms)
    }

    fn is_over(&self, connection: &Connection) -> bool {
        let timeout_ms = self.shared.settings.request_timeout_ms.load(Ordering::Relaxed).unsigned_abs();
        timeout_ms > 0 && connection.client.progress.stalled_ms(self.clock.now().uptime_ms) >= timeout_ms
    }

    fn let_go(&mut self, connection: &mut Connection, stall: Stall) {
        let client = &mut connection.client;
        let error = Error::Unavailable(match stall {
            Stall::Replies => "the replies were not read for --request-timeout: read while you send",
            Stall::Request => "the rest of the request did not come within --request-timeout",
        });
        self.end_with_error(client, error);
        client.stage = match stall {
            Stall::Replies => Stage::Lingering { until_ms: self.clock.now().uptime_ms + LAST_WORDS_MS },
            Stall::Request => Stage::Closing,
        };
    }
}
