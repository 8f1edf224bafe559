//! What a thread that watches the workers' threads from outside finds wrong with them, for all that tell of it.

use std::fmt;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// What was found when the workers were looked at last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The first of those that are stuck in a turn: only a restart helps.
    pub stuck: Option<Stuck>,
    /// The first of those that hang in their disks: a restart would not help.
    pub hung: Option<usize>,
}

/// A worker that is stuck in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its shard.
    pub shard: usize,
    /// It computes; else it waits for another thread.
    pub computes: bool,
    /// For how long.
    pub since: Duration,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.computes { "has computed" } else { "has waited for another thread" };
        write!(f, "shard {} {verb} for {:?} in one turn", self.shard, self.since)
    }
}

/// The last verdict.
#[derive(Debug, Default)]
pub(super) struct LastVerdict {
    last: Mutex<Verdict>,
    changed: Condvar,
}

impl LastVerdict {
    pub fn get(&self) -> Verdict {
        *self.last.lock().expect("no thread panics here")
    }

    pub fn set(&self, verdict: Verdict) {
        *self.last.lock().expect("no thread panics here") = verdict;
        self.changed.notify_all();
    }

    /// The next one, or the last one after this time.
    pub fn next(&self, patience: Duration) -> Verdict {
        let last = self.last.lock().expect("no thread panics here");
        *self.changed.wait_timeout(last, patience).expect("no thread panics here").0
    }
}
