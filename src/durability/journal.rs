//! One shard's way to the disk: the changes of a turn, the frames of the log, their syncing, the answers that wait
//! for it, and what becomes of all that while the disk fails.
//!
//! In the mode `always` an answer leaves when the frames that it depends on are on disk: those of its own changes,
//! or, for a command that reads, the last ones that changed its keys. Answers that depend on nothing unsynced do
//! not wait. While one sync is under way the frames of later turns gather, and the next sync serves them all.
//!
//! In the mode `everysec` answers wait for nothing, unless a sync takes longer than a second: from then on those of
//! commands that changed something wait for the disk, until syncs are faster again. So a disk that is slow or hangs
//! makes writers slow, and a power cut never takes more than about two seconds of what was acknowledged.
//!
//! While the disk fails, commands that write are refused before they run ([`Journal::refusal`]), and those that read
//! go on. Frames that could not be written stay in the log's buffer and are tried again; until that succeeds, what
//! shows their changes is held back in every mode. After a failed sync only a new snapshot helps, which the snapshotter
//! writes. A sync that hangs counts as a failure, but its end ends it. A client that waits for longer than
//! the disk is given (`--disk-timeout`) is told that the outcome is unknown ([`Journal::watch`]).

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard::{Changes, Error, Mark, Reply, Request, Touched};
use wal::{Kind, Log, OsDisk, Spare, Staged};

use super::commit::{Commit, Ended};
use super::commit_delay::CommitDelay;
use super::disk_health::DiskHealth;
use super::pending::{Held, Pending};
use super::uncommitted::Uncommitted;
use crate::config::{Config, SyncMode};
use crate::logging::printable;
use crate::mesh::{Answer, Mesh, RequestId};
use crate::metrics::histogram::Histogram;
use crate::net::Net;

/// A turn's changes go into several frames past this size: a frame holds less than 2 GiB, and one request may
/// add three quarters of that.
const FRAME_BYTES: usize = 64 * 1024 * 1024;

/// The memory for changes is kept for reuse up to this size.
const CHANGES_KEPT_BYTES: usize = 1024 * 1024;

/// In the mode `always`, so many bytes of changes at most gather while a sync is under way.
const GATHERED_CHANGE_BYTES_MAX: usize = 256 * 1024;

/// So many log files that wait for a sync are a reason to begin one. Where segments are small, a second's writes fill
/// hundreds.
const UNSYNCED_FILES: usize = 8;

/// The log of one shard, and the answers that wait for it.
pub struct Journal {
    /// The log.
    pub log: Log<OsDisk>,
    /// What was changed since the last frame.
    pub changes: Changes,
    mode: SyncMode,
    uncommitted: Uncommitted,
    pending: Pending,
    commit: Commit,
    commit_delay: CommitDelay,
    health: DiskHealth,
    is_cut: bool,
}

/// What became of the frames of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are written, or wait as those of earlier turns do.
    AsBefore,
    /// They could not be written: what this turn has answered so far must not leave.
    Failed,
    /// Frames that had failed are written now: what was held back may leave.
    Recovered,
}

impl Journal {
    /// A journal over the recovered log of a shard.
    pub fn new(shard: usize, log: Log<OsDisk>, config: &Config) -> Journal {
        let mut journal = Journal {
            log,
            changes: Changes::default(),
            mode: config.sync_mode,
            uncommitted: Uncommitted::new(),
            pending: Pending::default(),
            commit: Commit::default(),
            commit_delay: CommitDelay::default(),
            health: DiskHealth::new(shard, config),
            is_cut: false,
        };
        if journal.mode == SyncMode::Always {
            journal.log.fill_segments();
        }
        // Before the first write, too, it must be known that there is room for it.
        journal.health.look_for_room(&mut journal.log);
        journal.health.assess(&journal.log);
        journal
    }

    // ---- frames ----

    /// Puts the changes so far into a frame, if there are any.
    pub fn seal(&mut self) {
        if !self.changes.is_empty() {
            self.append(Kind::Batch);
        }
    }

    /// Puts the changes so far into a frame of this kind, even if there are none. Returns its sequence number.
    pub fn append(&mut self, kind: Kind<'_>) -> u64 {
        let (entries, payload, shared) =
            (self.changes.count() as u32, self.changes.bytes(), self.changes.shared());
        let seq = self.log.append_parts(kind, entries, payload, shared);
        self.changes.clear(CHANGES_KEPT_BYTES);
        seq
    }

