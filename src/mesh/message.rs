//! What workers ask each other, and what they answer.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use shard::analytics::query::{QueryResult, Question};
use shard::combine::{Effect, Held};
use shard::{AutoTtl, Command, Glob, OwnedRequest, Reply, Request, Span};
use wal::Image;

use super::clients::ClientFilter;
use crate::config::file::Rewrite;
use crate::metrics::Report;
use crate::net::SocketId;
use crate::net::listener::Endpoint;
use crate::protocol::Dialect;
use crate::scripting::Script;
use crate::scripting::libraries::{Libraries, LibraryChange};

/// An emptied batch is kept for reuse up to this size of its arena.
const ARENA_KEPT_BYTES: usize = 256 * 1024;

/// Names the request to which an answer belongs: a client, and the place in its order of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// The client's socket at the worker that asks.
    pub socket: SocketId,
    /// The number of the request among those of this client, modulo 2^32.
    pub sequence: u32,
}

/// Who is to get the rendered reply to a request.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The worker of the client.
    pub worker: usize,
    /// The request, as that worker knows it.
    pub request_id: RequestId,
    /// How the client is answered.
    pub dialect: Dialect,
    /// What is noted for it.
    pub tracks: Tracks,
}

/// What a shard notes of a request for a client that keeps copies of keys: nothing for any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracks {
    /// The keys that it reads.
    pub reads: bool,
    /// That it is the client that changes keys: it is not told of that.
    pub own_changes: bool,
}

impl Tracks {
    /// Whether there is anything to note.
    #[inline]
    pub fn any(self) -> bool {
        self.reads || self.own_changes
    }
}

impl Asker {
    /// The worker, and the request as it knows it.
    pub fn id(self) -> (usize, RequestId) {
        (self.worker, self.request_id)
    }
}

impl RequestId {
    /// Of calls that are not answered.
    pub const NONE: RequestId =
        RequestId { socket: SocketId { index: u32::MAX, generation: 0 }, sequence: u32::MAX };
}

/// What messages a subscription is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionKind {
    /// Those of one channel.
    Channel,
    /// Those of all channels whose names match a pattern.
    Pattern,
    /// Those of one shard channel. These have names of their own.
    ShardChannel,
    /// Changes of the keys with a prefix.
    Prefix,
    /// Changes of keys, whichever: there is one name, an empty one.
    Tracker,
}

/// A message on its way to the subscribers of another worker.
#[derive(Clone, Debug)]
pub enum Message {
    /// In the batch's arena: the channel, and what is said.
    Copied(Args),
    /// As `Copied`, with a large text, which is not copied.
    Shared(Bytes, Bytes),
}

/// Names a multi-shard transaction, in the log too: unique over workers and restarts.
pub type TransactionId = u64;

/// Arguments of a request: a run of a batch's spans. These count from the request's own start in the arena, which
/// may hold more bytes, large answers above all, than the 32 bits of a span can count.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    start: usize,
    first: u32,
    count: u32,
    /// The database in which the request runs.
    database: u16,
}

/// How a key was when a client began to watch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The number of its database.
    pub database: u16,
    /// The number of the keyspace that this was.
    pub keyspace: u16,
    /// The key.
    pub key: Box<[u8]>,
    /// Its version.
    pub version: u64,
    /// Whether it existed.
    pub existed: bool,
}

/// Commands that run as one on the shard that owns all their keys.
#[derive(Clone, Debug)]
pub struct CommandList {
    /// The commands.
    pub requests: Vec<OwnedRequest>,
    /// None of them runs unless these are as they were.
    pub watches: Vec<Watch>,
    /// Whether any of them may change anything.
    pub writes: bool,
    /// What is noted of each for their client.
    pub tracks: Tracks,
}

/// What a transaction locks at a shard, and what it is to run there.
#[derive(Debug, Default)]
pub struct Locks {
    /// The commands that it runs, or this shard's parts of them, in their order. Their keys are locked, for as long as the
    /// transaction lasts; those of a command without keys are all.
    pub requests: Vec<OwnedRequest>,
    /// The keys of these are locked as well; they are not run.
    pub others: Vec<OwnedRequest>,
    /// No other transaction and no request has the keys meanwhile. Only then may it change any.
    pub exclusive: bool,
    /// The commands only read, and are run as soon as the keys are locked.
    pub runs_at_once: bool,
    /// It asks how the shard is, for a backup.
    pub is_for_backup: bool,
    /// It goes on only if these are as they were.
    pub watches: Vec<Watch>,
    /// What is noted of each for their client.
    pub tracks: Tracks,
    /// All shards that it may change.
    pub writers: Arc<[u32]>,
}

