//! What time it is in a turn, and what a turn hands to those that work in it.

use std::time::{Duration, Instant};

use shard::Shard;

use crate::clock::{Clock, ShardClock};
use crate::mesh::Mesh;
use crate::metrics::histogram::Histogram;
use crate::net::Net;
use crate::shared::Shared;

/// How often a worker looks for what is due by the clock, in milliseconds.
pub(super) const TICK_MS: u64 = 100;

/// How often a shard takes note of what is found out over time, in milliseconds.
const NOTE_MS: u64 = 1000;

/// The time of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    /// The number of the turn, from 1 on.
    pub turn: u64,
    /// The server's time, which never goes back.
    pub now_ms: u64,
    /// Milliseconds from the start of the server: what happens at intervals goes by it.
    pub uptime_ms: u64,
    /// The same in microseconds.
    pub uptime_us: u64,
}

/// What a turn hands to those that work in it.
pub(super) struct Turn<'a> {
    pub now: Now,
    pub shared: &'a Shared,
    pub clock: &'a ShardClock,
    pub net: &'a mut Net,
    pub mesh: &'a mut Mesh,
}

/// What is due at a tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// Expired keys are to be removed.
    pub expiry: bool,
    /// A second has passed, in which requests took so long, if there were any.
    pub second: Option<Option<f64>>,
}

/// The clock of a worker: the time of its turns, and what is due by it.
pub(super) struct TurnClock {
    started: Instant,
    shard_clock: ShardClock,
    now: Now,
    /// The last turn found something to do.
    progressed: bool,
    times: TurnTimes,
    turns: Histogram,
    next_tick_ms: u64,
    next_second_ms: u64,
    next_expiry_ms: u64,
    expiry_interval_ms: u64,
}

impl TurnClock {
    /// The clock of a server that started at this time, before anything is read back.
    pub(super) fn new(started: Instant, clock: Clock, expiry_interval: Duration) -> TurnClock {
        TurnClock {
            started,
            shard_clock: ShardClock::new(clock),
            now: Now::default(),
            progressed: false,
            times: TurnTimes::default(),
            turns: Histogram::default(),
            next_tick_ms: 0,
            next_second_ms: 0,
            next_expiry_ms: 0,
            expiry_interval_ms: expiry_interval.as_millis() as u64,
        }
    }

    /// Goes on as the clock of a shard that was read back.
    pub(super) fn resume(&mut self, clock: Clock, shard: &mut Shard) {
        self.shard_clock = ShardClock::start(clock, self.now.uptime_us, shard);
        self.now.now_ms = self.shard_clock.now_ms(self.now.uptime_us);
    }

    /// Begins a turn. Returns when it begins.
    #[inline]
    pub(super) fn begin_turn(&mut self) -> Instant {
        let began = Instant::now();
        let uptime_us = (began - self.started).as_micros() as u64;
        if self.progressed {
            // The thread has not slept since: the clock need not be read twice a turn.
            let us = uptime_us - self.now.uptime_us;
            self.times.add(us);
            self.turns.record(Duration::from_micros(us));
        }
        self.now = Now {
            turn: self.now.turn + 1,
            now_ms: self.shard_clock.now_ms(uptime_us),
            uptime_ms: uptime_us / 1000,
            uptime_us,
        };
        began
    }

    /// Ends the turn; whether it found anything to do.
    #[inline]
    pub(super) fn end_turn(&mut self, progressed: bool) {
        self.progressed = progressed;
    }

    #[inline]
    pub(super) fn now(&self) -> Now {
        self.now
    }

    /// The turns that found something to do.
    pub(super) fn turns(&self) -> &Histogram {
        &self.turns
    }

    pub(super) fn of_shard(&self) -> &ShardClock {
        &self.shard_clock
    }

    pub(super) fn of_shard_mut(&mut self) -> &mut ShardClock {
        &mut self.shard_clock
    }

    #[inline]
    pub(super) fn is_tick_due(&self) -> bool {
        self.now.uptime_ms >= self.next_ms()
    }

    fn next_ms(&self) -> u64 {
        self.next_tick_ms.min(self.next_expiry_ms)
    }

    /// How long until the next tick, from the begin of this turn on.
    pub(super) fn until_tick(&self) -> Duration {
        Duration::from_millis(self.next_ms().saturating_sub(self.now.uptime_ms).max(1))
    }

    /// What is due at this tick.
    pub(super) fn tick(&mut self) -> Due {
        let uptime_ms = self.now.uptime_ms;
        self.next_tick_ms = uptime_ms + TICK_MS;
        let is_due = |next_ms: &mut u64, interval_ms: u64| {
            let is_due = uptime_ms >= *next_ms;
            if is_due {
                *next_ms = uptime_ms + interval_ms;
            }
            is_due
        };
        let expiry = is_due(&mut self.next_expiry_ms, self.expiry_interval_ms);
        let second = is_due(&mut self.next_second_ms, NOTE_MS);
        Due { expiry, second: second.then(|| std::mem::take(&mut self.times).typical_us()) }
    }

    /// Lets time pass that does not, and no further second by itself.
    #[cfg(test)]
    pub(super) fn pass(&mut self, ms: u64) {
        self.started -= Duration::from_millis(ms);
        self.now.uptime_ms += ms;
        self.now.uptime_us += 1000 * ms;
        self.next_second_ms = u64::MAX;
    }
}

/// A turn that takes longer is told in the log where that is at the level `debug`.
const LONG_TURN: Duration = Duration::from_millis(5);

/// Finds out where the time of a long turn went. It reads the clock only where the log is to tell of it.
pub(super) struct Trace {
    /// When the turn, and when its present part began.
    began: Option<(Instant, Instant)>,
    parts: Vec<(&'static str, Duration)>,
}

impl Trace {
    #[inline]
    pub(super) fn begin() -> Trace {
        let is_told = tracing::enabled!(tracing::Level::DEBUG);
        let began = is_told.then(Instant::now);
        Trace { began: began.map(|began| (began, began)), parts: Vec::new() }
    }

    /// Ends a part of the turn.
    #[inline]
    pub(super) fn end_part(&mut self, name: &'static str) {
        if let Some((_, since)) = &mut self.began {
            let now = Instant::now();
            self.parts.push((name, now - std::mem::replace(since, now)));
        }
    }

    /// Ends the turn.
    #[inline]
    pub(super) fn end(self, shard: usize) {
        if let Some((began, end)) = self.began
            && end - began > LONG_TURN
        {
            let us = (end - began).as_micros() as u64;
            let parts = self.parts.iter().map(|(name, took)| format!("{name}={}", took.as_micros()));
            tracing::debug!(shard, us, parts = parts.collect::<Vec<_>>().join(" "), "a long turn");
        }
    }
}

/// How long turns took that found something to do.
#[derive(Default)]
struct TurnTimes {
    sum_us: u64,
    sum_of_squares: u64,
}

impl TurnTimes {
    fn add(&mut self, us: u64) {
        self.sum_us += us;
        self.sum_of_squares = self.sum_of_squares.saturating_add(us.saturating_mul(us));
    }

    /// The length of the turn into which a moment of busy time falls, on average, in microseconds: about how long
    /// requests take. A mean over the turns would hide a few that are long behind many that are short.
    fn typical_us(&self) -> Option<f64> {
        (self.sum_us > 0).then(|| self.sum_of_squares as f64 / self.sum_us as f64)
    }
}
