//! Up to where a shard's log holds only transactions whose parts are on disk on every shard.
//!
//! A moment in which no transaction has a lock here is a moment in which every transaction in this log has been written
//! by all its shards. When every shard has on disk what it had written in that moment, no crash can take a part of them
//! back; a start that lacks one has lost it to damage.

use super::ShardRuntime;
use crate::worker::turn::Turn;

/// How often it is written down beside the log how far it is.
const NOTE_MS: u64 = 500;

/// A moment whose frames are not all known to be on disk yet.
#[derive(Default)]
pub(super) struct Settling {
    /// The last frame of this log in that moment, and that of each shard's.
    moment: Option<(u64, Vec<u64>)>,
    next_note_ms: u64,
}

impl ShardRuntime {
    /// Writes down how far the log is, now and then.
    pub(in crate::worker) fn write_down_progress(&mut self, turn: &Turn<'_>) {
        if turn.now.uptime_ms < self.settling.next_note_ms {
            return;
        }
        self.settling.next_note_ms = turn.now.uptime_ms + NOTE_MS;
        self.settle(turn);
        self.journal.log.note_progress();
    }

    fn settle(&mut self, turn: &Turn<'_>) {
        let shards = turn.mesh.worker_count();
        let log = &mut self.journal.log;
        if shards == 1 {
            return log.settle(log.durable_seq()); // No transaction depends on another log.
        }
        let progress = || (0..shards).map(|shard| turn.shared.log_progress(shard));
        if let Some((seq, written)) = &self.settling.moment
            && log.durable_seq() >= *seq
            && progress().zip(written).all(|((_, durable), written)| durable >= *written)
        {
            log.settle(*seq);
            self.settling.moment = None;
        }
        if self.settling.moment.is_none() && self.locks.is_idle() {
            self.settling.moment =
                Some((log.written_seq(), progress().map(|(written, _)| written).collect()));
        }
    }
}
