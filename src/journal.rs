//! One shard's way to the disk: the changes of a turn, the frames of the log, their syncing, and the answers that
//! wait for it.
//!
//! In the mode `always` an answer leaves when the frames that it depends on are on disk: those of its own changes,
//! or, for a command that reads, the last ones that changed its keys. Answers that depend on nothing unsynced do
//! not wait. While one sync is under way the frames of later turns gather, and the next sync serves them all.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;
use shard::{Changes, Reply, Request};
use wal::{Kind, Log, OsDisk, SyncTicket};

use crate::config::SyncMode;
use crate::mail::{Answer, Post, Token};
use crate::net::{Net, SyncOf};

/// A turn's changes go into several frames past this size: a frame holds less than 2 GiB, and one request may
/// add three quarters of that.
const FRAME_BYTES: usize = 64 * 1024 * 1024;

/// The memory for changes is kept for reuse up to this size.
const CHANGES_KEPT_BYTES: usize = 64 * 1024;

/// The log of one shard, and who waits for it.
pub struct Journal {
    /// The log.
    pub log: Log<OsDisk>,
    /// What was changed since the last frame.
    pub changes: Changes,
    mode: SyncMode,
    unsynced: Unsynced,
    /// Answers that wait, by the frame they wait for.
    held: VecDeque<Held>,
    /// The sync that is under way, and how many of its files are not done.
    sync: Option<SyncTicket<OsDisk>>,
    files_left: usize,
    failed: Option<std::io::Error>,
}

struct Held {
    seq: u64,
    origin: usize,
    token: Token,
    answer: HeldAnswer,
}

enum HeldAnswer {
    Rendered(Vec<u8>),
    Whole(Answer),
}

/// Which frame last changed a key, for frames that are not on disk. Keys are known by their hash: that two share one
/// makes a reader wait for nothing, at worst.
struct Unsynced {
    hasher: RandomState,
    frame_of: HashMap<u64, u64, RandomState>,
    in_order: VecDeque<(u64, u64)>,
    /// The frame that last changed every key.
    of_all: u64,
}

impl Journal {
    /// A journal over a recovered log.
    pub fn new(log: Log<OsDisk>, mode: SyncMode) -> Journal {
        let unsynced = Unsynced {
            hasher: RandomState::new(),
            frame_of: HashMap::default(),
            in_order: VecDeque::new(),
            of_all: 0,
        };
        Journal {
            log,
            changes: Changes::default(),
            mode,
            unsynced,
            held: VecDeque::new(),
            sync: None,
            files_left: 0,
            failed: None,
        }
    }

    /// Puts the changes so far into a frame, if there are any.
    pub fn seal(&mut self) {
        if !self.changes.is_empty() {
            self.append(Kind::Batch);
        }
    }

    /// Puts the changes so far into a frame of this kind, even if there are none.
    pub fn append(&mut self, kind: Kind<'_>) {
        self.log.append(kind, self.changes.count() as u32, self.changes.bytes());
        self.changes.clear(CHANGES_KEPT_BYTES);
    }

    /// Begins a new frame when this one has become large.
    #[inline]
    pub fn bound_frame(&mut self) {
        if self.changes.bytes().len() > FRAME_BYTES {
            self.seal();
        }
    }

    /// Hands the turn's frames to the kernel, and in the mode `always` begins to sync them.
    ///
    /// # Errors
    /// [`wal::Error::Io`], or that of a sync which failed before, under a snapshot; none of the turn's answers may
    /// leave.
    pub fn write(&mut self, net: &mut Net) -> Result<(), wal::Error> {
        self.seal();
        if self.log.needs_snapshot() {
            self.log.sync()?;
        }
        if self.log.buffered_bytes() > 0 {
            self.log.flush()?;
        }
        if self.mode == SyncMode::Always && self.log.written_seq() > self.log.durable_seq() {
            self.begin_sync(net);
        }
        Ok(())
    }

