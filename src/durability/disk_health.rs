//! Whether the disk does what a shard asks of it: why commands that write are refused, what helps, and what waits for
//! the disk meanwhile.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard::Error;
use wal::{Log, OsDisk};

use crate::config::Config;
use crate::logging::printable;

/// Writes are refused when no segment can be made ready and less than this is left of the last one, or less than
/// this part of a segment where segments are small.
const ROOM_MIN_BYTES: u64 = 4 * 1024 * 1024;
const ROOM_MIN_PART: u64 = 4;

/// How long frames that could not be written wait for the next try.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// In the mode `everysec`, a sync that takes longer makes writers wait.
pub(super) const SLOW_SYNC: Duration = Duration::from_secs(1);

/// While so many log files wait for a sync, writers wait for it too: each is open until then, and descriptors are few.
pub const UNSYNCED_FILES_MAX: usize = 24;

/// The cause that is given when a sync takes too long.
const SYNC_HANGS: &str = "a sync of the log does not come to its end";

/// The health of the disk that a shard's log is on.
pub(super) struct DiskHealth {
    shard: usize,
    /// Why writes are refused, if they are.
    fault: Option<Fault>,
    /// What the last write failed with, while its frames are in the log's buffer, and when the next try is due.
    unwritten: Option<(wal::Error, Instant)>,
    /// What the last try to make a segment ready failed with.
    no_segment: Option<wal::Error>,
    /// What the last failed sync failed with.
    no_sync: String,
    room_min_bytes: u64,
    /// How long the disk may take.
    timeout: Duration,
    /// The sync that is under way takes longer.
    sync_hangs: bool,
    /// Syncs take longer than [`SLOW_SYNC`], in a mode in which that counts.
    is_slow: bool,
    /// As many log files wait for a sync as [`UNSYNCED_FILES_MAX`].
    is_crowded: bool,
    /// Answers that wait for the disk are not coming for now: it has taken too long already.
    is_overdue: bool,
}

/// Why a shard refuses writes.
struct Fault {
    kind: FaultKind,
    /// For how long it was seen to last, each time the worker looked at the clock.
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

impl DiskHealth {
    /// No fault is known yet.
    pub fn new(shard: usize, config: &Config) -> DiskHealth {
        DiskHealth {
            shard,
            fault: None,
            unwritten: None,
            no_segment: None,
            no_sync: String::new(),
            room_min_bytes: ROOM_MIN_BYTES.min(config.wal_segment_size / ROOM_MIN_PART),
            timeout: config.disk_timeout,
            sync_hangs: false,
            is_slow: false,
            is_crowded: false,
            is_overdue: false,
        }
    }

    /// How long the disk may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// With less room than this in segments that are ready, another one is needed.
    pub fn room_min_bytes(&self) -> u64 {
        self.room_min_bytes
    }

    // ---- what follows from it ----

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

    /// What helps against that.
    pub fn fault_remedy(&self) -> Option<&'static str> {
        self.fault.as_ref().map(|fault| fault.remedy)
    }

    /// The error in place of an answer that waits for the disk.
    pub fn not_on_disk(&self) -> Error {
        Error::NotOnDisk { cause: self.fault().cloned().unwrap_or_else(|| SYNC_HANGS.into()) }
    }

    /// The same where a sync has failed.
    pub fn not_synced(&self) -> Error {
        Error::NotOnDisk { cause: printable(&self.no_sync) }
    }

    /// Whether something waits for the disk that it may not get.
    pub fn is_failing(&self) -> bool {
        self.is_overdue || self.fault.as_ref().is_some_and(|fault| fault.kind != FaultKind::Room)
    }

    /// Whether answers that wait for the disk are not coming for now.
    pub fn is_overdue(&self) -> bool {
        self.is_overdue
    }

    /// Whether frames could not be written, and wait in the log's buffer.
    #[inline]
    pub fn is_unwritten(&self) -> bool {
        self.unwritten.is_some()
    }

    /// Whether commands that change something wait for a sync in modes in which they do not otherwise.
    #[inline]
    pub fn holds_writers_up(&self) -> bool {
        self.is_slow || self.is_crowded
    }

    // ---- what is found out ----

    /// Allocates the next segment when little room is left.
    pub fn look_for_room(&mut self, log: &mut Log<OsDisk>) {
        if log.room_bytes() < self.room_min_bytes {
            let reserved = log.reserve();
            self.no_segment = reserved.err().or(self.no_segment.take());
        }
    }

    /// A segment was made ready, or could not be. Writes go on while there is room in the current one.
    pub fn note_segment(&mut self, failed: Option<wal::Error>) {
        if let Some(error) = failed.as_ref().filter(|_| self.no_segment.is_none()) {
            tracing::warn!(shard = self.shard, %error, "no segment could be made ready, trying again");
        }
        self.no_segment = failed;
    }

    /// Whether frames that could not be written wait for the next try.
    pub fn defers_writes(&self) -> bool {
        self.unwritten.as_ref().is_some_and(|(_, again_at)| Instant::now() < *again_at)
    }

