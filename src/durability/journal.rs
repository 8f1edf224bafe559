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
//! writes. A sync that hangs counts as a failure, but its end ends it. Whoever waits for longer than the disk is
//! given (`--disk-timeout`) is told that the outcome is unknown ([`Journal::watch`]).

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use shard::{Change, Changes, Error, Reply, Request};
use wal::{Kind, Log, OsDisk, Spare, Staged, SyncTicket};

use crate::config::{Config, SyncMode};
use crate::logging;
use crate::mesh::{Answer, Mesh, RequestId};
use crate::net::{Net, SyncOf};

/// A turn's changes go into several frames past this size: a frame holds less than 2 GiB, and one request may
/// add three quarters of that.
const FRAME_BYTES: usize = 64 * 1024 * 1024;

/// The memory for changes is kept for reuse up to this size.
const CHANGES_KEPT_BYTES: usize = 1024 * 1024;

/// Writes are refused when no segment can be made ready and less than this is left of the last one, or less than
/// this part of a segment where segments are small.
const ROOM_MIN_BYTES: u64 = 4 * 1024 * 1024;
const ROOM_MIN_PART: u64 = 4;

/// In the mode `always`, so many bytes of changes at most gather while a sync is under way.
const GATHERED_CHANGE_BYTES_MAX: usize = 256 * 1024;

/// In the mode `always`, how long after a sync the next one waits for the commands of those clients that are expected to
/// send one, for each of them and at most, and which part of them is enough.
const DELAY_PER_SIBLING: Duration = Duration::from_micros(1);
const COMMIT_DELAY_MAX: Duration = Duration::from_millis(1);
const SIBLINGS_PERCENT: usize = 90;

/// How long frames that could not be written wait for the next try.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// In the mode `everysec`, a sync that takes longer makes writers wait.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// So many log files that wait for a sync are a reason to begin one, and while it does not come to its end so many more
/// make writers wait for it: each is open until then, and descriptors are few. Where segments are small, a second's
/// writes fill hundreds.
const UNSYNCED_FILES: usize = 8;
pub const UNSYNCED_FILES_MAX: usize = 24;

/// The cause that is given when a sync takes too long.
const SYNC_HANGS: &str = "a sync of the log does not come to its end";

