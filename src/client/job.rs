//! A command that takes several steps.

use shard::{Command, OwnedRequest};

use super::Client;
use super::listing::Listing;
use crate::txn::gather::Gather;
use crate::txn::scan::Walk;
use crate::txn::transaction::Transaction;

/// A command that waits for what does not come, until its time is over.
pub struct Wait {
    /// The command.
    pub request: OwnedRequest,
    /// When its time is over, in milliseconds from the start of the server; `None` for no end.
    pub until_ms: Option<u64>,
}

/// A command in progress that involves several shards or several steps. Its client runs nothing else meanwhile.
pub enum Job {
    /// A multi-shard command.
    Transaction(Transaction),
    /// One answer from every worker.
    Gather(Gather),
    /// `SCAN` or `KEYS`.
    Walk(Walk),
    /// Subscriptions of which other workers have yet to take note.
    Subscribe(Subscribing),
    /// A description of very many things, which asks no other worker.
    Listing(Listing),
    /// `BACKUP`, once the shards have told how they are: they are being copied.
    Backup(OwnedRequest),
    /// `WAIT`.
    Wait(Wait),
}

/// Subscriptions on their way: messages come already, and wait for what the client is told of its subscriptions.
pub struct Subscribing {
    /// The command.
    pub command: &'static Command,
    /// What the client is told, rendered.
    pub told: Vec<u8>,
    /// The workers that have not taken note.
    pub unanswered: Vec<usize>,
}

impl Subscribing {
    /// A worker has taken note. Returns whether it was the last.
    pub fn note(&mut self, worker: usize) -> bool {
        self.unanswered.retain(|waits_for| *waits_for != worker);
        self.unanswered.is_empty()
    }

    /// Tells the client of its subscriptions. Messages follow.
    pub fn tell(&mut self, client: &mut Client) {
        let told = std::mem::take(&mut self.told);
        client.replies.now(|out| out.extend_from_slice(&told));
        client.replies.release_messages();
    }
}

impl Job {
    /// The command in progress.
    pub fn command(&self) -> &'static Command {
        match self {
            Job::Transaction(transaction) => transaction.request.command,
            Job::Gather(gather) => gather.request.command,
            Job::Walk(walk) => walk.command(),
            Job::Subscribe(subscribing) => subscribing.command,
            Job::Listing(listing) => listing.request.command,
            Job::Backup(request) => request.command,
            Job::Wait(wait) => wait.request.command,
        }
    }
}