    /// As [`Self::append`], for the changes of a transaction, which gathered elsewhere.
    pub fn append_changes(&mut self, kind: Kind<'_>, changes: &mut Changes) -> u64 {
        self.seal();
        if self.mode == SyncMode::Always || self.health.is_unwritten() {
            let seq = self.log.next_seq();
            for touched in changes.touched_from(Mark::default()) {
                let key = if let Touched::Key(_, key) = touched { Some(key) } else { None };
                self.uncommitted.note(key, seq);
            }
        }
        std::mem::swap(&mut self.changes, changes);
        let seq = self.append(kind);
        std::mem::swap(&mut self.changes, changes);
        seq
    }

    /// Begins to write the value of a request ahead of the change that it will make, which is about a key of this
    /// keyspace; `None` where that fails.
    pub fn stage(&self, request: &Request<'_>, keyspace: u16) -> Option<Staged<OsDisk>> {
        let (key, value) = request.keys().next().zip(request.large_arg())?;
        self.log.stage(Changes::put_head_bytes(key, keyspace), value).ok()
    }

    /// As [`Self::seal`], for the changes of the request whose value was staged. If they are what was foreseen, they
    /// are handed to the kernel at once. Returns whether the file with the value is a part of the log now.
    pub fn seal_staged(&mut self, staged: Staged<OsDisk>) -> bool {
        let is_foreseen = match self.changes.shared() {
            [(at, value)] => {
                *at == self.changes.bytes().len()
                    && (value.as_ptr(), value.len()) == (staged.part().as_ptr(), staged.part().len())
            }
            _ => false,
        };
        if !is_foreseen {
            self.seal();
            return false;
        }
        let is_used = self.log.append_staged(staged, self.changes.count() as u32, self.changes.bytes());
        self.changes.clear(CHANGES_KEPT_BYTES);
        self.health.look_for_room(&mut self.log);
        is_used
    }

    /// Takes changes that were made beside those so far, which become a frame before them. Returns the frame that an
    /// answer depends on which shows them; 0 if it may leave with the turn.
    pub fn adopt(&mut self, changes: Changes) -> u64 {
        self.seal();
        self.changes = changes;
        if self.changes.is_empty() {
            return 0;
        }
        let next_seq = self.log.next_seq();
        if self.mode != SyncMode::Always && !self.health.is_unwritten() {
            return if self.health.holds_writers_up() { next_seq } else { 0 };
        }
        for touched in self.changes.touched_from(Mark::default()) {
            let key = if let Touched::Key(_, key) = touched { Some(key) } else { None };
            self.uncommitted.note(key, next_seq);
        }
        next_seq
    }

    /// Begins a new frame when this one has become large.
    #[inline]
    pub fn bound_frame(&mut self) {
        if self.changes.payload_len() > FRAME_BYTES {
            self.seal();
        }
    }

    /// Hands the turn's frames to the kernel, and in the mode `always` begins to sync them. Answers to other workers
    /// are held back or let go by itself; those to this worker's clients are its caller's.
    pub fn write(&mut self, net: &mut Net, mesh: &mut Mesh) -> Outcome {
        self.seal();
        let had_failed = self.health.is_unwritten();
        if self.log.buffered_bytes() > 0 && !self.health.defers_writes() {
            // Where it was not the disk but this one file, the second try succeeds: it goes to a fresh segment.
            match self.log.flush().or_else(|_| self.log.flush()) {
                Err(error) => self.health.note_unwritten(error),
                Ok(_) => self.health.look_for_room(&mut self.log),
            }
        }
        let outcome = match (had_failed, self.log.buffered_bytes() > 0) {
            (false, true) => self.hold_back(mesh),
            (true, false) => self.let_go(mesh),
            (false, false) | (true, true) => Outcome::AsBefore,
        };
        self.health.assess(&self.log);
        self.pending.answer_synced(self.log.durable_seq(), mesh);
        let unsynced_files = self.log.unsynced_files();
        self.health.note_unsynced_files(unsynced_files);
        let is_awaited = self.mode == SyncMode::Always || self.pending.awaiting_sync() > 0;
        if is_awaited || unsynced_files >= UNSYNCED_FILES {
            self.begin_sync(net);
        }
        outcome
    }

