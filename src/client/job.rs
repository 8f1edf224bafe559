//! A command that takes several steps.

use shard::{Command, Error, OwnedRequest};

use super::Client;
use super::listing::Listing;
use super::replies::{Mark, Replies};
use crate::net::SocketId;
use crate::txn::gather::Gather;
use crate::txn::program::Program;
use crate::txn::scan::Walk;

/// A command that waits for what does not come, until its time is over.
pub struct Wait {
    /// The command.
    pub request: OwnedRequest,
    /// When its time is over, in milliseconds from the start of the server; `None` for no end.
    pub until_ms: Option<u64>,
}

/// A command in progress that involves several shards or several steps. Its client runs nothing else meanwhile.
pub enum Job {
    /// Commands that run as one over several shards, or one such command.
    Program(Running),
    /// `WATCH`.
    Watch(Watching),
    /// One answer from every worker.
    Gather(Gather),
    /// `SCAN` or `KEYS`.
    Walk(Walk),
    /// Subscriptions of which other workers have yet to take note.
    Subscribe(Subscribing),
    /// `CLIENT TRACKING`, while it is looked for the client that is to be told.
    FindClient(FindingClient),
    /// A description of very many things, which asks no other worker.
    Listing(Listing),
    /// `BACKUP`, once the shards have told how they are: they are being copied.
    Backup(OwnedRequest),
    /// `WAIT`.
    Wait(Wait),
}

/// Commands that run as one.
pub struct Running {
    /// The commands.
    pub program: Program,
    /// The command that the client has sent: `EXEC`, or the one that is run.
    pub command: &'static Command,
    /// That of the server that is under way.
    pub inner: Option<Box<Job>>,
    /// Where the replies begin, if there are any yet.
    pub replies_from: Option<Mark>,
}

/// `WATCH`, on its way to the shards.
pub struct Watching {
    /// Its row.
    pub command: &'static Command,
    /// The workers that have not answered.
    pub unanswered: Vec<usize>,
    /// Why nothing can be watched at one of them.
    pub fault: Option<Error>,
}

impl Running {
    /// Its client waits no more: none of its replies leaves. What has changed something goes on.
    pub fn give_up(&mut self, replies: &mut Replies) {
        self.program.transaction().give_up();
        if let Some(mark) = self.replies_from.take() {
            replies.rewind(mark);
            replies.release_messages();
        }
    }
}

/// Subscriptions that begin or end: messages wait for what the client is told of them.
pub struct Subscribing {
    /// The command.
    pub command: &'static Command,
    /// What the client is told, rendered.
    pub told: Vec<u8>,
    /// The workers that have not taken note.
    pub unanswered: Vec<usize>,
}

/// The search for a client by its number, at all other workers.
pub struct FindingClient {
    /// The command.
    pub request: OwnedRequest,
    /// The workers that have not answered.
    pub unanswered: Vec<usize>,
    /// Its worker and its socket there.
    pub found: Option<(usize, SocketId)>,
}

impl FindingClient {
    /// A worker has answered. Returns whether it was the last.
    pub fn note(&mut self, worker: usize, socket: Option<SocketId>) -> bool {
        self.unanswered.retain(|waits_for| *waits_for != worker);
        self.found = self.found.or(socket.map(|socket| (worker, socket)));
        self.unanswered.is_empty()
    }
}

impl Subscribing {
    /// A worker has taken note. Returns whether it was the last.
    pub fn note(&mut self, worker: usize) -> bool {
        self.unanswered.retain(|waits_for| *waits_for != worker);
        self.unanswered.is_empty()
    }

    /// Tells the client of its subscriptions. Messages follow.
    pub fn tell(&mut self, client: &mut Client) {
        client.replies.tell(std::mem::take(&mut self.told));
        client.replies.release_messages();
    }
}

impl Job {
    /// The workers whose answers are awaited.
    pub fn unanswered(&self) -> Vec<usize> {
        match self {
            Job::Program(Running { inner: Some(inner), .. }) => inner.unanswered(),
            Job::Program(running) => running.program.unanswered(),
            Job::Watch(watching) => watching.unanswered.clone(),
            Job::Gather(gather) => gather.unanswered().to_vec(),
            Job::Walk(walk) => vec![walk.shard()],
            Job::Subscribe(subscribing) => subscribing.unanswered.clone(),
            Job::FindClient(finding) => finding.unanswered.clone(),
            Job::Listing(_) | Job::Backup(_) | Job::Wait(_) => Vec::new(),
        }
    }

    /// The command in progress.
    pub fn command(&self) -> &'static Command {
        match self {
            Job::Program(running) => running.command,
            Job::Watch(watching) => watching.command,
            Job::Gather(gather) => gather.request.command,
            Job::Walk(walk) => walk.command(),
            Job::Subscribe(subscribing) => subscribing.command,
            Job::FindClient(finding) => finding.request.command,
            Job::Listing(listing) => listing.request.command,
            Job::Backup(request) => request.command,
            Job::Wait(wait) => wait.request.command,
        }
    }
}
