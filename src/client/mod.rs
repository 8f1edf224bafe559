//! One client: what it has said of itself, what it sent and was not run yet, and its replies, which leave in the order
//! of its requests. It does no I/O; the worker moves bytes between it and the network.

pub mod job;
pub mod listing;
pub mod multi;
pub mod replies;
pub mod reply;
pub mod session;
pub mod share;
pub mod subscriptions;
pub mod tracking;

use std::collections::TryReserveError;
use std::time::Duration;

use shard::{Command, SHARED_LEN_MIN};

use crate::mesh::{ClientKind, Tracks};
use crate::metrics::calls::Measured;
use crate::net::listener::Endpoint;
use crate::net::{Addresses, SocketId};
use crate::protocol::Parser;
use job::Job;
use replies::Replies;
use session::Session;
use share::{Progress, TurnShare};
use subscriptions::Subscriptions;
use tracking::Tracking;

/// Memory for a request is taken for at most so many times what has arrived of it: what the client claims may never
/// come. A step that is not the last copies at most one part in so many of the request.
const CLAIM_MAX: usize = 16;

/// What a client may take of the server's memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A client that cannot be served at the moment is not received from past this many bytes.
    pub query_bytes: usize,
    /// A client that has this many bytes of replies waiting is not served further until they have left.
    pub reply_bytes: usize,
}

/// How far a connection is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Serving.
    Open,
    /// The peer sends no more; what it sent is still served.
    Ended,
    /// Nothing more is served; the replies still leave.
    Closing,
    /// The replies have left and the peer was told so; its end is awaited, so that it can read them.
    Lingering {
        /// When waiting ends, in milliseconds from the start of the server.
        until_ms: u64,
    },
    /// The peer is gone; what is under way ends unseen.
    Gone,
}

/// A connection: the parser of its bytes, and the client behind it.
pub struct Connection {
    /// Turns bytes into requests.
    pub parser: Parser,
    /// Bytes that were received and not served when they came.
    pub input: Vec<u8>,
    /// So many of them, at their start, were served meanwhile; a request begins behind them.
    pub served_bytes: usize,
    /// The parser needs at least this many bytes that were not served to get on.
    pub input_needed: usize,
    /// Everything else.
    pub client: Client,
}

/// A client.
pub struct Client {
    /// Its socket.
    pub socket: SocketId,
    /// Its number for `CLIENT ID`, unique while the server runs.
    pub id: u64,
    /// Which listener it came through.
    pub endpoint: Endpoint,
    /// From where it has connected, and to where.
    pub addresses: Addresses,
    /// When it has connected, in milliseconds from the start of the server.
    pub since_ms: u64,
    /// What it may take.
    pub limits: Limits,
    /// What it has said of itself, and how it is answered.
    pub session: Session,
    /// Which messages it wants, if it wants any.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// How it is told of changes of the keys that it keeps copies of, if it keeps any.
    pub tracking: Option<Box<Tracking>>,
    /// Since when so many messages have waited for it that this may not last, in milliseconds from the start of the
    /// server.
    pub lags_since_ms: Option<u64>,
    /// Its replies.
    pub replies: Replies,
    /// A command that involves several shards or steps. No other command of this client runs meanwhile.
    pub job: Option<Box<Job>>,
    /// When the job began, or last got on, in milliseconds from the start of the server.
    pub job_since_ms: u64,
    /// Jobs that the client waits for no more, by the sequence number under which they are answered.
    pub given_up: Vec<(u32, Box<Job>)>,
    /// Its next request has to wait until this worker has fewer of them.
    pub waits_for: Option<usize>,
    /// None of its other requests runs before the last one is answered, which runs later than it was taken.
    pub waits_for_last: bool,
    /// Its next request names a script that was not known before other workers were heard.
    pub looks_for_script: bool,
    /// Its next request has to wait until a pause of the server ends.
    pub is_postponed: bool,
    /// The last command that it sent.
    pub last_command: Option<&'static Command>,
    /// How far it is on its way to its end.
    pub stage: Stage,
    /// It was one too many, is told so, and is not counted among the clients.
    pub refused: bool,
    /// It is not received from at the moment.
    pub paused: bool,
    /// So many bytes of a large request have come early. It is not received from for the turns that they would take.
    pub early_bytes: usize,
    /// When it last got on.
    pub progress: Progress,
    /// What it has had of this turn.
    pub share: TurnShare,
    /// The last turn of the worker in which its replies showed what the worker's own shard holds.
    pub shown_in_turn: u64,
    /// The last command that was answered in that turn.
    pub shown_command: Option<&'static Command>,
    /// Its replies stay here until the log holds the changes that they may show.
    pub held_back: bool,
    /// Since when its replies wait for those behind them, in microseconds from the start of the server.
    pub gathering_since_us: Option<u64>,
    /// Nothing came from it yet, and its greeting waits a moment for that.
    pub is_greeted_first: bool,
    /// Some of its input waits to be served, and it stands in the worker's list of such clients.
    pub is_in_backlog: bool,
    /// It stands in the worker's list of clients to look after at the end of the turn.
    pub listed: bool,
    /// The last count of the worker's clients that it was counted in.
    pub counted_in: u32,
    /// One of its requests that is measured and not answered yet, and the number under which its replies know it; that
    /// of a job is the next one.
    pub measured: Option<(u32, Measured)>,
    /// That request, if it may turn out to be slow.
    pub slow_candidate: Option<SlowCandidate>,
}

