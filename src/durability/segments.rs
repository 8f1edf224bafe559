//! When the next segment of a log is made ready, and whether it is filled with zeros.

use wal::{Log, OsDisk, Preparation};

/// How long the next try to make a segment ready waits after one that failed: a full disk stays full for a while.
const PREPARE_AGAIN_MS: u64 = 1000;

/// Unless each answer waits for a sync, a segment is filled with zeros only where the log grows by fewer bytes in a
/// millisecond, about 64 MB in a second: above, what it costs to write everything twice is more than what it saves.
const FILLED_BYTES_A_MS_MAX: u64 = 64 * 1024;

/// The segments that are made ready in advance, one after the other.
pub(super) struct Segments {
    is_preparing: bool,
    next_ms: u64,
    /// When the last one was begun, and its size in bytes.
    last: Option<(u64, u64)>,
    /// They are filled with zeros however soon they are used up.
    always_fills: bool,
}

impl Segments {
    pub fn new(always_fills: bool) -> Segments {
        Segments { is_preparing: false, next_ms: 0, last: None, always_fills }
    }

    /// The work that makes the next one ready, when that is due.
    pub fn next(&mut self, uptime_ms: u64, log: &mut Log<OsDisk>) -> Option<Preparation<OsDisk>> {
        if self.is_preparing || uptime_ms < self.next_ms {
            return None;
        }
        let preparation = log.prepare()?;
        let grew_fast =
            self.last.is_some_and(|(since_ms, bytes)| bytes / FILLED_BYTES_A_MS_MAX > uptime_ms - since_ms);
        self.is_preparing = true;
        self.last = Some((uptime_ms, preparation.file_bytes()));
        self.next_ms = uptime_ms + PREPARE_AGAIN_MS;
        let unfilled = grew_fast && !self.always_fills;
        Some(if unfilled { preparation.unfilled() } else { preparation })
    }

    /// That work has ended.
    pub fn on_prepared(&mut self, is_ready: bool) {
        self.is_preparing = false;
        if is_ready {
            self.next_ms = 0;
        }
    }
}