/// The log of one shard, and who waits for it.
pub struct Journal {
    /// The log.
    pub log: Log<OsDisk>,
    /// What was changed since the last frame.
    pub changes: Changes,
    mode: SyncMode,
    unsafe_frames: UnsafeFrames,
    /// Answers that wait for a sync, by the frame they wait for.
    awaiting_sync: VecDeque<Held>,
    /// Answers that wait for the frames in the log's buffer to be written.
    awaiting_write: Vec<Held>,
    /// The sync that is under way, and how many of its files are not done.
    sync: Option<SyncTicket<OsDisk>>,
    files_left: usize,
    /// For how long it was seen to be under way, each time the worker looked at the clock: time that passed in a long
    /// turn, or while the process was not run, says nothing of the disk. `None` before the first look.
    sync_seen: Option<Duration>,
    failed: Option<std::io::Error>,
    /// How many clients are expected to change something soon, for how long after a sync the next one waits for them,
    /// and until when it does.
    siblings: usize,
    commit_delay: Duration,
    commit_delay_until: Instant,
    room_min_bytes: u64,
    /// Why writes are refused, if they are.
    fault: Option<Fault>,
    /// What the last write failed with, while its frames are in the log's buffer, and when the next try is due.
    unwritten: Option<(wal::Error, Instant)>,
    /// How long the disk may take.
    disk_timeout: Duration,
    /// The sync that is under way takes longer.
    sync_hangs: bool,
    /// In the mode `everysec`: syncs take longer than [`SLOW_SYNC`].
    is_slow: bool,
    /// So many log files wait for a sync that writers wait for it, too.
    is_crowded: bool,
    /// Answers that wait for the disk are not coming for now: it has taken too long already.
    is_overdue: bool,
    /// What the last try to make a segment ready failed with.
    no_segment: Option<wal::Error>,
    /// What the last failed sync failed with.
    no_sync: String,
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

/// Why a shard refuses writes.
struct Fault {
    kind: FaultKind,
    /// For how long it was seen to last, as [`Journal::sync_seen`].
    lasted: Duration,
    cause: Arc<str>,
    remedy: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    /// The data directory is not at its place.
    Displaced,
    /// A sync failed.
    Sync,
    /// Frames could not be written.
    Write,
    /// A sync does not come to its end.
    Hang,
    /// There is no room for the frames to come.
    Room,
}

struct Held {
    seq: u64,
    origin: usize,
    request_id: RequestId,
    answer: HeldAnswer,
}

enum HeldAnswer {
    /// The bytes of an [`Answer::Bytes`].
    Rendered(Vec<u8>),
    Whole(Answer),
}

/// Which frame last changed a key, for frames that a crash could take back: in the mode `always` those that are not
/// on disk, otherwise those that could not be written. Keys are known by their hash: that two share one makes a
/// reader wait for nothing, at worst.
struct UnsafeFrames {
    hasher: RandomState,
    frame_of: HashMap<u64, u64, RandomState>,
    in_order: VecDeque<(u64, u64)>,
    /// The frame that last changed every key.
    of_all: u64,
}

impl Journal {
    /// A journal over a recovered log.
    pub fn new(log: Log<OsDisk>, config: &Config) -> Journal {
        let unsafe_frames = UnsafeFrames {
            hasher: RandomState::new(),
            frame_of: HashMap::default(),
            in_order: VecDeque::new(),
            of_all: 0,
        };
        let mut journal = Journal {
            log,
            changes: Changes::default(),
            mode: config.sync_mode,
            unsafe_frames,
            awaiting_sync: VecDeque::new(),
            awaiting_write: Vec::new(),
            sync: None,
            files_left: 0,
            sync_seen: None,
            failed: None,
            siblings: 0,
            commit_delay: Duration::ZERO,
            commit_delay_until: Instant::now(),
            room_min_bytes: ROOM_MIN_BYTES.min(config.wal_segment_size / ROOM_MIN_PART),
            fault: None,
            unwritten: None,
            disk_timeout: config.disk_timeout,
            sync_hangs: false,
            is_slow: false,
            is_crowded: false,
            is_overdue: false,
            no_segment: None,
            no_sync: String::new(),
        };
        if journal.mode == SyncMode::Always {
            journal.log.fill_segments();
        }
        // Before the first write, too, it must be known that there is room for it.
        if journal.log.room_bytes() < journal.room_min_bytes {
            journal.no_segment = journal.log.reserve().err();
            journal.assess();
        }
        journal
    }

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

    /// Begins to write the value of a request ahead of the change that it will make; `None` where that fails.
    pub fn stage(&self, request: &Request<'_>) -> Option<Staged<OsDisk>> {
        let (key, value) = request.keys().next().zip(request.large_arg())?;
        self.log.stage(Changes::put_head_bytes(key), value).ok()
    }

    /// As [`Self::seal`], for the changes of the request whose value was staged. If they are what was foreseen, they are
    /// handed to the kernel at once. Returns whether the file with the value is a part of the log now.
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
        self.look_for_room();
        is_used
    }