    /// The turn's frames could not be written: nothing that shows their changes may leave.
    fn hold_back(&mut self, mesh: &mut Mesh) -> Outcome {
        if self.mode == SyncMode::Always {
            return Outcome::AsBefore; // All of it waits for a sync anyway.
        }
        for (seq, payload) in self.log.buffered() {
            for change in shard::decode(&payload) {
                let change = change.expect("the payload was made of changes");
                if change.is_visible() {
                    self.uncommitted.note(change.key(), seq);
                }
            }
        }
        self.pending.withdraw(self.log.next_seq() - 1, mesh);
        Outcome::Failed
    }

    /// What could not be written is written now.
    fn let_go(&mut self, mesh: &mut Mesh) -> Outcome {
        self.health.note_written();
        if self.mode == SyncMode::Always {
            return Outcome::AsBefore;
        }
        self.uncommitted.forget(self.log.written_seq());
        self.pending.answer_written(mesh);
        Outcome::Recovered
    }

    // ---- commits that wait for others ----

    /// So many clients, each with one command at a time, are expected to change something soon.
    pub fn expect_siblings(&mut self, clients: usize) {
        self.commit_delay.expect(clients);
    }

    /// How many more commands the next sync waits for, and for how long, if it does: a sync costs as much as several
    /// commands, and those who were answered after the last one are about to come again. No time is left when it is
    /// time to [write](Self::write).
    pub fn awaited_siblings(&self) -> Option<(usize, Duration)> {
        let awaited = self.commit_delay.awaited(self.pending.awaiting_sync())?;
        if self.commit.is_under_way() || self.health.is_unwritten() || self.log.needs_snapshot() {
            return None;
        }
        let left = self.commit_delay.left(Instant::now());
        let has_changes = self.log.buffered_bytes() > 0 || !self.changes.is_empty();
        (has_changes || !left.is_zero()).then_some((awaited, left))
    }

    /// Whether this turn's changes may wait for later ones before they are written: no client is answered before the
    /// next sync, which begins when the one that is under way has ended, or when its siblings have come.
    pub fn gathers(&self) -> bool {
        let gathered_bytes = self.log.buffered_bytes() + self.changes.payload_len();
        let bytes_max = GATHERED_CHANGE_BYTES_MAX.min(self.health.room_min_bytes() as usize / 2);
        let has_time = || self.awaited_siblings().is_some_and(|(_, left)| !left.is_zero());
        self.mode == SyncMode::Always
            && (self.commit.is_under_way() || has_time())
            && !self.health.is_unwritten()
            && gathered_bytes < bytes_max
    }

    // ---- the health of the disk ----

    /// The error with which commands that write are refused, while they are.
    #[inline]
    pub fn refusal(&self) -> Option<Error> {
        if self.is_cut {
            let remedy = "send it again once the server runs";
            return Some(Error::WritesRefused { cause: "the server stops".into(), remedy });
        }
        self.health.refusal()
    }

    /// The shard has changes that the log will not get, since the server stops: there are to be none upon them.
    pub fn note_cut(&mut self) {
        self.is_cut = true;
    }

    /// Why writes are refused, if they are.
    pub fn fault(&self) -> Option<&Arc<str>> {
        self.health.fault()
    }

