//! A command that takes several steps.

use shard::{Command, OwnedRequest};

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
    /// A description of very many things, which asks no other worker.
    Listing(Listing),
    /// `BACKUP`, once the shards have told how they are: they are being copied.
    Backup(OwnedRequest),
    /// `WAIT`.
    Wait(Wait),
}

impl Job {
    /// The command in progress.
    pub fn command(&self) -> &'static Command {
        match self {
            Job::Transaction(transaction) => transaction.request.command,
            Job::Gather(gather) => gather.request.command,
            Job::Walk(walk) => walk.command(),
            Job::Listing(listing) => listing.request.command,
            Job::Backup(request) => request.command,
            Job::Wait(wait) => wait.request.command,
        }
    }
}