    /// Allocates the next segment when little room is left.
    fn look_for_room(&mut self) {
        if self.log.room_bytes() < self.room_min_bytes {
            let reserved = self.log.reserve();
            self.no_segment = reserved.err().or(self.no_segment.take());
        }
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
        let before = self.unwritten.as_ref().map(|(_, again_at)| *again_at);
        let rests = before.is_some_and(|again_at| Instant::now() < again_at);
        if self.log.buffered_bytes() > 0 && !rests {
            // Where it was not the disk but this one file, the second try succeeds: it goes to a fresh segment.
            match self.log.flush().or_else(|_| self.log.flush()) {
                Err(error) => self.unwritten = Some((error, Instant::now() + WRITE_AGAIN)),
                Ok(_) => self.look_for_room(),
            }
        }
        let outcome = match (before, self.log.buffered_bytes() > 0) {
            (None, true) => self.hold_back(mesh),
            (Some(_), false) => self.let_go(mesh),
            (None, false) | (Some(_), true) => Outcome::AsBefore,
        };
        self.assess();
        self.answer_durable(mesh);
        let unsynced_files = self.log.unsynced_files();
        self.is_crowded = unsynced_files >= UNSYNCED_FILES_MAX;
        if self.mode == SyncMode::Always || !self.awaiting_sync.is_empty() || unsynced_files >= UNSYNCED_FILES
        {
            self.begin_sync(net);
        }
        outcome
    }

    /// So many clients, each with one command at a time, are expected to change something soon.
    pub fn expect_siblings(&mut self, clients: usize) {
        self.siblings = clients;
        self.commit_delay = (DELAY_PER_SIBLING * clients as u32).min(COMMIT_DELAY_MAX);
    }

    /// How many more commands the next sync waits for, and for how long, if it does: a sync costs as much as several
    /// commands, and those who were answered after the last one are about to come again. No time is left when it is
    /// time to [write](Self::write).
    pub fn awaited_siblings(&self) -> Option<(usize, Duration)> {
        let wanted = self.siblings * SIBLINGS_PERCENT / 100;
        let is_busy = self.sync.is_some() || self.unwritten.is_some() || self.log.needs_snapshot();
        if wanted <= self.awaiting_sync.len() || is_busy {
            return None;
        }
        let left = self.commit_delay_until.saturating_duration_since(Instant::now());
        let has_changes = self.log.buffered_bytes() > 0 || !self.changes.is_empty();
        (has_changes || !left.is_zero()).then(|| (wanted - self.awaiting_sync.len(), left))
    }

    /// Whether this turn's changes may wait for later ones before they are written: nobody is answered before the
    /// next sync, which begins when the one that is under way has ended, or when its siblings have come.
    pub fn gathers(&self) -> bool {
        let gathered_bytes = self.log.buffered_bytes() + self.changes.payload_len();
        let bytes_max = GATHERED_CHANGE_BYTES_MAX.min(self.room_min_bytes as usize / 2);
        self.mode == SyncMode::Always
            && (self.sync.is_some() || self.awaited_siblings().is_some_and(|(_, left)| !left.is_zero()))
            && self.unwritten.is_none()
            && gathered_bytes < bytes_max
    }

    /// The turn's frames could not be written: nothing that shows their changes may leave.
    fn hold_back(&mut self, mesh: &mut Mesh) -> Outcome {
        if self.mode == SyncMode::Always {
            return Outcome::AsBefore; // All of it waits for a sync anyway.
        }
        let Journal { log, unsafe_frames, awaiting_write, .. } = self;
        for (seq, payload) in log.buffered() {
            for change in shard::decode(&payload) {
                let change = change.expect("the payload was made of changes");
                if !matches!(change, Change::Clocks(_)) {
                    unsafe_frames.note(change.key(), seq);
                }
            }
        }
        let seq = log.next_seq() - 1;
        mesh.withdraw_answers(|origin, request_id, answer, batch| {
            let answer = match answer {
                Answer::Bytes(range) => HeldAnswer::Rendered(batch.bytes(range).to_vec()),
                answer => HeldAnswer::Whole(answer),
            };
            awaiting_write.push(Held { seq, origin, request_id, answer });
        });
        Outcome::Failed
    }

    /// What could not be written is written now.
    fn let_go(&mut self, mesh: &mut Mesh) -> Outcome {
        self.unwritten = None;
        self.is_overdue = false;
        if self.mode == SyncMode::Always {
            return Outcome::AsBefore;
        }
        self.unsafe_frames.forget(self.log.written_seq());
        self.awaiting_write.drain(..).for_each(|held| held.give(mesh));
        Outcome::Recovered
    }

