//! What workers send each other: one message a turn and destination, in bounded queues that nobody waits on.
//!
//! Every worker has one open [`Mail`] for each peer, to which a turn adds calls to the peer's shard and answers to
//! the peer's earlier calls. At the end of the turn the mail is sent if the queue has room; otherwise it stays
//! open and the next turn adds to it. Nobody ever waits for room, so two workers that flood each other cannot
//! block each other; and mail cannot grow without bound, because a worker has at most [`CALLS_IN_FLIGHT_MAX`]
//! calls without an answer at each peer: clients that ask for more are not read from meanwhile.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use shard::{Command, Dialect, Reply, Request, Span};

use crate::net::{Doorbell, Net, SocketId};

/// How many requests of its clients a worker may have under way at one peer.
pub const CALLS_IN_FLIGHT_MAX: usize = 16 * 1024;

/// How many bytes of requests a worker may have under way at one peer before its clients are not read from.
pub const BYTES_IN_FLIGHT_MAX: usize = 8 * 1024 * 1024;

/// How many messages fit between two workers. One would do; more lets both sides run ahead.
pub const QUEUE_CAPACITY: usize = 64;

/// Emptied mail is kept for reuse up to this size of its arena.
const ARENA_KEPT_BYTES: usize = 256 * 1024;

/// How many emptied mails a worker keeps for reuse.
const POOL_MAX: usize = 64;

/// Names the request to which an answer belongs: a client, and the place in its order of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The client's socket at the worker that asks.
    pub socket: SocketId,
    /// The number of the request among those of this client, modulo 2^32.
    pub sequence: u32,
}

/// Names a multi-shard transaction, in the log too: unique over workers and restarts.
pub type TransactionId = u64;

/// Arguments of a request: a run of a mail's spans. These count from the request's own start in the arena, which
/// may hold more bytes, large answers above all, than the 32 bits of a span can count.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    start: usize,
    first: u32,
    count: u32,
}

/// What a worker asks of another one's shard.
#[derive(Debug)]
pub enum Call {
    /// Run a command whose keys all lie on the shard. Answered by `Bytes`.
    Run {
        /// The row.
        command: &'static Command,
        /// How to render the reply.
        dialect: Dialect,
        /// Its arguments.
        args: Args,
    },
    /// Run this shard's share of a command, without locks. Answered by `Part`.
    RunPart {
        /// The row.
        command: &'static Command,
        /// The arguments of this shard's share.
        args: Args,
    },
    /// Lock the keys of this shard's part of a transaction. Answered by `Locked` (reads: `Part`) or `Refused`.
    Lock {
        /// The transaction.
        transaction: TransactionId,
        /// Wait for the locks in turn, instead of refusing.
        wait: bool,
        /// The row.
        command: &'static Command,
        /// The arguments of this shard's part.
        args: Args,
        /// All shards that have a part.
        participants: Arc<[u32]>,
    },
    /// Run the locked part; the locks stay. Answered by `Part`.
    Commit {
        /// The transaction.
        transaction: TransactionId,
        /// Its id in the log.
        record: TransactionId,
    },
    /// Unlock, whether the part was run or not; no answer.
    Release(TransactionId),
    /// Walk a slice of the keyspace. Answered by `Page`.
    Scan {
        /// Where to go on.
        position: u64,
        /// How many keys to visit, about.
        count: usize,
        /// The glob pattern, if any.
        pattern: Option<Box<[u8]>>,
        /// How to render the keys.
        dialect: Dialect,
    },
    /// Count what there is to count. Answered by `Report`.
    Report,
    /// Bring everything acknowledged so far to disk. Answered by `Part`.
    Sync,
    /// Write a snapshot and drop the log that it replaces. Answered by `Part`.
    Compact,
}

