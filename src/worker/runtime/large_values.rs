//! Commands with very large values: the value is handed to the log's disk piece by piece, over many turns, and only
//! then does the command run. What it adds to the log is small by then, so no turn is long and no other client waits.
//!
//! Until then nothing of the command has happened. Its client runs no other command meanwhile; those of others run
//! before it.

use std::collections::VecDeque;

use shard::command::Flags;
use shard::{OwnedRequest, Request};
use wal::{OsDisk, Staged};

use super::ShardRuntime;
use crate::mesh::{Asker, RequestId};
use crate::worker::turn::Turn;

/// Values from this size on. What is smaller takes a few milliseconds at most.
const STAGED_BYTES_MIN: usize = 4 << 20;

/// How much of a value one turn hands over: a quarter of a millisecond, where the system has to find pages for it.
const STAGED_BYTES_PER_TURN: usize = 256 << 10;

/// Commands that wait for their values, in the order in which they came. Each client has one at most.
pub(super) type Stagings = VecDeque<Staging>;

/// A command whose value is being written.
pub(super) struct Staging {
    asker: Asker,
    request: OwnedRequest,
    /// The value on its way; that of the first command only.
    staged: Option<Staged<OsDisk>>,
}

/// Whether a request waits until its value is written.
#[inline]
pub(in crate::worker) fn is_staged(request: &Request<'_>) -> bool {
    request.large_arg().is_some_and(|value| value.len() >= STAGED_BYTES_MIN)
        && request.command.has(Flags::STORES_ARG)
}

impl ShardRuntime {
    pub(in crate::worker) fn stage(&mut self, asker: Asker, request: OwnedRequest) {
        self.stagings.push_back(Staging { asker, request, staged: None });
    }

    /// Drops the command of this worker's client that waits for its value. Returns whether it still did.
    pub(in crate::worker) fn unstage(&mut self, asker: (usize, RequestId)) -> bool {
        let at = self.stagings.iter().position(|staging| staging.asker.id() == asker);
        let Some(staging) = at.and_then(|at| self.stagings.remove(at)) else { return false };
        if staging.staged.is_some() {
            self.snapshotter.give_up_staged(&self.journal.log);
        }
        true
    }

    /// Goes on with the first command that waits for its value. Returns whether any is left.
    pub(in crate::worker) fn go_on_staging(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(mut staging) = self.stagings.pop_front() else { return false };
        let staged = match staging.staged.take() {
            // The file of the one before is still being removed.
            None if self.snapshotter.is_giving_up_staged() => {
                self.stagings.push_front(staging);
                return false;
            }
            None => {
                let request = staging.request.request();
                self.journal.stage(&request, self.shard.keyspace_of(request.database))
            }
            staged => staged,
        };
        if let Some(mut staged) = staged {
            match staged.step(STAGED_BYTES_PER_TURN) {
                Ok(false) => {
                    staging.staged = Some(staged);
                    self.stagings.push_front(staging);
                    return true;
                }
                Ok(true) => staging.staged = Some(staged),
                // The log finds out for itself that the disk does not take it.
                Err(_) => self.snapshotter.give_up_staged(&self.journal.log),
            }
        }
        self.run_staged(staging, turn);
        !self.stagings.is_empty()
    }

    fn run_staged(&mut self, Staging { asker, request, staged }: Staging, turn: &mut Turn<'_>) {
        let request = request.request();
        if self.has_to_wait(&request) {
            if staged.is_some() {
                self.snapshotter.give_up_staged(&self.journal.log);
            }
            return self.defer(asker, &request);
        }
        // Its frame is the next one in the log.
        self.write_log(turn);
        self.run_for(asker, &request, turn);
        if let Some(staged) = staged
            && !self.journal.seal_staged(staged)
        {
            self.snapshotter.give_up_staged(&self.journal.log);
        }
    }
}