    // ---- the health of the disk ----

    /// The error with which commands that write are refused, while they are.
    #[inline]
    pub fn refusal(&self) -> Option<Error> {
        let Fault { cause, remedy, .. } = self.fault.as_ref()?;
        Some(Error::WritesRefused { cause: cause.clone(), remedy })
    }

    /// Why writes are refused, if they are.
    pub fn fault(&self) -> Option<&Arc<str>> {
        self.fault.as_ref().map(|fault| &fault.cause)
    }

    /// Looks at the clock, on which the time `passed` counts since the last look. When the disk has taken too long,
    /// those who wait for it are told, and those who come later are told at once. Returns whether answers of frames
    /// that could not be written were given up.
    ///
    /// Parts of transactions go on waiting, with what they have locked, until the log has them, or until only a
    /// snapshot can have them: it does not begin before the locks are given back.
    pub fn watch(&mut self, passed: Duration, mesh: &mut Mesh) -> bool {
        if self.sync.is_some() {
            self.sync_seen = Some(self.sync_seen.map_or(Duration::ZERO, |seen| seen + passed));
        }
        if let Some(fault) = &mut self.fault {
            fault.lasted += passed;
        }
        let hangs = self.sync.is_some() && !self.awaits_sync();
        self.sync_hangs = hangs && self.mode != SyncMode::No;
        self.note_speed();
        self.assess();
        let lasts = |fault: &Fault| fault.lasted > self.disk_timeout;
        let lasting = self.fault.as_ref().filter(|fault| lasts(fault));
        let fails = lasting.is_some() && (self.log.needs_snapshot() || self.unwritten.is_some());
        self.is_overdue = hangs || fails;
        if self.is_overdue || self.log.needs_snapshot() {
            self.give_up(self.is_overdue, mesh);
        }
        fails && self.unwritten.is_some() && self.mode != SyncMode::Always
    }

    /// Tells who waits for the disk that the outcome is unknown: parts of transactions where they must not wait, and
    /// where `others_too` all others.
    fn give_up(&mut self, others_too: bool, mesh: &mut Mesh) {
        let error = self.not_on_disk();
        let parts_too = self.log.needs_snapshot() && self.unwritten.is_none();
        let mut keeps = |held: Held| {
            let goes = if held.is_part_of_transaction() { parts_too } else { others_too };
            match goes {
                true => {
                    held.give_error(error.clone(), mesh);
                    None
                }
                false => Some(held),
            }
        };
        self.awaiting_sync =
            std::mem::take(&mut self.awaiting_sync).into_iter().filter_map(&mut keeps).collect();
        self.awaiting_write =
            std::mem::take(&mut self.awaiting_write).into_iter().filter_map(keeps).collect();
    }

    /// The error for whoever waits for the disk.
    pub fn not_on_disk(&self) -> Error {
        let cause = self.fault.as_ref().map(|fault| fault.cause.clone());
        Error::NotOnDisk { cause: cause.unwrap_or_else(|| SYNC_HANGS.into()) }
    }

    /// Whether something waits for the disk that it may not get.
    pub fn is_failing(&self) -> bool {
        self.is_overdue || self.fault.as_ref().is_some_and(|fault| fault.kind != FaultKind::Room)
    }

    /// Takes the outcome of making a segment ready.
    pub fn on_prepared(&mut self, outcome: Result<Option<Spare<OsDisk>>, wal::Error>) {
        match outcome {
            Ok(spare) => {
                self.no_segment = None;
                spare.into_iter().for_each(|spare| self.log.adopt(spare));
            }
            Err(error) => {
                // Writes go on while there is room in the current segment.
                if self.no_segment.is_none() {
                    tracing::warn!("no segment could be made ready, trying again: {error}");
                }
                self.no_segment = Some(error);
            }
        }
    }