/// What a call is answered with.
#[derive(Debug)]
pub enum Answer {
    /// The rendered reply, in the mail's arena.
    Bytes(Range<usize>),
    /// A part of the reply, to be merged.
    Part(Reply<'static>),
    /// The part is locked.
    Locked,
    /// The part conflicts with another transaction; nothing is locked.
    Refused,
    /// Some keys, rendered as list items, and where to go on.
    Page(Box<Page>),
    /// The counters of a worker.
    Report(Box<crate::report::Report>),
}

/// A slice of the keyspace.
#[derive(Debug, Default)]
pub struct Page {
    /// The keys, rendered as list items.
    pub items: Vec<u8>,
    /// How many.
    pub count: usize,
    /// Where to go on; `None` at the end of the shard.
    pub next: Option<u64>,
}

/// A new connection on its way to the worker that will serve it.
#[derive(Debug)]
pub struct Newcomer {
    /// The connection.
    pub socket: OwnedFd,
    /// Which protocol its listener speaks.
    pub door: crate::connection::Door,
    /// The number by which `CLIENT ID` names it.
    pub client_id: u64,
}

/// One message from one worker to another.
#[derive(Debug, Default)]
pub struct Mail {
    calls: Vec<(Token, Call)>,
    answers: Vec<(Token, Answer)>,
    newcomers: Vec<Newcomer>,
    spans: Vec<Span>,
    arena: Vec<u8>,
}

impl Mail {
    /// Copies arguments into the mail.
    pub fn args<'a>(&mut self, args: impl Iterator<Item = &'a [u8]>) -> Args {
        let (start, first) = (self.arena.len(), self.spans.len() as u32);
        for arg in args {
            let span = Span { start: (self.arena.len() - start) as u32, len: arg.len() as u32 };
            self.spans.push(span);
            self.arena.extend_from_slice(arg);
        }
        Args { start, first, count: self.spans.len() as u32 - first }
    }

    /// Adds a call.
    pub fn call(&mut self, token: Token, call: Call) {
        self.calls.push((token, call));
    }

    /// Adds an answer.
    pub fn answer(&mut self, token: Token, answer: Answer) {
        self.answers.push((token, answer));
    }

    /// Adds an answer that `render` writes.
    pub fn answer_bytes(&mut self, token: Token, render: impl FnOnce(&mut Vec<u8>)) {
        let start = self.arena.len();
        render(&mut self.arena);
        self.answers.push((token, Answer::Bytes(start..self.arena.len())));
    }

    /// Adds a connection that the receiver is to serve.
    pub fn newcomer(&mut self, newcomer: Newcomer) {
        self.newcomers.push(newcomer);
    }

    /// Takes out the calls, in order. [`Mail::take_back`] returns the emptied list for reuse.
    pub fn take_calls(&mut self) -> Vec<(Token, Call)> {
        std::mem::take(&mut self.calls)
    }

    /// Takes out the answers, in order.
    pub fn take_answers(&mut self) -> Vec<(Token, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Takes out the connections.
    pub fn take_newcomers(&mut self) -> Vec<Newcomer> {
        std::mem::take(&mut self.newcomers)
    }

    /// Gives emptied lists back to the mail, so that their memory is reused.
    pub fn take_back(&mut self, mut calls: Vec<(Token, Call)>, mut answers: Vec<(Token, Answer)>) {
        calls.clear();
        answers.clear();
        self.calls = calls;
        self.answers = answers;
    }

    /// The request that a call carries.
    pub fn request(&self, command: &'static Command, dialect: Dialect, args: Args) -> Request<'_> {
        let spans = &self.spans[args.first as usize..][..args.count as usize];
        Request::new(command, dialect, &self.arena[args.start..], spans)
    }

    /// The bytes of an answer.
    pub fn bytes(&self, answer: Range<usize>) -> &[u8] {
        &self.arena[answer]
    }

    fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.answers.is_empty() && self.newcomers.is_empty()
    }

    fn reset(&mut self) {
        self.calls.clear();
        self.answers.clear();
        self.newcomers.clear();
        self.spans.clear();
        self.arena.clear();
        self.arena.shrink_to(ARENA_KEPT_BYTES);
    }
}

/// One end of the mesh that joins all workers: the queues of one worker.
pub struct Post {
    own: usize,
    peers: Vec<Peer>,
    #[allow(clippy::vec_box)] // The boxes travel.
    pool: Vec<Box<Mail>>,
    /// This worker sleeps, or is about to, and wants to be woken by a peer that sends.
    asleep: Arc<AtomicBool>,
}

struct Peer {
    open: Box<Mail>,
    outbox: rtrb::Producer<Box<Mail>>,
    inbox: rtrb::Consumer<Box<Mail>>,
    asleep: Arc<AtomicBool>,
    doorbell: Option<Doorbell>,
    calls_in_flight: usize,
    bytes_in_flight: usize,
}

impl Post {
    /// The ends of a mesh of `workers` workers, one for each, whose queues hold `capacity` messages.
    pub fn mesh(workers: usize, capacity: usize) -> Vec<Post> {
        let mut outboxes: Vec<Vec<_>> = (0..workers).map(|_| Vec::with_capacity(workers)).collect();
        let mut inboxes: Vec<Vec<_>> = (0..workers).map(|_| Vec::with_capacity(workers)).collect();
        for outbox in &mut outboxes {
            for inbox in &mut inboxes {
                let (producer, consumer) = rtrb::RingBuffer::new(capacity);
                outbox.push(producer);
                inbox.push(consumer);
            }
        }
        let asleep: Vec<Arc<AtomicBool>> = (0..workers).map(|_| Arc::default()).collect();
        let ends = outboxes.into_iter().zip(inboxes).enumerate();
        ends.map(|(own, (outboxes, inboxes))| Post {
            own,
            peers: (outboxes.into_iter().zip(inboxes).zip(&asleep))
                .map(|((outbox, inbox), asleep)| Peer {
                    open: Box::default(),
                    outbox,
                    inbox,
                    asleep: asleep.clone(),
                    doorbell: None,
                    calls_in_flight: 0,
                    bytes_in_flight: 0,
                })
                .collect(),
            pool: Vec::new(),
            asleep: asleep[own].clone(),
        })
        .collect()
    }