/// What a transaction does next at a shard where it has its locks.
#[derive(Clone, Debug)]
pub enum Hop {
    /// Runs the next so many of the requests that came with the locks.
    Next(usize),
    /// Tells what the keys of this request hold, which is not run. Answered by `Held`.
    Fetch(OwnedRequest),
    /// Has these effects on keys of this request, which is not run.
    Apply(OwnedRequest, Vec<Effect>),
}

/// What a worker asks of another one's shard.
#[derive(Clone, Debug)]
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
    /// As `Run`, for a request with a large argument, which is not copied, or with something to note.
    RunOwned(OwnedRequest, Dialect, Tracks),
    /// Run this shard's share of a command, without locks. Answered by `Part`.
    RunPart {
        /// The row.
        command: &'static Command,
        /// The arguments of this shard's share.
        args: Args,
    },
    /// Run these commands as one. Answered by `Bytes`: the list of their replies.
    RunAll(Box<CommandList>, Dialect),
    /// Lock this shard's part of a transaction. Answered by `Locked` (what runs at once: `Ran`; for a backup: `Image`),
    /// `Changed` or `Refused`.
    Lock {
        /// The transaction.
        transaction: TransactionId,
        /// Wait for the locks in turn, instead of refusing.
        wait: bool,
        /// The part.
        locks: Arc<Locks>,
    },
    /// Go on with a transaction that has its locks, which stay. Answered by `Ran` or, where it is the last one, by
    /// `Committed`.
    Hop {
        /// The transaction.
        transaction: TransactionId,
        /// What it does.
        hop: Hop,
        /// It is the last hop, and what was changed since the locks were given goes to the log under this id.
        record: Option<TransactionId>,
    },
    /// Unlock, whether the part was run or not; no answer.
    Release(TransactionId),
    /// Watch these keys, each of its database. Answered by `Watching`.
    Watch(Vec<(u16, Box<[u8]>)>),
    /// These are watched no more; no answer.
    Unwatch(Vec<Watch>),
    /// Walk a slice of the keyspace. Answered by `Page`.
    Scan {
        /// The number of the database.
        database: u16,
        /// Where to go on.
        position: u64,
        /// How many keys to visit, about.
        count: usize,
        /// The glob pattern, if any.
        pattern: Option<Arc<Glob>>,
        /// How to render the keys.
        dialect: Dialect,
    },
    /// Bring the file of `--config` up to date, if this is the worker to do so. Answered by `Part`.
    RewriteConfig {
        /// The worker.
        worker: usize,
        /// What has changed.
        rewrite: Arc<Rewrite>,
    },
    /// Choose a key of a database by a random number. Answered by `Part`: the key and the number of keys, or nil.
    RandomKey {
        /// The number of the database.
        database: u16,
        /// The random number.
        random: u64,
    },
    /// Count what there is to count. Answered by `Report`.
    Report,
    /// Describe these clients, a line each. Answered by `Part`.
    Clients(Arc<ClientFilter>),
    /// End these clients. Answered by `Part`, with their number.
    KillClients(Arc<ClientFilter>),
    /// End what the client with this number waits for, with an error or as its timeout would. Answered by `Part`, with
    /// the number of clients that waited.
    Unblock {
        /// The client.
        client_id: u64,
        /// It is answered with an error.
        with_error: bool,
    },
    /// Take note of what was ordered for all workers. Answered by `Part`.
    TakeNote,
    /// Tell of slow commands, or forget them. Answered by `Part`.
    SlowLog(SlowLogCall),
    /// Take a turn: the server ends. No answer.
    Wake,
    /// Show these lines to the clients that are shown all commands; no answer.
    Show(Bytes),
    /// Say how the keys are used. Answered by `QueryResult`.
    Ask(Question),
    /// The client is gone for which a `Scan` or an `Ask` was sent under the same id, or a command that takes
    /// several turns: what is left of it is not done, and what it is answered with will not be looked at.
    Forget,
    /// Give keys that are written without a TTL one by these rules, unless newer ones have come already.
    /// Answered by `Part`.
    SetAutoTtl {
        /// The rules.
        auto_ttl: Arc<AutoTtl>,
        /// Greater for newer rules, whichever worker has sent them.
        version: u64,
    },
    /// Know this script, too; no answer.
    LearnScript(Arc<Script>),
    /// The same, answered by `Part`.
    LoadScript(Arc<Script>),
    /// Forget all scripts. Answered by `Part`.
    ForgetScripts,
    /// Change the libraries of functions, which the first worker keeps. Answered by `Libraries`, or by an error.
    ChangeLibraries(Arc<LibraryChange>),
    /// Know these libraries from now on. Answered by `Part`.
    TakeLibraries(Arc<Libraries>),
    /// Bring everything acknowledged so far to disk. Answered by `Part`.
    Sync,
    /// Note that clients of the worker that asks begin subscriptions to these names, each one. Answered by `Noted`.
    Subscribe(SubscriptionKind, Args),
    /// Note that such subscriptions end. Answered by `Noted`, if a request waits for it.
    Unsubscribe(SubscriptionKind, Args),
    /// Hand a message to the clients that are subscribed to its channel, of the kind that is said; no answer.
    Publish(SubscriptionKind, Message),
    /// Say whether the client with this number is served here. Answered by `FoundClient`.
    FindClient(u64),
    /// Tell the client with this socket that these keys have changed; or all that keep copies that all keys are gone. No
    /// answer.
    Invalidate(Option<Args>),
    /// Tell the client with this socket the same in place of another one; no answer.
    Redirect {
        /// The socket of that one, at the worker that asks.
        of: SocketId,
        /// The keys.
        keys: Option<Args>,
    },
    /// The client that is told in place of the one with this socket is gone; no answer.
    RedirectIsBroken,
    /// Tell the clients of the broadcasting mode that these keys have changed, but for the one with this socket; no
    /// answer.
    Broadcast(Args),
    /// Write a snapshot and drop the log that it replaces. Answered by `Part`.
    Compact,
    /// As `Compact`, but it is not waited for; no answer.
    CompactUnheard,
}

