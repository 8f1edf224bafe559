//! What keeps a shard's log in shape while it serves: the next segment is made ready, and when the log has grown
//! long a snapshot replaces it.
//!
//! The keyspace is walked in slices, one a turn; what blocks (syncing, renaming, removing) runs on the shard's helper
//! thread. Nothing here delays a turn by more than a slice. A snapshot is written as fast as the disk takes it, and no
//! faster: it pauses for a sync after every few megabytes, so that no mass of unwritten pages gathers in which the
//! syncs of the log, and in the end its writes, would have to wait.
//!
//! What the analytics have learnt is left in a note beside the log: with each snapshot, each hour, and at the end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use shard::analytics::load;
use shard::{Change, Changes, Clocks, Reply, Shard};
use wal::{
    DiskFile, FailedSnapshot, Kind, Log, Note, Obsolete, OsDisk, Snapshot, SnapshotEnd, SnapshotWriter, Spare,
};

use super::compaction::CompactionPolicy;
use super::helper::Helper;
use super::journal::Journal;
use super::segments::Segments;
use super::slices::{AfterSlice, Slices};
use crate::clock::Clock;
use crate::config::{Config, SyncMode};
use crate::logging::printable;
use crate::mesh::{Answer, Call, Mesh, RequestId, TransactionId};
use crate::metrics::Snapshots;
use crate::net::SocketId;

/// How long after the begin of a snapshot that a failed sync made necessary the next try may follow.
const RESCUE_AGAIN_MS: u64 = 1000;

/// How often what the analytics have learnt is written down at least.
const NOTE_INTERVAL_MS: u64 = 3_600_000;

/// The snapshotter of one shard's log.
pub struct Snapshotter {
    helper: Helper<Ended>,
    segments: Segments,
    giving_up_staged: bool,
    stage: Stage,
    /// The askers for a snapshot that was begun, and those since.
    served: Vec<(usize, RequestId)>,
    asked: Vec<(usize, RequestId)>,
    /// A snapshot was asked for without waiting for it.
    asked_unheard: bool,
    /// When the last snapshot was complete, in the server's time.
    saved_ms: Option<u64>,
    /// Why no snapshot could be written, since the last one that was: told once, and shown until the next one is.
    failure: Option<Arc<str>>,
    next_check_ms: u64,
    /// When the next snapshot may begin that only a failed sync asks for.
    next_rescue_ms: u64,
    check_interval_ms: u64,
    /// When the next note is due; none once the last one was left.
    next_note_ms: Option<u64>,
    policy: CompactionPolicy,
    counts: Snapshots,
    /// When the snapshot began that is being written.
    began: Option<Instant>,
}

enum Stage {
    Idle,
    /// A snapshot begins at the next quiescent point.
    Due,
    /// Slices are being written.
    Writing(Slices),
    /// Every slice is written; the snapshot ends at the next quiescent point.
    Written {
        writer: SnapshotWriter<OsDisk>,
    },
    /// All shards sync their logs: this one with the frames whose effects the snapshot may show, the others with
    /// their parts of the transactions among them.
    Awaiting {
        ending: SnapshotEnd<OsDisk>,
        shards_left: usize,
        all_synced: bool,
    },
    /// On the helper thread: before a snapshot begins it is looked whether the data directory is at its place; the
    /// snapshot is being synced and named; or files are being removed.
    Elsewhere,
    /// What a snapshot replaces, or what is left of one that was given up, is removed once no backup copies it.
    Obsolete {
        files: Obsolete<OsDisk>,
    },
}

enum Ended {
    Prepared(Result<Spare<OsDisk>, wal::Error>),
    /// It was looked whether the data directory is at its place, before a snapshot begins there.
    Looked,
    /// The snapshot so far was synced.
    Synced(io::Result<()>),
    Written(Result<Snapshot, FailedSnapshot>),
    Cleared(Result<Option<Spare<OsDisk>>, wal::Error>),
    /// What was left of a value that was staged for nothing was removed.
    StagedGivenUp(Result<Option<Spare<OsDisk>>, wal::Error>),
    Noted(Result<(), wal::Error>),
}

/// Under this name other workers answer the snapshotter, and no client.
pub const REQUEST_ID: RequestId =
    RequestId { socket: SocketId { index: u32::MAX, generation: 0 }, sequence: 0 };