    /// Notes a failed sync of the log, once the log was told. What waits for it is answered with an error: a crash
    /// may take it back, or not.
    pub fn on_sync_failed(&mut self, error: &dyn fmt::Display, mesh: &mut Mesh) {
        if !self.log.needs_snapshot() {
            return; // It was the snapshot alone that failed.
        }
        let error = error.to_string();
        if self.no_sync != error {
            self.no_sync = error;
            self.fault = None; // To be told anew.
        }
        self.assess();
        // What could not even be written waits for that first.
        self.give_up(self.unwritten.is_none(), mesh);
    }

    /// Finds out whether writes are to be refused, and tells the log's readers when that changes.
    fn assess(&mut self) {
        let room_is_short = || self.log.room_bytes() < self.room_min_bytes;
        let displaced = self.log.displaced();
        let found: Option<(FaultKind, &dyn fmt::Display)> = if let Some(error) = &displaced {
            Some((FaultKind::Displaced, error))
        } else if self.log.needs_snapshot() {
            Some((FaultKind::Sync, &self.no_sync))
        } else if let Some((error, _)) = &self.unwritten {
            Some((FaultKind::Write, error))
        } else if self.sync_hangs {
            Some((FaultKind::Hang, &SYNC_HANGS))
        } else {
            let error = self.no_segment.as_ref().filter(|_| room_is_short());
            error.map(|error| (FaultKind::Room, error as _))
        };
        if found.as_ref().map(|(kind, _)| *kind) == self.fault.as_ref().map(|fault| fault.kind) {
            return;
        }
        let fault = found.map(|(kind, error)| {
            let error_of_disk = match kind {
                FaultKind::Displaced | FaultKind::Sync | FaultKind::Hang => None,
                FaultKind::Write => self.unwritten.as_ref().map(|(error, _)| error),
                FaultKind::Room => self.no_segment.as_ref(),
            };
            let remedy = match error_of_disk {
                None if kind == FaultKind::Displaced => {
                    "put it back at its place, and they are taken again, or stop this server"
                }
                None if kind == FaultKind::Hang => "check the disk; they are taken again once it answers",
                None => "check the disk; they are taken again once a snapshot is written",
                Some(error) if error.is_disk_full() => "free space on the disk, and they are taken again",
                Some(error) if error.is_out_of_files() => "raise the limit of open files (ulimit -n)",
                Some(error) if error.is_file_too_large() => {
                    "raise the limit of the size of files (ulimit -f, LimitFSIZE= of systemd), or choose a smaller \
                     --wal-segment-size"
                }
                Some(_) => "check the disk; they are taken again once it can be written",
            };
            Fault { kind, lasted: Duration::ZERO, cause: printable(&error.to_string()), remedy }
        });
        match &fault {
            Some(Fault { cause, remedy, .. }) => tracing::error!("writes are refused: {cause}; {remedy}"),
            None => tracing::info!("writes are taken again"),
        }
        self.fault = fault;
    }

    // ---- answers ----

    /// Which frame an answer to this request depends on, just after it ran; 0 when it may leave with this turn.
    /// `changed` tells whether the request changed anything.
    #[inline]
    pub fn frame_behind(&mut self, request: &Request<'_>, changed: bool) -> u64 {
        if self.mode != SyncMode::Always && self.unwritten.is_none() {
            let waits = (self.is_slow || self.is_crowded) && changed;
            return if waits { self.log.next_seq() } else { 0 };
        }
        let next_seq = self.log.next_seq();
        match (changed, request.command.keys.any) {
            (true, true) => {
                request.keys().for_each(|key| self.unsafe_frames.note(Some(key), next_seq));
                next_seq
            }
            (true, false) => {
                self.unsafe_frames.note(None, next_seq);
                next_seq
            }
            (false, true) => self.unsafe_frames.last_of(request),
            (false, false) => self.frame_behind_all(),
        }
    }

