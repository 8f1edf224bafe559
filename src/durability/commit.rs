//! A sync of the log while it is under way. Never when it begins, nor what follows from its end.

use std::io;
use std::time::{Duration, Instant};

use wal::{OsDisk, SyncTicket};

use crate::metrics::histogram::Histogram;
use crate::net::{Net, SyncOf};

/// The sync that is under way, if one is: there is one at a time.
#[derive(Default)]
pub(super) struct Commit {
    ticket: Option<SyncTicket<OsDisk>>,
    /// How many of its files are not done.
    files_left: usize,
    /// For how long it was seen to be under way, each time the worker looked at the clock: time that passed in a long
    /// turn, or while the process was not run, says nothing of the disk. `None` before the first look.
    seen: Option<Duration>,
    /// Why the first file failed that did.
    failed: Option<io::Error>,
    /// When it began.
    began: Option<Instant>,
    /// How long syncs took that have ended, and how many of them failed.
    durations: Histogram,
    failures: u64,
}

/// A sync that has ended.
pub(super) struct Ended {
    pub ticket: SyncTicket<OsDisk>,
    pub result: io::Result<()>,
    /// For how long it was seen to be under way.
    pub seen: Option<Duration>,
}

impl Commit {
    /// How long syncs took that have ended, and how many of them failed.
    pub fn counts(&self) -> (&Histogram, u64) {
        (&self.durations, self.failures)
    }

    pub fn is_under_way(&self) -> bool {
        self.ticket.is_some()
    }

    /// Whether one is under way that was not seen to last longer than this.
    pub fn lasts_at_most(&self, limit: Duration) -> bool {
        self.is_under_way() && self.seen.is_none_or(|seen| seen <= limit)
    }

    /// For how long the one that is under way was seen to be.
    pub fn seen(&self) -> Option<Duration> {
        self.seen.filter(|_| self.is_under_way())
    }

    /// Hands what is to be synced to the network, which tells the end of each file.
    pub fn begin(&mut self, ticket: SyncTicket<OsDisk>, net: &mut Net) {
        for file in ticket.files() {
            net.sync(file.clone(), SyncOf::Data);
        }
        if let Some(directory) = ticket.directory() {
            net.sync(directory.clone(), SyncOf::Everything);
        }
        self.files_left = ticket.files().len() + usize::from(ticket.directory().is_some());
        (self.ticket, self.seen, self.began) = (Some(ticket), None, Some(Instant::now()));
    }

    /// So much time counts since the last look at the clock.
    pub fn watch(&mut self, passed: Duration) {
        if self.is_under_way() {
            self.seen = Some(self.seen.map_or(Duration::ZERO, |seen| seen + passed));
        }
    }

    /// Takes the end of the sync of one file. Returns the whole with the last one.
    pub fn on_file_synced(&mut self, result: io::Result<()>) -> Option<Ended> {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
        self.files_left -= 1;
        if self.files_left > 0 {
            return None;
        }
        let ticket = self.ticket.take().expect("a sync was begun");
        self.durations.record(self.began.take().map_or(Duration::ZERO, |began| began.elapsed()));
        self.failures += u64::from(self.failed.is_some());
        Some(Ended { ticket, result: self.failed.take().map_or(Ok(()), Err), seen: self.seen })
    }

    /// How many files of the one that is under way are not synced.
    #[cfg(test)]
    pub fn files_left(&self) -> usize {
        self.files_left
    }
}