/// A request that may turn out to be slow.
pub struct SlowCandidate {
    /// Its command.
    pub command: &'static Command,
    /// As much of its words as is kept of a slow one.
    pub words: Vec<Vec<u8>>,
    /// How long it took, where that does not depend on when it is answered.
    pub took: Option<Duration>,
}

impl Connection {
    /// Whether the client is this process itself.
    pub fn is_inside(&self) -> bool {
        self.client.endpoint == Endpoint::Inside
    }

    /// A client that has just come through `endpoint`.
    pub fn new(
        socket: SocketId,
        id: u64,
        endpoint: Endpoint,
        parser: Parser,
        limits: Limits,
    ) -> Box<Connection> {
        let client = Client {
            socket,
            id,
            endpoint,
            addresses: Addresses::default(),
            since_ms: 0,
            limits,
            session: Session::new(endpoint),
            subscriptions: None,
            tracking: None,
            lags_since_ms: None,
            replies: Replies::default(),
            job: None,
            job_since_ms: 0,
            given_up: Vec::new(),
            waits_for: None,
            waits_for_last: false,
            looks_for_script: false,
            is_postponed: false,
            last_command: None,
            stage: Stage::Open,
            refused: false,
            paused: false,
            early_bytes: 0,
            progress: Progress::default(),
            share: TurnShare::default(),
            shown_in_turn: 0,
            shown_command: None,
            held_back: false,
            gathering_since_us: None,
            is_greeted_first: false,
            is_in_backlog: false,
            listed: false,
            counted_in: 0,
            measured: None,
            slow_candidate: None,
        };
        Box::new(Connection { parser, input: Vec::new(), served_bytes: 0, input_needed: 0, client })
    }

    /// How many bytes were received and not served yet.
    pub fn unserved_bytes(&self) -> usize {
        self.input.len() - self.served_bytes
    }

    /// How many more bytes the parser needs to get on.
    pub fn missing_bytes(&self) -> usize {
        self.input_needed.saturating_sub(self.unserved_bytes())
    }

    /// How many of so many bytes that have come are taken before the parser looks at them. A large argument ends where
    /// its memory does, so that the request can keep it as it is. A parser that asks for one byte more does not know
    /// how many it needs, and would ask again for each.
    pub fn taken_at_once(&self, chunk_bytes: usize) -> usize {
        match self.missing_bytes() {
            missing @ 2.. if self.input_needed >= SHARED_LEN_MIN => missing.min(chunk_bytes),
            _ => chunk_bytes,
        }
    }

    /// Adds bytes to the input. Its memory grows with what has come, in few steps towards exactly what the parser waits
    /// for: a large value keeps it.
    ///
    /// # Errors
    /// No memory can be had for them. Nothing is added.
    pub fn take_in(&mut self, bytes: &[u8]) -> Result<(), TryReserveError> {
        if bytes.len() > self.input.capacity() - self.input.len() {
            self.input.drain(..std::mem::take(&mut self.served_bytes));
            let arrived_bytes = self.input.len() + bytes.len();
            if self.input_needed < arrived_bytes {
                self.input.try_reserve(bytes.len())?;
            } else {
                let mut wanted_bytes = self.input_needed;
                while wanted_bytes / CLAIM_MAX >= arrived_bytes {
                    wanted_bytes /= CLAIM_MAX;
                }
                self.input.try_reserve_exact(wanted_bytes - self.input.len())?;
            }
        }
        self.input.extend_from_slice(bytes);
        Ok(())
    }

