//! What a shard knows about the use of its keys.
//!
//! Every access is counted with the key itself, exactly (`entry::Usage`). Everything else here has a fixed size,
//! whatever the number of keys, and sees a sample: every access while there are few of them, one of
//! [`SAMPLED_ONE_OF`] beyond [`OBSERVED_A_SECOND`]; each observation counts for as many accesses as it stands for.
//!
//! It changes no key, and nothing of it is logged.

use crate::entry::Usage;
use crate::keyspace::{Found, Keyspace, Probe};

/// So many accesses of a second are all observed.
const OBSERVED_A_SECOND: u32 = 1 << 14;
/// Of the others, one of so many, on average.
const SAMPLED_ONE_OF: u32 = 32;

/// How the keys of a shard are used.
#[derive(Debug)]
pub struct Analytics {
    /// The times of usages count from here.
    epoch_ms: u64,
    now_ms: u64,
    now_s: u32,
    /// Accesses until the next one that is observed.
    countdown: u32,
    /// How many accesses the next observation stands for.
    weight: u32,
    /// The second that began last, and how many of its accesses are still all observed.
    budget: u32,
    random: u32,
}

/// What was done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hit,
    Miss,
    Write,
}

impl Analytics {
    /// Nothing counted yet.
    pub(crate) fn new(now_ms: u64) -> Self {
        Analytics {
            epoch_ms: now_ms,
            now_ms,
            now_s: 0,
            countdown: 1,
            weight: 1,
            budget: OBSERVED_A_SECOND,
            random: 0x9e37_79b9,
        }
    }

    /// The time of the accesses that follow.
    #[inline]
    pub(crate) fn set_time(&mut self, now_ms: u64) {
        if now_ms != self.now_ms {
            self.now_ms = now_ms;
            let now_s = now_ms.saturating_sub(self.epoch_ms) / 1000;
            if now_s as u32 != self.now_s {
                self.now_s = now_s as u32;
                self.budget = OBSERVED_A_SECOND;
            }
        }
    }

    /// A command has read a key, or would have.
    #[inline]
    pub(crate) fn on_read(&mut self, probe: Probe<'_>, found: Option<Found>, keyspace: &mut Keyspace) {
        let idle_s = found.map(|found| keyspace.count_access(found, false, self.now_s));
        if self.is_due() {
            self.observe(probe.key, probe.hash, Kind::Hit, idle_s, 0);
        }
    }

    /// A command is about to write a key that is there.
    #[inline]
    pub(crate) fn on_write(&mut self, key: &[u8], found: Found, value_len: usize, keyspace: &mut Keyspace) {
        let idle_s = keyspace.count_access(found, true, self.now_s);
        if self.is_due() {
            self.observe(key, found.hash, Kind::Write, Some(idle_s), value_len);
        }
    }

    /// A command is about to make a key. Returns its first count.
    #[inline]
    pub(crate) fn on_insert(&mut self, probe: Probe<'_>, value_len: usize) -> Usage {
        if self.is_due() {
            self.observe(probe.key, probe.hash, Kind::Write, None, value_len);
        }
        Usage::created(self.now_s)
    }

    /// The moment, in milliseconds since the Unix epoch, that a time of a usage means.
    pub(crate) fn unix_ms(&self, seconds: u32) -> u64 {
        self.epoch_ms + u64::from(seconds) * 1000
    }

    #[inline]
    fn is_due(&mut self) -> bool {
        self.countdown -= 1;
        self.countdown == 0
    }

    #[cold]
    #[inline(never)]
    fn observe(&mut self, _key: &[u8], _hash: u32, _kind: Kind, _idle_s: Option<u32>, _value_len: usize) {
        self.choose_next();
    }

    /// Chooses the next access that is observed.
    fn choose_next(&mut self) {
        if self.budget > 0 {
            self.budget -= 1;
            (self.countdown, self.weight) = (1, 1);
            return;
        }
        // Xorshift: a sample at equal distances would miss what happens at the same ones.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.countdown = 1 + self.random % (2 * SAMPLED_ONE_OF - 1);
        self.weight = SAMPLED_ONE_OF;
    }
}