    /// The frame that an answer about the whole shard depends on.
    pub fn frame_behind_all(&self) -> u64 {
        if self.mode != SyncMode::Always && self.unwritten.is_none() {
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
            SyncMode::EverySecond | SyncMode::No if self.unwritten.is_some() => seq > self.log.written_seq(),
            SyncMode::EverySecond | SyncMode::No => {
                (self.is_slow || self.is_crowded) && seq > self.log.durable_seq()
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
            let held = Held { seq, origin, request_id, answer: HeldAnswer::Whole(answer) };
            if self.is_overdue && !held.is_part_of_transaction() {
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
        if self.holds_back(seq) && self.is_overdue {
            mesh.to(origin).answer(request_id, Answer::Failed(self.not_on_disk()));
        } else if self.holds_back(seq) {
            let mut bytes = Vec::new();
            render(&mut bytes);
            self.hold(Held { seq, origin, request_id, answer: HeldAnswer::Rendered(bytes) });
        } else {
            mesh.to(origin).answer_bytes(request_id, render);
        }
    }

    fn hold(&mut self, held: Held) {
        if self.mode == SyncMode::Always || self.unwritten.is_none() {
            self.awaiting_sync.push_back(held);
        } else {
            self.awaiting_write.push(held);
        }
    }

    /// Answers `Ok` when everything acknowledged so far is on disk, in any mode; with an error where it cannot be
    /// brought there.
    pub fn answer_synced(&mut self, origin: usize, request_id: RequestId, net: &mut Net, mesh: &mut Mesh) {
        self.seal();
        // What cannot be written is not acknowledged either.
        let seq = if self.unwritten.is_some() { self.log.written_seq() } else { self.log.next_seq() - 1 };
        let held = Held { seq, origin, request_id, answer: HeldAnswer::Whole(Answer::Part(Reply::Ok)) };
        if let Some(error) = self.log.displaced() {
            held.give_error(Error::NotOnDisk { cause: printable(&error.to_string()) }, mesh);
        } else if seq <= self.log.durable_seq() {
            held.give(mesh);
        } else if self.log.needs_snapshot() {
            held.give_error(Error::NotOnDisk { cause: printable(&self.no_sync) }, mesh);
        } else if self.is_overdue {
            held.give_error(self.not_on_disk(), mesh);
        } else {
            self.awaiting_sync.push_back(held);
            self.begin_sync(net);
        }
    }

    fn answer_durable(&mut self, mesh: &mut Mesh) {
        let durable = self.log.durable_seq();
        while let Some(held) = self.awaiting_sync.pop_front_if(|held| held.seq <= durable) {
            held.give(mesh);
        }
    }

    // ---- syncs ----

    /// Begins to sync what was written, unless a sync is under way already.
    pub fn begin_sync(&mut self, net: &mut Net) {
        if self.sync.is_some() {
            return; // The next one begins when this one has ended, if it is still wanted.
        }
        let Some(ticket) = self.log.begin_sync() else { return };
        for file in ticket.files() {
            net.sync(file.clone(), SyncOf::Data);
        }
        if let Some(directory) = ticket.directory() {
            net.sync(directory.clone(), SyncOf::Everything);
        }
        self.files_left = ticket.files().len() + usize::from(ticket.directory().is_some());
        (self.sync, self.sync_seen) = (Some(ticket), None);
    }

    /// Whether a sync is under way that has not taken too long.
    pub fn awaits_sync(&self) -> bool {
        self.sync.is_some() && self.sync_seen.is_none_or(|seen| seen <= self.disk_timeout)
    }

    /// Ends the log, as [`Log::close`] does. A sync that is still under way counts as failed: one beside it might
    /// not hear of what it could not write.
    ///
    /// # Errors
    /// As [`Log::close`].
    pub fn close(mut self) -> Result<(), wal::Error> {
        if self.sync.is_some() {
            self.log.fail_sync();
        }
        self.log.close()
    }

    /// Finds out whether the sync that is under way, or has just ended, is a slow one.
    fn note_speed(&mut self) {
        let is_slow =
            self.mode == SyncMode::EverySecond && self.sync_seen.is_some_and(|seen| seen > SLOW_SYNC);
        if self.sync.is_some() && is_slow != self.is_slow && (is_slow || self.files_left == 0) {
            self.is_slow = is_slow;
            if is_slow {
                tracing::warn!("a sync of the log takes longer than a second: writers wait for the disk");
            } else {
                tracing::info!("syncs of the log are fast again: writers do not wait for them");
            }
        }
    }

    /// Takes the end of the sync of one file; after the last one, lets the answers go that waited for it, or tells
    /// them that it failed: what was not on disk may be lost, whatever later syncs say. In the mode `always` the next
    /// sync begins at once with what has gathered.
    pub fn on_synced(&mut self, result: std::io::Result<()>, net: &mut Net, mesh: &mut Mesh) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
        self.files_left -= 1;
        if self.files_left > 0 {
            return;
        }
        self.note_speed();
        let ticket = self.sync.take().expect("a sync was begun");
        (self.sync_hangs, self.is_overdue) = (false, false);
        if let Some(error) = self.failed.take() {
            self.log.fail_sync();
            self.is_slow = false;
            self.on_sync_failed(&format_args!("cannot sync the log: {error}"), mesh);
            return;
        }
        let durable = self.log.finish_sync(&ticket);
        if self.mode == SyncMode::Always {
            self.unsafe_frames.forget(durable);
        }
        self.answer_durable(mesh);
        self.commit_delay_until = Instant::now() + self.commit_delay;
        if self.mode == SyncMode::Always && !self.gathers() {
            // In this mode a failed write holds no answers back that do not wait for a sync anyway.
            self.write(net, mesh);
        }
    }

    /// How many answers wait for a sync.
    pub fn awaiting_sync(&self) -> usize {
        self.awaiting_sync.len()
    }
}

impl Held {
    fn is_part_of_transaction(&self) -> bool {
        matches!(self.answer, HeldAnswer::Whole(Answer::Committed(_)))
    }

    fn give(self, mesh: &mut Mesh) {
        let batch = mesh.to(self.origin);
        match self.answer {
            HeldAnswer::Rendered(bytes) => {
                batch.answer_bytes(self.request_id, |out| out.extend_from_slice(&bytes));
            }
            HeldAnswer::Whole(answer) => batch.answer(self.request_id, answer),
        }
    }

    fn give_error(self, error: Error, mesh: &mut Mesh) {
        let answer = match self.answer {
            HeldAnswer::Rendered(_) | HeldAnswer::Whole(Answer::Value(_)) => Answer::Failed(error),
            HeldAnswer::Whole(_) => Answer::Part(Reply::Error(error)),
        };
        mesh.to(self.origin).answer(self.request_id, answer);
    }
}

/// A text that fits in a line of a reply, whatever the names of files hold.
pub fn printable(text: &str) -> Arc<str> {
    text.chars().map(|char| if logging::is_deceptive(char) { '?' } else { char }).collect::<String>().into()
}

impl UnsafeFrames {
    /// A frame changes this key, or every key.
    fn note(&mut self, key: Option<&[u8]>, seq: u64) {
        match key {
            Some(key) => {
                let hash = self.hasher.hash_one(key);
                self.frame_of.insert(hash, seq);
                self.in_order.push_back((seq, hash));
            }
            None => self.of_all = seq,
        }
    }

    fn last_of(&self, request: &Request<'_>) -> u64 {
        let of_key = |key| self.frame_of.get(&self.hasher.hash_one(key)).copied().unwrap_or(0);
        request.keys().map(of_key).max().unwrap_or(0).max(self.of_all)
    }

    fn forget(&mut self, durable: u64) {
        while let Some((seq, hash)) = self.in_order.pop_front_if(|(seq, _)| *seq <= durable) {
            if self.frame_of.get(&hash) == Some(&seq) {
                self.frame_of.remove(&hash);
            }
        }
    }
}
