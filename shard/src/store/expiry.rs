//! Which keys expire when: an exact index, so that expiring never looks at a key that is not due.
//!
//! It holds pairs of a deadline and a key's hash, in order. One pair stands for every key with that hash and
//! that deadline: the caller that takes a deadline from a key looks whether another such key remains. The index never
//! holds more pairs than there are keys with a deadline, and knows no key.

use std::collections::BTreeSet;

use crate::clock::BY_WALL_CLOCK;

/// A deadline and the hash of a key that has it. Three words of four bytes: no byte is lost to alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    deadline_high: u32,
    deadline_low: u32,
    hash: u32,
}

impl Due {
    fn new(deadline_ms: u64, hash: u32) -> Self {
        Due { deadline_high: (deadline_ms >> 32) as u32, deadline_low: deadline_ms as u32, hash }
    }

    fn deadline_ms(self) -> u64 {
        u64::from(self.deadline_high) << 32 | u64::from(self.deadline_low)
    }
}

/// The deadlines of a keyspace.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    dues: BTreeSet<Due>,
    /// The sums of the deadlines by the server's time and by the wall clock, and how many there are of the latter.
    sums_ms: [u128; 2],
    by_wall_count: usize,
}

impl Expiry {
    /// Notes that a key with this hash has this deadline.
    pub(crate) fn insert(&mut self, deadline_ms: u64, hash: u32) {
        if self.dues.insert(Due::new(deadline_ms, hash)) {
            let by_wall = deadline_ms & BY_WALL_CLOCK != 0;
            self.sums_ms[usize::from(by_wall)] += u128::from(deadline_ms & !BY_WALL_CLOCK);
            self.by_wall_count += usize::from(by_wall);
        }
    }

    /// Notes that no key with this hash has this deadline any more.
    pub(crate) fn remove(&mut self, deadline_ms: u64, hash: u32) {
        if self.dues.remove(&Due::new(deadline_ms, hash)) {
            let by_wall = deadline_ms & BY_WALL_CLOCK != 0;
            self.sums_ms[usize::from(by_wall)] -= u128::from(deadline_ms & !BY_WALL_CLOCK);
            self.by_wall_count -= usize::from(by_wall);
        }
    }

    /// The sum of the times until the deadlines, while the server's time and the wall clock show these.
    pub(crate) fn time_left_ms(&self, now_ms: u64, wall_ms: u64) -> u128 {
        let left = |sum_ms: u128, count: usize, now_ms: u64| {
            sum_ms.saturating_sub(count as u128 * u128::from(now_ms))
        };
        left(self.sums_ms[0], self.dues.len() - self.by_wall_count, now_ms)
            + left(self.sums_ms[1], self.by_wall_count, wall_ms)
    }

    /// The earliest deadline by the server's time and the earliest by the wall clock, and the hash of a key that has
    /// it.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = (u64, u32)> {
        let first = self.dues.first().filter(|due| due.deadline_ms() < BY_WALL_CLOCK);
        let first_by_wall = self.dues.range(Due::new(BY_WALL_CLOCK, 0)..).next();
        first.into_iter().chain(first_by_wall).map(|due| (due.deadline_ms(), due.hash))
    }

    /// Deadlines that have come while the server's time and the wall clock show these, and the hash of a key that
    /// has it: first those by the server's time, of each kind the earliest first.
    pub(crate) fn due(&self, now_ms: u64, wall_ms: u64) -> impl Iterator<Item = (u64, u32)> {
        let by_server =
            self.dues.iter().take_while(move |due| due.deadline_ms() <= now_ms.min(!BY_WALL_CLOCK));
        let by_wall = std::iter::once_with(move || {
            let wall = BY_WALL_CLOCK | wall_ms.min(!BY_WALL_CLOCK);
            self.dues.range(Due::new(BY_WALL_CLOCK, 0)..=Due::new(wall, u32::MAX))
        });
        by_server.chain(by_wall.flatten()).map(|due| (due.deadline_ms(), due.hash))
    }

    /// The number of pairs.
    pub(crate) fn len(&self) -> usize {
        self.dues.len()
    }

    /// About the memory that the index holds: the nodes of a B-tree are three quarters full.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.dues.len() * (size_of::<Due>() + size_of::<Due>() / 2)
    }

    /// Gives back a bounded part of the memory of an index that is not used any more; whether some is left.
    pub(crate) fn dismantle(&mut self) -> bool {
        const DUES_A_STEP: usize = 64;
        (0..DUES_A_STEP).all(|_| self.dues.pop_first().is_some())
    }
}