    /// The frames in the log's buffer could not be written.
    pub fn note_unwritten(&mut self, error: wal::Error) {
        self.unwritten = Some((error, Instant::now() + WRITE_AGAIN));
    }

    /// The frames that could not be written are written.
    pub fn note_written(&mut self) {
        self.unwritten = None;
        self.is_overdue = false;
    }

    /// So many log files wait for a sync.
    pub fn note_unsynced_files(&mut self, count: usize) {
        self.is_crowded = count >= UNSYNCED_FILES_MAX;
    }

    /// A sync failed, which only a snapshot helps against.
    pub fn note_sync_failed(&mut self, error: String) {
        if self.no_sync != error {
            self.no_sync = error;
            self.fault = None; // To be told anew.
        }
    }

    /// A sync that is under way, or `has_ended`, was seen to take so long, where slow ones are to be waited for.
    pub fn note_speed(&mut self, seen: Option<Duration>, has_ended: bool) {
        let is_slow = seen.is_some_and(|seen| seen > SLOW_SYNC);
        if is_slow != self.is_slow && (is_slow || has_ended) {
            self.is_slow = is_slow;
            let shard = self.shard;
            if is_slow {
                tracing::warn!(
                    shard,
                    "a sync of the log takes longer than a second: writers wait for the disk"
                );
            } else {
                tracing::info!(shard, "syncs of the log are fast again: writers do not wait for them");
            }
        }
    }

    /// The sync that was under way has ended.
    pub fn note_sync_ended(&mut self, has_failed: bool) {
        (self.sync_hangs, self.is_overdue) = (false, false);
        self.is_slow &= !has_failed;
    }

    /// So much time counts since the last look at the clock. `hangs` tells whether the sync that is under way takes too
    /// long, `is_awaited` whether that is a fault. Returns whether a fault lasts too long of which the log cannot tell
    /// yet what becomes.
    pub fn watch(&mut self, passed: Duration, hangs: bool, is_awaited: bool, log: &Log<OsDisk>) -> bool {
        if let Some(fault) = &mut self.fault {
            fault.lasted += passed;
        }
        self.sync_hangs = hangs && is_awaited;
        self.assess(log);
        let lasts = self.fault.as_ref().is_some_and(|fault| fault.lasted > self.timeout);
        let fails = lasts && (log.needs_snapshot() || self.is_unwritten());
        self.is_overdue = hangs || fails;
        fails
    }

    /// Finds out whether writes are to be refused, and tells the log's readers when that changes.
    pub fn assess(&mut self, log: &Log<OsDisk>) {
        let displaced = log.displaced();
        let found: Option<(FaultKind, &dyn fmt::Display)> = if let Some(error) = &displaced {
            Some((FaultKind::Displaced, error))
        } else if log.needs_snapshot() {
            Some((FaultKind::Sync, &self.no_sync))
        } else if let Some((error, _)) = &self.unwritten {
            Some((FaultKind::Write, error))
        } else if self.sync_hangs {
            Some((FaultKind::Hang, &SYNC_HANGS))
        } else {
            let error = self.no_segment.as_ref().filter(|_| log.room_bytes() < self.room_min_bytes);
            error.map(|error| (FaultKind::Room, error as _))
        };
        if found.as_ref().map(|(kind, _)| *kind) == self.fault.as_ref().map(|fault| fault.kind) {
            return;
        }
        let fault = found.map(|(kind, error)| {
            let (cause, remedy) = (printable(&error.to_string()), self.remedy(kind));
            Fault { kind, lasted: Duration::ZERO, cause, remedy }
        });
        match &fault {
            Some(Fault { cause, remedy, .. }) => {
                tracing::error!(shard = self.shard, error = %cause, remedy = %remedy, "writes are refused");
            }
            None => tracing::info!(shard = self.shard, "writes are taken again"),
        }
        self.fault = fault;
    }

    /// What helps against a fault.
    fn remedy(&self, kind: FaultKind) -> &'static str {
        let error = match kind {
            FaultKind::Displaced => {
                return "put it back at its place, and they are taken again, or stop this server";
            }
            FaultKind::Hang => return "check the disk; they are taken again once it answers",
            FaultKind::Sync => return "check the disk; they are taken again once a snapshot is written",
            FaultKind::Write => self.unwritten.as_ref().map(|(error, _)| error),
            FaultKind::Room => self.no_segment.as_ref(),
        };
        match error {
            Some(error) if error.is_disk_full() => "free space on the disk, and they are taken again",
            Some(error) if error.is_out_of_files() => "raise the limit of open files (ulimit -n)",
            Some(error) if error.is_file_too_large() => {
                "raise the limit of the size of files (ulimit -f, LimitFSIZE= of systemd), or choose a smaller \
                 --wal-segment-size"
            }
            _ => "check the disk; they are taken again once it can be written",
        }
    }
}