    /// Drops what was received and not served.
    pub fn drop_input(&mut self) {
        self.input = Vec::new();
        (self.served_bytes, self.input_needed) = (0, 0);
    }
}

impl Client {
    /// Whether its next request may run now, as far as the client itself is concerned.
    pub fn is_servable(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Ended)
            && self.job.is_none()
            && (!self.waits_for_last || self.replies.all_in())
            && self.replies.size_bytes() < self.limits.reply_bytes
            && self.replies.may_wait_for_more()
    }

    /// What shards have to note of its next command.
    #[inline]
    pub fn tracks(&self) -> Tracks {
        self.tracking.as_ref().map_or(Tracks::default(), |tracking| tracking.tracks())
    }

    /// Whether its replies must not leave yet: those of commands that run as one leave together.
    pub fn holds_replies(&self) -> bool {
        matches!(self.job.as_deref(), Some(Job::Program(running)) if running.replies_from.is_some())
    }

    /// Whether its last words were waited for in vain.
    pub fn is_overdue(&self, uptime_ms: u64) -> bool {
        matches!(self.stage, Stage::Lingering { until_ms } if until_ms <= uptime_ms)
    }

    /// What kind of client it is.
    pub fn kind(&self) -> ClientKind {
        if self.subscriptions.is_some() { ClientKind::Pubsub } else { ClientKind::Normal }
    }

    /// Whether it waits for something that need not come: until a timeout, or for as long as the server runs.
    pub fn is_waiting(&self) -> bool {
        matches!(self.job.as_deref(), Some(Job::Wait(_)))
    }

    /// Whether it waits for nothing: no job, no request at another shard.
    pub fn is_quiet(&self) -> bool {
        self.job.is_none() && self.replies.all_in()
    }

    /// Whether it has nothing to do and nothing to read: it may be idle for longer than others.
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Open && !self.refused && self.is_done() && self.endpoint != Endpoint::Inside
    }

    /// Whether nothing that it asked for is under way, whether it still waits for it or not: only then can the
    /// connection go.
    pub fn is_done(&self) -> bool {
        self.is_quiet() && self.given_up.is_empty() && self.replies.is_owed_nothing()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(input_needed: usize) -> Box<Connection> {
        let socket = SocketId { index: 0, generation: 0 };
        let parser = Parser::new(crate::protocol::Listener::Resp);
        let limits = Limits { query_bytes: 64 << 10, reply_bytes: 1 << 20 };
        let mut connection = Connection::new(socket, 1, Endpoint::Resp, parser, limits);
        connection.input_needed = input_needed;
        connection
    }

    #[test]
    fn memory_for_a_request_grows_with_what_has_come_and_fits_it_in_the_end() {
        const CHUNK: usize = 64 << 10;
        for needed in [20_000, 1 << 20, (9 << 20) + 17, 64 << 20] {
            let mut connection = connection(needed);
            let mut moved_bytes = 0;
            while connection.input.len() < needed {
                let before = (connection.input.capacity(), connection.input.len());
                let count = CHUNK.min(needed - connection.input.len());
                connection.take_in(&vec![0; count]).unwrap();
                let (room, arrived) = (connection.input.capacity(), connection.input.len());
                assert!(room <= CLAIM_MAX * arrived, "{room} bytes for {arrived} of {needed}");
                moved_bytes += if room == before.0 { 0 } else { before.1 };
            }
            assert_eq!(connection.input.capacity(), needed);
            assert!(moved_bytes <= needed / (CLAIM_MAX - 1), "{moved_bytes} bytes of {needed} were moved");
        }
    }

    #[test]
    fn a_large_argument_is_taken_to_its_end_and_small_ones_by_the_chunk() {
        const CHUNK: usize = 4096;
        let taken = |needed: usize, missing: usize| {
            let mut connection = connection(needed);
            connection.input = vec![0; needed - missing];
            connection.taken_at_once(CHUNK)
        };
        assert_eq!([taken(1 << 20, 1 << 19), taken(1 << 20, 1000)], [CHUNK, 1000]);
        assert_eq!(taken(1 << 20, 1), CHUNK, "between two arguments, or within a line");
        assert_eq!(taken(100, 50), CHUNK);
    }
}
