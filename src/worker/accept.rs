//! New clients: which worker serves each, and what becomes of those that are one too many.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::SendFlags;
use shard::Error;

use super::Worker;
use crate::client::reply::{answer_error, write_error};
use crate::client::session::first_dialect;
use crate::client::{Connection, Limits, Stage};
use crate::config::parameters::Settings;
use crate::mesh::AcceptedSocket;
use crate::net::listener::Endpoint;
use crate::net::{Addresses, Net, prepare_tcp};
use crate::protocol::{self, Listener, Parser};

/// How many clients that were one too many are told so and waited for, so that they hear it whatever they have sent.
/// Further ones are told and closed at once: a storm of them takes no descriptors.
pub(crate) const REFUSED_AT_ONCE_MAX: usize = 32;

/// The longest silence before the system asks whether a peer is there, in seconds: it takes no longer ones.
const KEEPALIVE_S_MAX: u64 = 32_767;

/// How often it is told that accepting fails.
const FAILURES_TOLD_MS: u64 = 60_000;

/// The listeners of a worker, and the clients that were refused.
#[derive(Default)]
pub(super) struct Acceptor {
    /// The endpoints behind the ring's listeners, by their number; empty where this worker does not accept.
    endpoints: Vec<Endpoint>,
    /// Listeners that rest because accepting failed.
    resting: Vec<usize>,
    next_worker: usize,
    /// How often accepting has failed since that was told last, and when that was.
    failures: u64,
    told_ms: Option<u64>,
    /// Clients that were one too many and have not gone yet.
    refusing: usize,
}

impl Acceptor {
    pub(super) fn listen(&mut self, listeners: Vec<(OwnedFd, Endpoint)>, net: &mut Net) {
        for (descriptor, endpoint) in listeners {
            net.listen(descriptor);
            self.endpoints.push(endpoint);
        }
    }

    /// Rests for a while: accepting at this listener has failed. Says so at first, and then once a minute.
    pub(super) fn on_failed(&mut self, listener: usize, error: &std::io::Error, now_ms: u64) {
        self.resting.push(listener);
        self.failures += 1;
        if self.told_ms.is_some_and(|told_ms| now_ms < told_ms + FAILURES_TOLD_MS) {
            return;
        }
        self.told_ms = Some(now_ms);
        let failures = std::mem::take(&mut self.failures);
        let remedy = match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files",
            _ => "look at what the system allows this process",
        };
        tracing::warn!(%error, failures, remedy, "cannot accept connections; trying again");
    }

    pub(super) fn end_rest(&mut self, net: &mut Net) {
        for listener in std::mem::take(&mut self.resting) {
            net.accept(listener);
        }
    }

    /// A client that was refused has gone.
    pub(super) fn on_refused_gone(&mut self) {
        self.refusing -= 1;
    }

    /// The worker for the next client: each in turn, but for those that hang.
    fn choose_worker(&mut self, hung: &[bool]) -> usize {
        let count = hung.len();
        let mut in_turn = (0..count).map(|step| (self.next_worker + step) % count);
        let worker = in_turn.find(|worker| !hung[*worker]).expect("this worker does not hang");
        self.next_worker = (worker + 1) % count;
        worker
    }
}

impl Worker {
    fn keepalive(&self) -> Option<Duration> {
        let seconds = self.shared.settings.tcp_keepalive_s.load(Ordering::Relaxed);
        (seconds > 0).then(|| Duration::from_secs(seconds.unsigned_abs().min(KEEPALIVE_S_MAX)))
    }

    fn clients_max(&self) -> usize {
        self.shared.settings.max_connections.load(Ordering::Relaxed) as usize
    }

    pub(super) fn on_accepted(&mut self, listener: usize, socket: OwnedFd) {
        let endpoint = self.acceptor.endpoints[listener];
        if endpoint != Endpoint::Unix && prepare_tcp(&socket, self.keepalive()).is_err() {
            return; // The peer is gone already.
        }
        let client_id = self.shared.clients_accepted.next();
        let accepted = AcceptedSocket { socket, endpoint, client_id };
        if self.shared.connections.count() >= self.clients_max() {
            self.refuse(accepted);
            return;
        }
        self.shared.connections.add();
        let worker = self.acceptor.choose_worker(self.watchdog.hung());
        if worker == self.index {
            self.welcome(accepted);
        } else {
            self.mesh.to(worker).accepted(accepted);
        }
    }

    /// Serves these sockets, whose other ends other threads of this process hold.
    pub(super) fn welcome_insiders(&mut self, sockets: Vec<OwnedFd>) {
        for socket in sockets {
            self.welcome(AcceptedSocket { socket, endpoint: Endpoint::Inside, client_id: 0 });
        }
    }

    pub(super) fn welcome(&mut self, accepted: AcceptedSocket) -> &mut Connection {
        let AcceptedSocket { socket, endpoint, client_id } = accepted;
        let addresses = Addresses::of(&socket, endpoint);
        let id = self.net.attach(socket);
        let listener = match endpoint {
            Endpoint::Text => Listener::Text { resp_port: self.shared.resp_port },
            Endpoint::Resp | Endpoint::Unix | Endpoint::Inside => Listener::Resp,
        };
        let Settings { client_query_buffer_limit, client_reply_buffer_limit, .. } = &self.shared.settings;
        let limits = Limits {
            query_bytes: client_query_buffer_limit.load(Ordering::Relaxed) as usize,
            reply_bytes: client_reply_buffer_limit.load(Ordering::Relaxed) as usize,
        };
        let mut connection = Connection::new(id, client_id, endpoint, Parser::new(listener), limits);
        connection.client.addresses = addresses;
        connection.client.since_ms = self.clock.now().uptime_ms;
        connection.client.progress.note(self.clock.now().uptime_ms);
        if endpoint == Endpoint::Text {
            connection.client.replies.now(|out| out.extend_from_slice(protocol::GREETING));
            connection.client.is_greeted_first = true;
        }
        self.clients.add(connection)
    }

    fn refuse(&mut self, accepted: AcceptedSocket) {
        self.shared.connections_refused.next();
        if self.acceptor.refusing == REFUSED_AT_ONCE_MAX {
            let dialect = first_dialect(accepted.endpoint);
            let mut told = Vec::new();
            write_error(Error::ConnectionLimit, dialect, &mut told);
            // As far as it can be said without waiting.
            let _ = rustix::net::send(&accepted.socket, &told, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            return;
        }
        self.acceptor.refusing += 1;
        let client = &mut self.welcome(accepted).client;
        client.refused = true;
        client.is_greeted_first = false;
        client.replies.discard();
        answer_error(client, Error::ConnectionLimit);
        client.stage = Stage::Closing;
    }
}
