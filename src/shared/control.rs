//! What clients order for all workers together: pauses and monitoring.
//!
//! An order is a plain atomic; a worker that changes one of which workers keep a copy says so by [`Control::changed`], and
//! each worker looks at the version once a turn.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::Gauge;

/// How long `CLIENT PAUSE` is to last, and for which commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When it ends, in milliseconds from the start of the server.
    pub until_ms: u64,
    /// It holds for every command, not only for those that write.
    pub is_of_all: bool,
}

/// The orders of clients.
#[derive(Debug)]
pub struct Control {
    version: AtomicU64,
    /// 0 for no pause.
    pause_until_ms: AtomicU64,
    pause_is_of_all: AtomicBool,
    /// How many clients of each worker are shown the commands of all.
    monitors: Box<[Gauge]>,
    /// How many bytes each worker is to show them that others have sent it, and has not yet.
    fed_bytes: Box<[AtomicUsize]>,
    /// Whether there was too much of that.
    overrun: Box<[AtomicBool]>,
    /// Whether expired keys are removed that no client asks for.
    pub expires_actively: AtomicBool,
    /// The numbers of slow commands.
    pub slowlog_ids: Gauge,
}

impl Control {
    /// Nothing is ordered yet of these workers.
    pub fn new(workers: usize) -> Control {
        Control {
            version: AtomicU64::new(1),
            pause_until_ms: AtomicU64::new(0),
            pause_is_of_all: AtomicBool::new(false),
            monitors: (0..workers).map(|_| Gauge::default()).collect(),
            fed_bytes: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            overrun: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            expires_actively: AtomicBool::new(true),
            slowlog_ids: Gauge::default(),
        }
    }

    /// It is another one whenever something has changed of which workers keep a copy.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Something has changed: every worker looks at it with its next turn.
    pub fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Begins a pause, or makes the one that lasts longer and stricter: never shorter or milder.
    pub fn pause(&self, pause: Pause, now_ms: u64) {
        match self.pause_at(now_ms) {
            Some(before) => {
                self.pause_until_ms.store(pause.until_ms.max(before.until_ms), Ordering::Relaxed);
                self.pause_is_of_all.store(pause.is_of_all || before.is_of_all, Ordering::Relaxed);
            }
            None => {
                self.pause_until_ms.store(pause.until_ms, Ordering::Relaxed);
                self.pause_is_of_all.store(pause.is_of_all, Ordering::Relaxed);
            }
        }
        self.changed();
    }

    /// Ends the pause.
    pub fn unpause(&self) {
        self.pause_until_ms.store(0, Ordering::Relaxed);
        self.changed();
    }

    /// The pause, if there is one at this time.
    pub fn pause_at(&self, now_ms: u64) -> Option<Pause> {
        let until_ms = self.pause_until_ms.load(Ordering::Relaxed);
        let is_of_all = self.pause_is_of_all.load(Ordering::Relaxed);
        (until_ms > now_ms).then_some(Pause { until_ms, is_of_all })
    }

    /// One client more of this worker, or one less, is shown all commands.
    pub fn monitors(&self, worker: usize, one_more: bool) {
        match one_more {
            true => self.monitors[worker].add(),
            false => self.monitors[worker].remove(),
        }
        self.changed();
    }

    /// So many bytes more are sent to this worker to be shown. Returns how many it has not shown yet.
    pub fn note_fed(&self, worker: usize, bytes: usize) -> usize {
        self.fed_bytes[worker].fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// This worker has shown so many bytes.
    pub fn note_shown(&self, worker: usize, bytes: usize) {
        self.fed_bytes[worker].fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Something was not sent to this worker, since it has too much to show.
    pub fn note_overrun(&self, worker: usize) {
        self.overrun[worker].store(true, Ordering::Relaxed);
    }

    /// Whether something was not sent to this worker since this was asked last.
    pub fn take_overrun(&self, worker: usize) -> bool {
        self.overrun[worker].swap(false, Ordering::Relaxed)
    }

    /// The workers with clients that are shown all commands.
    pub fn monitoring_workers(&self) -> impl Iterator<Item = usize> {
        self.monitors.iter().enumerate().filter(|(_, clients)| clients.count() > 0).map(|(worker, _)| worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_while_it_lasts_and_begins_anew_behind_its_end() {
        let control = Control::new(1);
        let of = |until_ms, is_of_all| Pause { until_ms, is_of_all };
        assert_eq!(control.pause_at(0), None);
        control.pause(of(100, true), 10);
        control.pause(of(50, false), 20);
        assert_eq!(control.pause_at(99), Some(of(100, true)));
        control.pause(of(200, false), 30);
        assert_eq!(control.pause_at(150), Some(of(200, true)));
        assert_eq!(control.pause_at(200), None);
        control.pause(of(300, false), 250);
        assert_eq!(control.pause_at(299), Some(of(300, false)));
        control.unpause();
        assert_eq!(control.pause_at(0), None);
    }
}
