//! In the mode `always`: how many clients write to a worker at the same time, each with one command, and how long a
//! sync waits for their next commands.

use std::time::{Duration, Instant};

/// How long after a sync the next one waits for the commands of those clients that are expected to send one, for each
/// of them and at most, and which part of them is enough.
const DELAY_PER_SIBLING: Duration = Duration::from_micros(1);
const COMMIT_DELAY_MAX: Duration = Duration::from_millis(1);
const SIBLINGS_PERCENT: usize = 90;

/// So long the clients are counted before the count is taken for what is to be expected.
const COUNT_US: u64 = 10_000;

/// The clients of the last while.
#[derive(Default)]
pub struct CommitSiblings {
    /// Which count this is, and when it began. Each client knows the last one that it was counted in.
    count: u32,
    began_us: u64,
    clients: usize,
    /// How many commands came alone, and how many behind others that were not answered yet.
    alone: usize,
    behind: usize,
    expected: usize,
}

impl CommitSiblings {
    /// A command waits for a sync. `counted_in` is its client's, `is_alone` tells whether it waits for nothing else.
    pub fn note(&mut self, counted_in: &mut u32, is_alone: bool) {
        if is_alone {
            self.alone += 1;
        } else {
            self.behind += 1;
        }
        if std::mem::replace(counted_in, self.count) != self.count {
            self.clients += 1;
        }
    }

    /// How many clients are expected to send a command soon; none where they send pipelines.
    pub fn expected(&mut self, now_us: u64) -> usize {
        if now_us >= self.began_us + COUNT_US {
            self.expected = if self.behind < self.alone { self.clients } else { 0 };
            let count = self.count.wrapping_add(1);
            *self = CommitSiblings {
                count,
                began_us: now_us,
                expected: self.expected,
                ..CommitSiblings::default()
            };
        }
        self.expected
    }
}

/// Until when a sync waits for the commands of clients that are about to send one.
#[derive(Debug, Default)]
pub struct CommitDelay {
    siblings: usize,
    /// For how long after a sync the next one waits.
    delay: Duration,
    /// Until when the next sync waits; `None` before the first sync has ended.
    until: Option<Instant>,
}

impl CommitDelay {
    /// So many clients, each with one command at a time, are expected to change something soon.
    pub fn expect(&mut self, siblings: usize) {
        self.siblings = siblings;
        self.delay = (DELAY_PER_SIBLING * siblings as u32).min(COMMIT_DELAY_MAX);
    }

    /// A sync has ended.
    pub fn begin(&mut self, now: Instant) {
        self.until = Some(now + self.delay);
    }

    /// How many more commands are waited for when so many have come; `None` when these are enough.
    pub fn awaited(&self, come: usize) -> Option<usize> {
        (self.siblings * SIBLINGS_PERCENT / 100).checked_sub(come).filter(|awaited| *awaited > 0)
    }

    /// How much longer they are waited for.
    pub fn left(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// From the next sync on it takes so long.
    #[cfg(test)]
    pub fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// It ends so much earlier or later.
    #[cfg(test)]
    pub fn move_end(&mut self, change: impl FnOnce(Instant) -> Instant) {
        self.until = self.until.map(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_counts_once_and_those_with_pipelines_do_not() {
        let (mut siblings, mut counted_in) = (CommitSiblings::default(), [0; 5]);
        assert_eq!(siblings.expected(COUNT_US), 0);
        for round in 0..3 {
            counted_in.iter_mut().take(4 - round).for_each(|it| siblings.note(it, true));
        }
        siblings.note(&mut counted_in[4], true);
        siblings.note(&mut counted_in[4], false);
        assert_eq!(siblings.expected(2 * COUNT_US - 1), 0, "the count is not over");
        assert_eq!(siblings.expected(2 * COUNT_US), 5);
        siblings.note(&mut counted_in[0], true);
        (0..15).for_each(|_| siblings.note(&mut counted_in[0], false));
        assert_eq!(siblings.expected(2 * COUNT_US + 1), 5);
        assert_eq!(siblings.expected(3 * COUNT_US), 0, "a pipeline");
        siblings.note(&mut counted_in[3], true);
        assert_eq!(siblings.expected(9 * COUNT_US), 1);
        assert_eq!(siblings.expected(10 * COUNT_US), 0, "no client comes any more");
    }
}