    /// What helps against that.
    pub fn fault_remedy(&self) -> Option<&'static str> {
        self.health.fault_remedy()
    }

    /// The error in place of an answer that waits for the disk.
    pub fn not_on_disk(&self) -> Error {
        self.health.not_on_disk()
    }

    /// Whether something waits for the disk that it may not get.
    pub fn is_failing(&self) -> bool {
        self.health.is_failing()
    }

    /// Looks at the clock, on which the time `passed` counts since the last look. When the disk has taken too long, the
    /// clients that wait for it are told, and later ones are told at once. Returns whether answers of frames that could
    /// not be written were given up.
    ///
    /// Parts of transactions go on waiting, with what they have locked, until the log has them, or until only a
    /// snapshot can have them: it does not begin before the locks are given back.
    pub fn watch(&mut self, passed: Duration, mesh: &mut Mesh) -> bool {
        self.commit.watch(passed);
        if self.commit.is_under_way() && self.mode == SyncMode::EverySecond {
            self.health.note_speed(self.commit.seen(), false);
        }
        let hangs = self.commit.is_under_way() && !self.awaits_sync();
        let fails = self.health.watch(passed, hangs, self.mode != SyncMode::No, &self.log);
        if self.health.is_overdue() || self.log.needs_snapshot() {
            self.give_up(self.health.is_overdue(), mesh);
        }
        fails && self.health.is_unwritten() && self.mode != SyncMode::Always
    }

    /// Answers what waits for the disk with the error that the outcome is unknown: parts of transactions where they
    /// must not wait, and where `others_too` all others.
    fn give_up(&mut self, others_too: bool, mesh: &mut Mesh) {
        let parts_too = self.log.needs_snapshot() && !self.health.is_unwritten();
        self.pending.give_up(&self.health.not_on_disk(), parts_too, others_too, mesh);
    }

    /// Takes the outcome of making a segment ready.
    pub fn on_prepared(&mut self, outcome: Result<Option<Spare<OsDisk>>, wal::Error>) {
        match outcome {
            Ok(spare) => {
                self.health.note_segment(None);
                spare.into_iter().for_each(|spare| self.log.adopt(spare));
            }
            Err(error) => self.health.note_segment(Some(error)),
        }
    }

    /// Notes a failed sync of the log, once the log was told. What waits for it is answered with an error: a crash
    /// may take it back, or not.
    pub fn on_sync_failed(&mut self, error: &dyn fmt::Display, mesh: &mut Mesh) {
        if !self.log.needs_snapshot() {
            return; // It was the snapshot alone that failed.
        }
        self.health.note_sync_failed(error.to_string());
        self.health.assess(&self.log);
        // What could not even be written waits for that first.
        self.give_up(!self.health.is_unwritten(), mesh);
    }

    // ---- answers ----

    /// Which frame an answer to this request depends on, just after it ran; 0 when it may leave with this turn.
    /// `changed` tells whether the request changed anything.
    #[inline]
    pub fn frame_behind(&mut self, request: &Request<'_>, changed: bool) -> u64 {
        if self.mode != SyncMode::Always && !self.health.is_unwritten() {
            let waits = self.health.holds_writers_up() && changed;
            return if waits { self.log.next_seq() } else { 0 };
        }
        let next_seq = self.log.next_seq();
        match (changed, request.command.keys.any()) {
            (true, true) => {
                request.keys().for_each(|key| self.uncommitted.note(Some(key), next_seq));
                next_seq
            }
            (true, false) => {
                self.uncommitted.note(None, next_seq);
                next_seq
            }
            (false, true) => self.uncommitted.last_of(request),
            (false, false) => self.frame_behind_all(),
        }
    }

    /// The frame that an answer about the whole shard depends on.
    pub fn frame_behind_all(&self) -> u64 {
        if self.mode != SyncMode::Always && !self.health.is_unwritten() {
            return 0;
        }
        let next_seq = self.log.next_seq();
        if self.changes.is_empty() { next_seq - 1 } else { next_seq }
    }

    /// Whether an answer that depends on this frame has to wait.
    #[inline]
    pub fn holds_back(&self, seq: u64) -> bool {
        match self.mode {
            SyncMode::Always => seq > self.log.durable_seq(),
            SyncMode::EverySecond | SyncMode::No if self.health.is_unwritten() => {
                seq > self.log.written_seq()
            }
            SyncMode::EverySecond | SyncMode::No => {
                self.health.holds_writers_up() && seq > self.log.durable_seq()
            }
        }
    }

    /// Gives an answer, as soon as the frame that it depends on allows.
    pub fn answer(
        &mut self,
        seq: u64,
        origin: usize,
        request_id: RequestId,
        answer: Answer,
        mesh: &mut Mesh,
    ) {
        if self.holds_back(seq) {
            let held = Held::new(seq, origin, request_id, answer);
            if self.health.is_overdue() && !held.is_part_of_transaction() {
                return held.give_error(self.not_on_disk(), mesh);
            }
            self.hold(held);
        } else {
            mesh.to(origin).answer(request_id, answer);
        }
    }

    /// Gives an answer that `render` writes, as soon as the frame that it depends on allows.
    pub fn answer_bytes(
        &mut self,
        seq: u64,
        (origin, request_id): (usize, RequestId),
        mesh: &mut Mesh,
        render: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.holds_back(seq) && self.health.is_overdue() {
            mesh.to(origin).answer(request_id, Answer::Failed(self.not_on_disk()));
        } else if self.holds_back(seq) {
            let mut bytes = Vec::new();
            render(&mut bytes);
            self.hold(Held::rendered(seq, origin, request_id, bytes));
        } else {
            mesh.to(origin).answer_bytes(request_id, render);
        }
    }

    fn hold(&mut self, held: Held) {
        if self.mode == SyncMode::Always || !self.health.is_unwritten() {
            self.pending.await_sync(held);
        } else {
            self.pending.await_write(held);
        }
    }

    /// Answers `Ok` when everything acknowledged so far is on disk, in any mode; with an error where it cannot be
    /// brought there.
    pub fn answer_synced(&mut self, origin: usize, request_id: RequestId, net: &mut Net, mesh: &mut Mesh) {
        self.seal();
        // What cannot be written is not acknowledged either.
        let seq = if self.health.is_unwritten() { self.log.written_seq() } else { self.log.next_seq() - 1 };
        let held = Held::new(seq, origin, request_id, Answer::Part(Reply::Ok));
        if let Some(error) = self.log.displaced() {
            held.give_error(Error::NotOnDisk { cause: printable(&error.to_string()) }, mesh);
        } else if seq <= self.log.durable_seq() {
            held.give(mesh);
        } else if self.log.needs_snapshot() {
            held.give_error(self.health.not_synced(), mesh);
        } else if self.health.is_overdue() {
            held.give_error(self.not_on_disk(), mesh);
        } else {
            self.pending.await_sync(held);
            self.begin_sync(net);
        }
    }

    /// How many answers wait for a sync.
    pub fn awaiting_sync(&self) -> usize {
        self.pending.awaiting_sync()
    }

    // ---- syncs ----

    /// Begins to sync what was written, unless a sync is under way already.
    pub fn begin_sync(&mut self, net: &mut Net) {
        if self.commit.is_under_way() {
            return; // The next one begins when this one has ended, if it is still wanted.
        }
        if let Some(ticket) = self.log.begin_sync() {
            self.commit.begin(ticket, net);
        }
    }

    /// How long syncs took, and how many of them failed.
    pub fn syncs(&self) -> (&Histogram, u64) {
        self.commit.counts()
    }

    /// Whether a sync is under way that has not taken too long.
    pub fn awaits_sync(&self) -> bool {
        self.commit.lasts_at_most(self.health.timeout())
    }

    /// Takes the end of the sync of one file; after the last one, lets the answers go that waited for it, or tells
    /// them that it failed: what was not on disk may be lost, whatever later syncs say. In the mode `always` the next
    /// sync begins at once with what has gathered.
    pub fn on_synced(&mut self, result: std::io::Result<()>, net: &mut Net, mesh: &mut Mesh) {
        let Some(Ended { ticket, result, seen }) = self.commit.on_file_synced(result) else { return };
        if self.mode == SyncMode::EverySecond {
            self.health.note_speed(seen, true);
        }
        self.health.note_sync_ended(result.is_err());
        if let Err(error) = result {
            self.log.fail_sync();
            self.on_sync_failed(&format_args!("cannot sync the log: {error}"), mesh);
            return;
        }
        let durable = self.log.finish_sync(&ticket);
        if self.mode == SyncMode::Always {
            self.uncommitted.forget(durable);
        }
        self.pending.answer_synced(self.log.durable_seq(), mesh);
        self.commit_delay.begin(Instant::now());
        if self.mode == SyncMode::Always && !self.gathers() {
            // In this mode a failed write holds no answers back that do not wait for a sync anyway.
            self.write(net, mesh);
        }
    }

    /// Ends the log, as [`Log::close`] does. A sync that is still under way counts as failed: one beside it might
    /// not hear of what it could not write.
    ///
    /// # Errors
    /// As [`Log::close`].
    pub fn close(mut self) -> Result<(), wal::Error> {
        if self.commit.is_under_way() {
            self.log.fail_sync();
        }
        self.log.close()
    }
}