    /// Which frame an answer to this request depends on, just after it ran; 0 when it may leave with this turn.
    /// `changed` tells whether the request changed anything.
    #[inline]
    pub fn frame_behind(&mut self, request: &Request<'_>, changed: bool) -> u64 {
        if self.mode != SyncMode::Always {
            return 0;
        }
        let next_seq = self.log.next_seq();
        match (changed, request.command.keys.any) {
            (true, _) => {
                self.unsynced.note(request, next_seq);
                next_seq
            }
            (false, true) => self.unsynced.last_of(request),
            (false, false) => self.frame_behind_all(),
        }
    }

    /// The frame that an answer about the whole shard depends on.
    pub fn frame_behind_all(&self) -> u64 {
        match self.mode {
            SyncMode::Always if self.changes.is_empty() => self.log.next_seq() - 1,
            SyncMode::Always => self.log.next_seq(),
            SyncMode::EverySecond | SyncMode::No => 0,
        }
    }

    /// Whether an answer that depends on this frame has to wait for a sync.
    pub fn holds_back(&self, seq: u64) -> bool {
        seq > self.log.durable_seq()
    }

    /// Gives an answer, as soon as the frame that it depends on allows.
    pub fn answer(&mut self, seq: u64, origin: usize, token: Token, answer: Answer, post: &mut Post) {
        if self.holds_back(seq) {
            self.held.push_back(Held { seq, origin, token, answer: HeldAnswer::Whole(answer) });
        } else {
            post.to(origin).answer(token, answer);
        }
    }

    /// Gives a rendered answer, as soon as the frame that it depends on allows.
    pub fn answer_bytes(
        &mut self,
        seq: u64,
        origin: usize,
        token: Token,
        post: &mut Post,
        render: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.holds_back(seq) {
            let mut bytes = Vec::new();
            render(&mut bytes);
            self.held.push_back(Held { seq, origin, token, answer: HeldAnswer::Rendered(bytes) });
        } else {
            post.to(origin).answer_bytes(token, render);
        }
    }

    /// Answers `Ok` when everything so far is on disk, in any mode.
    pub fn answer_synced(&mut self, origin: usize, token: Token, net: &mut Net, post: &mut Post) {
        let seq = self.log.written_seq();
        self.answer(seq, origin, token, Answer::Part(Reply::Ok), post);
        self.begin_sync(net);
    }

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
        self.sync = Some(ticket);
    }

    /// Takes the end of the sync of one file; after the last one, lets the answers go that waited for it.
    ///
    /// # Errors
    /// That of the file: what was not on disk may be lost, whatever later syncs say.
    pub fn on_synced(
        &mut self,
        result: std::io::Result<()>,
        net: &mut Net,
        post: &mut Post,
    ) -> Result<(), std::io::Error> {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
        self.files_left -= 1;
        if self.files_left > 0 {
            return Ok(());
        }
        let ticket = self.sync.take().expect("a sync was begun");
        if let Some(error) = self.failed.take() {
            self.log.fail_sync(&ticket);
            return Err(error);
        }
        let durable = self.log.finish_sync(&ticket);
        self.unsynced.forget(durable);
        while let Some(Held { origin, token, answer, .. }) =
            self.held.pop_front_if(|held| held.seq <= durable)
        {
            match answer {
                HeldAnswer::Rendered(bytes) => {
                    post.to(origin).answer_bytes(token, |out| out.extend_from_slice(&bytes));
                }
                HeldAnswer::Whole(answer) => post.to(origin).answer(token, answer),
            }
        }
        if self.mode == SyncMode::Always || !self.held.is_empty() {
            self.begin_sync(net);
        }
        Ok(())
    }
}

impl Unsynced {
    fn note(&mut self, request: &Request<'_>, seq: u64) {
        if !request.command.keys.any {
            self.of_all = seq;
        }
        for key in request.keys() {
            let hash = self.hasher.hash_one(key);
            self.frame_of.insert(hash, seq);
            self.in_order.push_back((seq, hash));
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