    /// Tells by which doorbells the workers are woken, in the order of their numbers.
    pub fn connect(&mut self, doorbells: &[Doorbell]) {
        for (peer, doorbell) in self.peers.iter_mut().zip(doorbells) {
            peer.doorbell = Some(doorbell.clone());
        }
    }

    /// The number of workers.
    pub fn worker_count(&self) -> usize {
        self.peers.len()
    }

    /// The open mail for a worker; this one's own included, which arrives with its next turn.
    pub fn to(&mut self, worker: usize) -> &mut Mail {
        &mut self.peers[worker].open
    }

    /// Sends a client's request to the worker that owns its keys. Returns its size in bytes, for
    /// [`Post::answered`].
    pub fn run(&mut self, worker: usize, token: Token, request: &Request<'_>) -> usize {
        let peer = &mut self.peers[worker];
        let before = peer.open.arena.len();
        let args = peer.open.args(request.args());
        let size_bytes = peer.open.arena.len() - before;
        peer.calls_in_flight += 1;
        peer.bytes_in_flight += size_bytes;
        let Request { command, dialect, .. } = *request;
        peer.open.call(token, Call::Run { command, dialect, args });
        size_bytes
    }

    /// Notes that a request of `size_bytes` sent by [`Post::run`] was answered.
    pub fn answered(&mut self, worker: usize, size_bytes: usize) {
        let peer = &mut self.peers[worker];
        peer.calls_in_flight -= 1;
        peer.bytes_in_flight -= size_bytes;
    }

    /// Whether some peer has as many requests as it may have: clients must wait.
    pub fn is_full(&self) -> bool {
        let full = |peer: &Peer| {
            peer.calls_in_flight >= CALLS_IN_FLIGHT_MAX || peer.bytes_in_flight >= BYTES_IN_FLIGHT_MAX
        };
        self.peers.iter().any(full)
    }

    /// The next message from a worker, if one is there.
    pub fn receive(&mut self, worker: usize) -> Option<Box<Mail>> {
        self.peers[worker].inbox.pop().ok()
    }

    /// Takes an emptied message back for reuse.
    pub fn recycle(&mut self, mut mail: Box<Mail>) {
        if self.pool.len() < POOL_MAX {
            mail.reset();
            self.pool.push(mail);
        }
    }

    /// Sends the open mails and wakes the receivers that sleep. A mail whose queue is full stays open.
    pub fn send(&mut self, net: &mut Net) {
        let Post { own, peers, pool, .. } = self;
        for (worker, peer) in peers.iter_mut().enumerate() {
            if peer.open.is_empty() || peer.outbox.is_full() {
                continue;
            }
            let mail = std::mem::replace(&mut peer.open, pool.pop().unwrap_or_default());
            if peer.outbox.push(mail).is_err() {
                unreachable!("only this worker fills the queue, and it had room");
            }
            if worker == *own {
                continue;
            }
            // The mail is published before the flag is read; the receiver publishes the flag, then looks for
            // mail (`fall_asleep`). One of both sees the other.
            fence(Ordering::SeqCst);
            if peer.asleep.load(Ordering::Relaxed) && peer.asleep.swap(false, Ordering::Relaxed) {
                net.ring_doorbell(peer.doorbell.as_ref().expect("workers are connected before they serve"));
            }
        }
    }

    /// Asks peers to wake this worker when they send. Returns false, and asks nothing, when mail is there already
    /// or waits to be sent.
    pub fn fall_asleep(&mut self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let idle = self.is_idle();
        if !idle {
            self.wake_up();
        }
        idle
    }

    /// Ends [`Post::fall_asleep`].
    pub fn wake_up(&mut self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether no mail has arrived, and none waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.peers.iter().all(|peer| peer.inbox.is_empty() && peer.open.is_empty())
    }
}