impl Snapshotter {
    /// Nothing to do yet. `wakeup` makes the worker take a turn.
    ///
    /// # Errors
    /// When there can be no other thread.
    pub fn new(config: &Config, wakeup: OwnedFd) -> io::Result<Snapshotter> {
        Ok(Snapshotter {
            helper: Helper::new(wakeup)?,
            segments: Segments::new(config.sync_mode == SyncMode::Always),
            giving_up_staged: false,
            stage: Stage::Idle,
            served: Vec::new(),
            asked: Vec::new(),
            asked_unheard: false,
            saved_ms: None,
            failure: None,
            next_check_ms: 0,
            next_rescue_ms: 0,
            check_interval_ms: config.compact_interval.as_millis() as u64,
            next_note_ms: Some(NOTE_INTERVAL_MS),
            policy: CompactionPolicy::new(config),
            counts: Snapshots::default(),
            began: None,
        })
    }

    /// Takes up what an earlier process has left in the note of this shard. What cannot be read is done without.
    pub fn take_up(&mut self, note: &Note<OsDisk>, shard: &mut Shard) {
        match note.read() {
            Ok(None) => {}
            Ok(Some(kept)) => {
                let (load, classes) = kept.split_at(kept.len().min(load::BYTES));
                let (knows_load, knows_classes) =
                    (self.policy.restore_load(load), shard.restore_analytics(classes));
                if !(knows_load && knows_classes) {
                    tracing::warn!(
                        knows_load,
                        knows_classes,
                        "the analytics begin anew in part: the note of what they had learnt is of another version"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "the analytics begin anew"),
        }
    }

    /// Writes down what the analytics have learnt.
    fn leave_note(&mut self, shard: &Shard, log: &Log<OsDisk>) {
        if let (Some(load), Some(classes)) = (self.policy.load_to_keep(), shard.analytics_to_keep()) {
            let note = log.note();
            self.helper.run(move || Ended::Noted(note.write(&[&load[..], &classes].concat())));
        }
    }

    /// Asks for a snapshot of the state as it is now or later; the asker is answered when it has replaced the log.
    pub fn ask(&mut self, origin: usize, request_id: RequestId) {
        self.asked.push((origin, request_id));
    }

    /// Asks for a snapshot of the state as it is now or later; without an answer.
    pub fn ask_unheard(&mut self) {
        self.asked_unheard = true;
    }

    /// Whether a snapshot was asked for or is being written.
    pub fn is_compacting(&self) -> bool {
        !matches!(self.stage, Stage::Idle) || self.is_asked()
    }

    /// When the last snapshot since the start was complete, in the server's time.
    pub fn saved_ms(&self) -> Option<u64> {
        self.saved_ms
    }

    /// Why the last snapshot was not written, if it was not.
    pub fn failure(&self) -> Option<&Arc<str>> {
        self.failure.as_ref()
    }

    /// How many were written, and how they went.
    pub fn counts(&self) -> Snapshots {
        self.counts
    }

    fn is_asked(&self) -> bool {
        self.asked_unheard || !self.asked.is_empty()
    }

    /// When the log is compacted.
    pub fn policy(&self) -> &CompactionPolicy {
        &self.policy
    }

    /// Whether it has seen that the server stops, and has begun to write its last note.
    pub fn has_left_last_note(&self) -> bool {
        self.next_note_ms.is_none()
    }

    /// Whether blocking work is under way; the executor must not end before it.
    pub fn is_busy(&self) -> bool {
        self.helper.is_busy()
    }

    /// Whether a snapshot can begin or end only at a quiescent point: while no transaction has a lock on this shard, so
    /// that every one of which the snapshot shows anything is written by all shards that take part in it.
    pub fn waits_for_quiescence(&self) -> bool {
        matches!(self.stage, Stage::Due | Stage::Written { .. })
    }

    /// Whether the next slice of a snapshot can be written at once.
    pub fn is_writing(&self) -> bool {
        matches!(&self.stage, Stage::Writing(slices) if slices.is_ready())
    }

    /// One slice of work. When the server is `stopping`, a snapshot that lacks slices is given up: the log has it
    /// all, and the rest of a large keyspace is not waited for.
    pub fn step(
        &mut self,
        stopping: bool,
        uptime_us: u64,
        clock: &Clock,
        shard: &Shard,
        journal: &mut Journal,
        mesh: &mut Mesh,
    ) {
        let (uptime_ms, now_ms) = (uptime_us / 1000, clock.now_ms(uptime_us));
        for ended in self.helper.take_ended() {
            self.take(ended, now_ms, journal, mesh);
        }
        if self.next_note_ms.is_some_and(|next_ms| stopping || uptime_ms >= next_ms) {
            self.next_note_ms = (!stopping).then_some(uptime_ms + NOTE_INTERVAL_MS);
            self.leave_note(shard, &journal.log);
        }
        if stopping {
            if !matches!(self.stage, Stage::Elsewhere) {
                self.stage = Stage::Idle;
                self.served.append(&mut self.asked);
                self.answer(&Reply::Error(shard::Error::Unavailable("the server stops")), mesh);
            }
            return;
        }
        if let Some(preparation) = self.segments.next(uptime_ms, &mut journal.log) {
            self.helper.run(move || Ended::Prepared(preparation.run()));
        }
        let unix_ms = clock.unix_ms(now_ms);
        self.policy.measure(|| shard.operations(), uptime_ms, now_ms, unix_ms);
        let due = uptime_ms >= self.next_check_ms;
        if due {
            self.next_check_ms = uptime_ms + self.check_interval_ms;
        }
        let rescue = journal.log.needs_snapshot() && uptime_ms >= self.next_rescue_ms;
        // One that could not be written is tried again: until then the server counts as degraded.
        let is_time = || self.failure.is_some() || self.policy.decide(&journal.log, unix_ms).is_now();
        let wanted = self.is_asked() || due && is_time() || rescue;
        if wanted && matches!(self.stage, Stage::Idle) {
            self.stage = Stage::Elsewhere;
            let look = journal.log.look_for_place();
            self.helper.run(move || {
                look();
                Ended::Looked
            });
            self.next_rescue_ms = uptime_ms + RESCUE_AGAIN_MS;
        }
        self.write_slice(now_ms, shard, &journal.log, mesh);
        self.clear();
    }

    fn clear(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Elsewhere) {
            Stage::Obsolete { files } if !files.is_needed() => {
                self.helper.run(move || Ended::Cleared(files.clear()));
            }
            stage => self.stage = stage,
        }
    }

    /// Begins or ends a snapshot at a quiescent point. `now_id` is greater than the id of every transaction that has
    /// run, and less than that of every later one. All changes so far are in the log.
    pub fn on_quiescence(
        &mut self,
        now_id: TransactionId,
        clocks: Clocks,
        log: &mut Log<OsDisk>,
        mesh: &mut Mesh,
    ) {
        match std::mem::replace(&mut self.stage, Stage::Elsewhere) {
            Stage::Due => self.begin(now_id, clocks, log, mesh),
            Stage::Written { writer } => match log.end_snapshot(writer) {
                Ok(ending) => self.await_syncs(ending, mesh),
                Err(error) => self.give_up(&error, log, mesh),
            },
            stage => self.stage = stage,
        }
    }

    fn await_syncs(&mut self, ending: SnapshotEnd<OsDisk>, mesh: &mut Mesh) {
        let shards_left = mesh.worker_count();
        self.stage = Stage::Awaiting { ending, shards_left, all_synced: true };
        (0..shards_left).for_each(|shard| mesh.to(shard).call(REQUEST_ID, Call::Sync));
    }

    /// A worker has synced its log, or could not. A snapshot that shows a part of a transaction of which a crash
    /// may take another part is given up, unless this log itself needs it: shards whose syncs have failed would
    /// wait for each other for ever.
    pub fn on_synced(&mut self, synced: bool, log: &Log<OsDisk>, mesh: &mut Mesh) {
        match std::mem::replace(&mut self.stage, Stage::Elsewhere) {
            Stage::Awaiting { mut ending, shards_left, all_synced } => {
                let (shards_left, all_synced) = (shards_left - 1, all_synced && synced);
                if shards_left > 0 {
                    self.stage = Stage::Awaiting { ending, shards_left, all_synced };
                    return;
                }
                match log.cover(&mut ending) {
                    Ok(true) if all_synced || log.needs_snapshot() => {
                        self.helper.run(move || Ended::Written(ending.finish()));
                    }
                    Ok(_) => self.give_up(&"a shard could not bring its log to disk", log, mesh),
                    Err(error) => self.give_up(&error, log, mesh),
                }
            }
            stage => self.stage = stage, // The snapshot was given up meanwhile.
        }
    }

    fn begin(&mut self, now_id: TransactionId, clocks: Clocks, log: &mut Log<OsDisk>, mesh: &mut Mesh) {
        let mut changes = Changes::default();
        changes.push(&Change::Clocks(clocks));
        self.began = Some(Instant::now());
        self.served = std::mem::take(&mut self.asked);
        self.asked_unheard = false;
        let begun = log.begin_snapshot().and_then(|mut writer| {
            let kind = Kind::Transaction { id: now_id, participants: &[] };
            writer.append(kind, changes.count() as u32, changes.bytes())?;
            Ok(writer)
        });
        match begun {
            Ok(writer) => {
                self.stage = Stage::Writing(Slices::new(writer));
            }
            Err(error) => {
                self.give_up(&error, log, mesh);
                self.stage = Stage::Idle; // No file was made.
            }
        }
    }

    fn write_slice(&mut self, now_ms: u64, shard: &Shard, log: &Log<OsDisk>, mesh: &mut Mesh) {
        let Stage::Writing(slices) = &mut self.stage else { return };
        if !slices.is_ready() {
            return;
        }
        match slices.write_next(now_ms, shard) {
            Ok(AfterSlice::Slice) => {}
            Ok(AfterSlice::Sync(file)) => self.helper.run(move || Ended::Synced(file.sync_data())),
            Ok(AfterSlice::End) => {
                if let Stage::Writing(slices) = std::mem::replace(&mut self.stage, Stage::Elsewhere) {
                    self.stage = Stage::Written { writer: slices.into_writer() };
                }
            }
            Err(error) => self.give_up(&error, log, mesh),
        }
    }

    fn take(&mut self, ended: Ended, now_ms: u64, journal: &mut Journal, mesh: &mut Mesh) {
        match ended {
            Ended::Prepared(outcome) => {
                self.segments.on_prepared(outcome.is_ok());
                journal.on_prepared(outcome.map(Some));
            }
            Ended::Looked => self.stage = Stage::Due,
            // A snapshot whose bytes may be lost cannot be saved by a later sync.
            Ended::Synced(Err(error)) => self.give_up(&error, &journal.log, mesh),
            Ended::Synced(Ok(())) => {
                if let Stage::Writing(slices) = &mut self.stage {
                    slices.on_synced();
                }
            }
            Ended::Written(Ok(snapshot)) => {
                let Snapshot { entries, bytes, .. } = snapshot;
                tracing::info!(shard = mesh.own(), entries, bytes, "snapshot written");
                self.saved_ms = Some(now_ms);
                self.counts.written += 1;
                self.counts.last_ms = self.began.take().map(|began| began.elapsed().as_millis() as u64);
                self.failure = None;
                self.next_note_ms = self.next_note_ms.map(|_| 0);
                self.stage = Stage::Obsolete { files: journal.log.retire(&snapshot) };
            }
            Ended::Written(Err(failed)) => {
                let error = journal.log.fail_snapshot(failed);
                journal.on_sync_failed(&error, mesh);
                self.give_up(&error, &journal.log, mesh);
            }
            Ended::Noted(Ok(())) => {}
            Ended::Noted(Err(error)) => {
                tracing::warn!(shard = mesh.own(), %error, "what the analytics have learnt was not written down");
            }
            Ended::Cleared(outcome) => {
                match outcome {
                    Ok(None) => {}
                    Ok(spare) => journal.on_prepared(Ok(spare)),
                    Err(error) => {
                        let shard = mesh.own();
                        tracing::warn!(shard, %error, "an old file stays until the next start removes it");
                    }
                }
                self.stage = Stage::Idle;
                self.answer(&Reply::Ok, mesh);
            }
            Ended::StagedGivenUp(outcome) => {
                self.giving_up_staged = false;
                if let Err(error) = outcome {
                    let shard = mesh.own();
                    tracing::warn!(shard, %error, "a file of a value that was given up stays until the next start removes it");
                }
            }
        }
    }

    /// Removes what is left of a value that was staged for nothing. Until that is done none is to be staged.
    pub fn give_up_staged(&mut self, log: &Log<OsDisk>) {
        self.giving_up_staged = true;
        let files = log.give_up_staged();
        self.helper.run(move || Ended::StagedGivenUp(files.clear()));
    }

    /// Whether what is left of a staged value is being removed.
    pub fn is_giving_up_staged(&self) -> bool {
        self.giving_up_staged
    }

    /// The askers are told at once. The room that the snapshot has taken of a disk that is full, maybe, is given
    /// back before another one may begin.
    fn give_up(&mut self, error: &dyn fmt::Display, log: &Log<OsDisk>, mesh: &mut Mesh) {
        self.counts.failed += 1;
        let failure = printable(&error.to_string());
        if self.failure.as_ref() != Some(&failure) {
            tracing::error!(shard = mesh.own(), error = %failure, "no snapshot was written, the log stays as it is");
            self.failure = Some(failure);
        }
        self.stage = Stage::Obsolete { files: log.give_up_snapshot() };
        self.answer(
            &Reply::Error(shard::Error::Unavailable("no snapshot could be written; see the log")),
            mesh,
        );
    }

    fn answer(&mut self, reply: &Reply<'static>, mesh: &mut Mesh) {
        for (origin, request_id) in self.served.drain(..) {
            mesh.to(origin).answer(request_id, Answer::Part(reply.clone()));
        }
    }
}