/// What is asked about slow commands.
#[derive(Clone, Debug)]
pub enum SlowLogCall {
    /// The newest, so many at most. Answered by an array.
    Newest(usize),
    /// How many there are. Answered by an integer.
    Len,
    /// Forget them. Answered by `Ok`.
    Clear,
    /// The samples of all kinds of events. Answered by an array with one of numbers for each kind: the slowest ever,
    /// then time and length of each sample.
    Latencies,
    /// Forget the samples of these kinds, all where none is named. Answered by what was forgotten, as above.
    ForgetLatencies(Arc<[Box<[u8]>]>),
}

/// What a call is answered with.
#[derive(Debug)]
pub enum Answer {
    /// The rendered reply, in the batch's arena.
    Bytes(Range<usize>),
    /// A large value that is the whole reply, in RESP.
    Value(Bytes),
    /// In place of `Bytes` or `Value`: the request ran, or may have run, and ends with an error. The worker of its client
    /// counts and renders that.
    Failed(shard::Error),
    /// The same of a request that did not run.
    Rejected(shard::Error),
    /// A part of the reply, to be merged.
    Part(Reply<'static>),
    /// A hop of a transaction has run. What it has changed is not in the log yet.
    Ran(Vec<Reply<'static>>),
    /// What keys hold, for a transaction.
    Held {
        /// Of each key in their order.
        held: Result<Vec<Option<Held<'static>>>, shard::Error>,
        /// How many bytes the transaction has changed so far.
        changes_bytes: usize,
    },
    /// The last hop of a transaction has run. Until the log holds what it has changed the locks have to stay, however long
    /// that takes.
    Committed(Vec<Reply<'static>>),
    /// It was taken note of.
    Noted,
    /// The socket of a client, if it is served here.
    FoundClient(Option<SocketId>),
    /// The part is locked.
    Locked,
    /// The part is locked, and a watched key is not as it was.
    Changed,
    /// How the keys are that are watched from now on.
    Watching(Vec<Watch>),
    /// The shard is locked for a backup, and this is how it is.
    Image(Box<ShardImage>),
    /// The part conflicts with another transaction; nothing is locked.
    Refused,
    /// Some keys, rendered as list items, and where to go on.
    Page(Box<Page>),
    /// The counters of a worker.
    Report(Box<Report>),
    /// How the keys of the shard are used.
    QueryResult(Box<QueryResult>),
    /// The libraries of functions after a change.
    Libraries(Arc<Libraries>),
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
pub struct AcceptedSocket {
    /// The connection.
    pub socket: OwnedFd,
    /// Which protocol its listener speaks.
    pub endpoint: Endpoint,
    /// The number by which `CLIENT ID` names it.
    pub client_id: u64,
}

/// One message from one worker to another.
#[derive(Debug, Default)]
pub struct Batch {
    calls: Vec<(RequestId, Call)>,
    answers: Vec<(RequestId, Answer)>,
    accepted: Vec<AcceptedSocket>,
    spans: Vec<Span>,
    arena: Vec<u8>,
    /// The size of the messages to subscribers in it, and of those of the receiver that the sender has handed on.
    pub(super) published_bytes: usize,
    pub(super) delivered_bytes: usize,
}

impl Batch {
    /// Copies the arguments of a request that runs in this database into the batch.
    pub fn args<'a>(&mut self, database: u16, args: impl Iterator<Item = &'a [u8]>) -> Args {
        let (start, first) = (self.arena.len(), self.spans.len() as u32);
        for arg in args {
            let span = Span { start: (self.arena.len() - start) as u32, len: arg.len() as u32 };
            self.spans.push(span);
            self.arena.extend_from_slice(arg);
        }
        Args { start, first, count: self.spans.len() as u32 - first, database }
    }

    /// Adds a call.
    pub fn call(&mut self, request_id: RequestId, call: Call) {
        self.calls.push((request_id, call));
    }

    /// Adds an answer.
    pub fn answer(&mut self, request_id: RequestId, answer: Answer) {
        self.answers.push((request_id, answer));
    }

    /// Adds an answer that `render` writes.
    pub fn answer_bytes(&mut self, request_id: RequestId, render: impl FnOnce(&mut Vec<u8>)) {
        let start = self.arena.len();
        render(&mut self.arena);
        self.answers.push((request_id, Answer::Bytes(start..self.arena.len())));
    }

    /// Adds a connection that the receiver is to serve.
    pub fn accepted(&mut self, accepted: AcceptedSocket) {
        self.accepted.push(accepted);
    }

    /// The first arguments of the requests among its calls, most of them keys: for reading ahead. Of those in the
    /// database of the first one, which comes with them.
    pub fn first_args<'a>(
        &'a self,
        calls: impl Iterator<Item = &'a (RequestId, Call)> + Clone,
    ) -> (u16, impl Iterator<Item = &'a [u8]>) {
        let args = calls.filter_map(|(_, call)| match call {
            Call::Run { args, .. } if args.count > 0 => Some(args),
            _ => None,
        });
        let database = args.clone().next().map_or(0, |args| args.database);
        let in_database = args.filter(move |args| args.database == database);
        (database, in_database.map(|args| self.spans[args.first as usize].of(&self.arena[args.start..])))
    }

    /// Takes out the calls, in order. [`Batch::take_back`] returns the emptied list for reuse.
    pub fn take_calls(&mut self) -> Vec<(RequestId, Call)> {
        std::mem::take(&mut self.calls)
    }

    /// Takes out the answers, in order.
    pub fn take_answers(&mut self) -> Vec<(RequestId, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Takes out the connections.
    pub fn take_accepted(&mut self) -> Vec<AcceptedSocket> {
        std::mem::take(&mut self.accepted)
    }

    /// Puts calls and answers back that are for later.
    pub fn put_back(&mut self, calls: Vec<(RequestId, Call)>, answers: Vec<(RequestId, Answer)>) {
        self.calls = calls;
        self.answers = answers;
    }

    /// Gives emptied lists back to the batch, so that their memory is reused.
    pub fn take_back(&mut self, mut calls: Vec<(RequestId, Call)>, mut answers: Vec<(RequestId, Answer)>) {
        calls.clear();
        answers.clear();
        self.calls = calls;
        self.answers = answers;
    }

    /// The request that a call carries.
    pub fn request(&self, command: &'static Command, args: Args) -> Request<'_> {
        let spans = &self.spans[args.first as usize..][..args.count as usize];
        Request::new(command, &self.arena[args.start..], spans).in_database(args.database)
    }

    /// The arguments of a call that is no request.
    pub fn args_of(&self, args: Args) -> impl Iterator<Item = &[u8]> {
        let spans = &self.spans[args.first as usize..][..args.count as usize];
        spans.iter().map(move |span| span.of(&self.arena[args.start..]))
    }

    /// The bytes of an answer.
    pub fn bytes(&self, answer: Range<usize>) -> &[u8] {
        &self.arena[answer]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
            && self.answers.is_empty()
            && self.accepted.is_empty()
            && self.delivered_bytes == 0
    }

    pub(super) fn reset(&mut self) {
        self.calls.clear();
        self.answers.clear();
        self.accepted.clear();
        self.spans.clear();
        self.arena.clear();
        (self.published_bytes, self.delivered_bytes) = (0, 0);
        self.arena.shrink_to(ARENA_KEPT_BYTES);
    }
}

/// A shard at the moment of a backup.
#[derive(Debug)]
pub struct ShardImage {
    /// Its log.
    pub image: Image,
    /// How many keys it had.
    pub keys: u64,
}
