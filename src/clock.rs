//! The server's time: it begins with the wall clock at the first start on a data directory, and from then on goes by
//! what really elapses, over restarts too. TTLs run by it. How far the wall clock is ahead of it is watched,
//! since moments that clients name, and those that they are shown, follow the wall clock wherever it is set to.
//!
//! Clocks are read only here, and only by [`Reading::take`]; all else is told what they showed.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use shard::{Change, Changes, Clocks, Shard};
use wal::BootId;

/// A smaller change between the wall clock and the server's time is none: both are disciplined alike, so only what sets
/// the wall clock moves them against each other.
const STEP_MIN_US: i64 = 10_000;

/// A reading that took longer, since its thread was interrupted, says too little of how the clocks stand to each other.
const READING_MAX: Duration = Duration::from_millis(1);

/// So often a start tries to get a better one.
const READINGS_MAX: usize = 100;

/// What the clocks of the system show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Microseconds since the process started, without the time during which the machine was suspended.
    pub uptime_us: u64,
    /// Microseconds since the machine booted, with that time.
    pub booted_us: u64,
    /// Microseconds since the Unix epoch, by the wall clock.
    pub wall_us: u64,
}

impl Reading {
    /// Reads the clocks in a process that `started` then; `None` if that took too long.
    pub fn take(started: Instant) -> Option<Reading> {
        let before = started.elapsed();
        let (booted_us, wall_us) = (booted_us(), wall_clock_us());
        let is_quick = started.elapsed() - before <= READING_MAX;
        is_quick.then_some(Reading { uptime_us: before.as_micros() as u64, booted_us, wall_us })
    }

    /// Reads the clocks for a start, which cannot do without.
    pub fn take_at_start(started: Instant) -> Reading {
        (0..READINGS_MAX).find_map(|_| Reading::take(started)).unwrap_or_else(|| Reading {
            uptime_us: started.elapsed().as_micros() as u64,
            booted_us: booted_us(),
            wall_us: wall_clock_us(),
        })
    }
}

/// The server's time, and how far the wall clock is ahead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// See [`Clocks::boot`].
    boot: u64,
    /// How far the server's time is ahead of the time since the process started: it grows where the machine is
    /// suspended.
    ahead_us: u64,
    /// How long the machine had been up when the process started, and since then suspended.
    booted_before_us: u64,
    /// How far the wall clock is ahead of the server's time.
    wall_ahead_us: i64,
}

impl Clock {
    /// Goes on from what the log tells of the clocks, if it does: in the same boot by what has elapsed since, in
    /// another one by the wall clock, but never back. `boot` is the name of this boot, 0 if it has none.
    pub fn resume(last: Option<Clocks>, boot: u64, reading: Reading) -> Clock {
        let Reading { uptime_us, booted_us, wall_us } = reading;
        let now_us = match last {
            None => wall_us,
            Some(last) => {
                let same_boot = boot != 0 && boot == last.boot && booted_us / 1000 >= last.booted_ms;
                let (then_ms, now_us) =
                    if same_boot { (last.booted_ms, booted_us) } else { (last.wall_ms, wall_us) };
                let elapsed_us = now_us.saturating_sub(then_ms.saturating_mul(1000));
                last.now_ms.saturating_mul(1000).saturating_add(elapsed_us)
            }
        };
        let mut clock = Clock {
            boot,
            ahead_us: now_us.saturating_sub(uptime_us),
            booted_before_us: booted_us.saturating_sub(uptime_us),
            wall_ahead_us: 0,
        };
        clock.wall_ahead_us = clock.wall_ahead_us(reading);
        clock
    }

    /// The server's time, in milliseconds.
    #[inline]
    pub fn now_ms(&self, uptime_us: u64) -> u64 {
        (self.ahead_us + uptime_us) / 1000
    }

    /// How far the wall clock is ahead of it.
    pub fn wall_ahead_ms(&self) -> i64 {
        self.wall_ahead_us.div_euclid(1000)
    }

    /// The wall clock at a time of the server's, as it goes now, in milliseconds since the Unix epoch.
    pub fn unix_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.wall_ahead_ms())
    }

    /// What the clocks show, for the log.
    pub fn clocks(&self, uptime_us: u64) -> Clocks {
        let now_ms = self.now_ms(uptime_us);
        let booted_ms = (self.booted_before_us + uptime_us) / 1000;
        Clocks { now_ms, wall_ms: self.unix_ms(now_ms), boot: self.boot, booted_ms }
    }

    /// Whether a start that finds `last` in the log would come to the same time as one that finds what the clocks show
    /// now.
    pub fn is_told_by(&self, last: Clocks) -> bool {
        let moved_ms = last.wall_ahead_ms().abs_diff(self.wall_ahead_ms());
        last.boot == self.boot && moved_ms * 1000 < STEP_MIN_US.unsigned_abs()
    }

    /// Takes a time into account during which the machine was suspended. Returns the same clock with a wall clock that
    /// was set anew, if it was.
    pub fn observe(&mut self, reading: Reading) -> Option<Clock> {
        let suspended_us = reading.booted_us.saturating_sub(reading.uptime_us + self.booted_before_us);
        if suspended_us >= STEP_MIN_US.unsigned_abs() {
            self.booted_before_us += suspended_us;
            self.ahead_us += suspended_us;
        }
        let wall_ahead_us = self.wall_ahead_us(reading);
        let is_step = wall_ahead_us.abs_diff(self.wall_ahead_us) >= STEP_MIN_US.unsigned_abs();
        is_step.then_some(Clock { wall_ahead_us, ..*self })
    }

    fn wall_ahead_us(&self, reading: Reading) -> i64 {
        reading.wall_us.wrapping_sub(self.ahead_us + reading.uptime_us) as i64
    }
}

/// How many keys are removed at once before the wall clock is set back.
const EXPIRED_AT_ONCE_MAX: usize = 64;

/// The clock of one shard, and what its log tells of it.
#[derive(Debug)]
pub struct ShardClock {
    clock: Clock,
    /// What the log tells, and how many keys had expired by then.
    logged: Option<(Clocks, u64)>,
}

/// What became of a [`ShardClock`] with a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The wall clock goes as before.
    AsBefore,
    /// It was set, and by so much.
    Set {
        /// Backwards where it is negative.
        by_ms: i64,
    },
    /// It was set back, which counts once all is removed that is due.
    Later,
}

impl std::ops::Deref for ShardClock {
    type Target = Clock;

    fn deref(&self) -> &Clock {
        &self.clock
    }
}

impl ShardClock {
    /// The clock of a shard that is not in memory yet.
    pub fn new(clock: Clock) -> ShardClock {
        ShardClock { clock, logged: None }
    }

    /// The clock with which a shard begins that was read back.
    pub fn start(clock: Clock, uptime_us: u64, shard: &mut Shard) -> ShardClock {
        shard.start_counting(clock.now_ms(uptime_us));
        shard.set_wall_ahead(clock.wall_ahead_ms());
        ShardClock { clock, logged: shard.clocks().map(|clocks| (clocks, shard.expired_count())) }
    }

    /// Has the shard follow the wall clock, and notices where the machine was suspended.
    pub fn follow(&mut self, reading: Reading, shard: &mut Shard, changes: &mut Changes) -> Followed {
        let Some(set) = self.clock.observe(reading) else { return Followed::AsBefore };
        let by_ms = set.wall_ahead_ms() - self.clock.wall_ahead_ms();
        if by_ms < 0 {
            // What is due has to be gone, and the log has to say so, before it is not due any more.
            let now_ms = self.clock.now_ms(reading.uptime_us);
            if shard.expire(now_ms, EXPIRED_AT_ONCE_MAX) == EXPIRED_AT_ONCE_MAX {
                return Followed::Later;
            }
            self.log(reading.uptime_us, shard, changes);
        }
        self.clock = set;
        shard.set_wall_ahead(set.wall_ahead_ms());
        self.log(reading.uptime_us, shard, changes);
        Followed::Set { by_ms }
    }

    /// Puts what the clocks show into the log if a start could not tell it from what is there, or if keys have expired
    /// since.
    pub fn log(&mut self, uptime_us: u64, shard: &Shard, changes: &mut Changes) {
        let expired = shard.expired_count();
        let is_told = |(clocks, then)| self.clock.is_told_by(clocks) && expired == then;
        if !self.logged.is_some_and(is_told) {
            let clocks = self.clock.clocks(uptime_us);
            changes.push(&Change::Clocks(clocks));
            self.logged = Some((clocks, expired));
        }
    }
}

/// The wall clock, in microseconds since the Unix epoch; 0 before it.
pub fn wall_clock_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

fn booted_us() -> u64 {
    let since = clock_gettime(ClockId::Boottime);
    since.tv_sec as u64 * 1_000_000 + since.tv_nsec as u64 / 1000
}

/// The name of a boot in [`Clocks`]: the first half of its id, as Linux writes that; 0 where it is not known.
pub fn name_of_boot(id: Option<BootId>) -> u64 {
    let digits: String = id.iter().flat_map(|id| id.to_string().into_bytes()).map(char::from).collect();
    let digits: String = digits.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: u64 = 7;
    const SECOND: u64 = 1_000_000;
    const HOUR: u64 = 3600 * SECOND;
    const YEAR: u64 = 365 * 24 * HOUR;
    /// The wall clock when the server starts for the first time, after an hour of uptime of the machine.
    const START: Reading = Reading { uptime_us: 0, booted_us: HOUR, wall_us: 50 * YEAR };

    fn later(elapsed_us: u64, wall_us: u64) -> Reading {
        Reading { uptime_us: elapsed_us, booted_us: HOUR + elapsed_us, wall_us }
    }

    /// A process that starts now.
    fn restarted(reading: Reading) -> Reading {
        Reading { uptime_us: 0, ..reading }
    }

    fn first() -> Clock {
        Clock::resume(None, BOOT, START)
    }

    #[test]
    fn the_first_start_begins_with_the_wall_clock() {
        let mut clock = first();
        assert_eq!((clock.now_ms(0), clock.wall_ahead_ms()), (START.wall_us / 1000, 0));
        assert_eq!(clock.observe(later(HOUR, START.wall_us + HOUR)), None);
        assert_eq!(clock.now_ms(HOUR), (START.wall_us + HOUR) / 1000);
    }

    #[test]
    fn setting_the_wall_clock_moves_it_against_the_time_and_not_the_time() {
        let mut clock = first();
        for (elapsed, wall) in
            [(1, START.wall_us - HOUR), (2, START.wall_us + YEAR), (3, START.wall_us + 3 * SECOND)]
        {
            let reading = later(elapsed * SECOND, wall);
            let moved = clock.observe(reading).unwrap_or(clock);
            assert_eq!(moved.now_ms(reading.uptime_us), START.wall_us / 1000 + elapsed * 1000);
            assert_eq!(moved.clocks(reading.uptime_us).wall_ms, wall / 1000);
            clock = moved;
        }
        assert_eq!(clock, first(), "nothing stays of a glitch");
    }

    #[test]
    fn a_wall_clock_that_is_nearly_right_was_not_set() {
        for wall_us in [START.wall_us + SECOND - 9999, START.wall_us + SECOND + 9999] {
            assert_eq!(first().observe(later(SECOND, wall_us)), None);
        }
        for wall_us in [START.wall_us + SECOND - 10_000, START.wall_us + SECOND + 10_000] {
            assert!(first().observe(later(SECOND, wall_us)).is_some());
        }
    }

    #[test]
    fn time_goes_on_while_the_machine_is_suspended() {
        let mut clock = first();
        let resumed = Reading { uptime_us: SECOND, booted_us: 2 * HOUR, wall_us: START.wall_us + HOUR };
        assert_eq!(clock.observe(resumed), None);
        assert_eq!(clock.now_ms(SECOND), (START.wall_us + HOUR) / 1000);
        assert_eq!(clock.clocks(SECOND).booted_ms, 2 * HOUR / 1000);
    }

    #[test]
    fn a_restart_in_the_same_boot_goes_by_what_elapsed_whatever_the_wall_clock_shows() {
        let last = first().clocks(0);
        for wall_us in [0, START.wall_us - HOUR, START.wall_us + YEAR] {
            let clock = Clock::resume(Some(last), BOOT, restarted(later(5 * SECOND, wall_us)));
            assert_eq!(clock.now_ms(0), START.wall_us / 1000 + 5000);
            assert_eq!(clock.unix_ms(clock.now_ms(0)), wall_us / 1000);
            assert!(!clock.is_told_by(last));
        }
    }

    #[test]
    fn a_restart_in_another_boot_goes_by_the_wall_clock_and_never_back() {
        // The clock is a year ahead when the machine goes down.
        let glitch = first().observe(later(SECOND, START.wall_us + YEAR)).unwrap();
        let last = glitch.clocks(SECOND);
        let now_ms = |wall_us| {
            let booted = Reading { uptime_us: 0, booted_us: SECOND, wall_us };
            [Clock::resume(Some(last), BOOT + 1, booted), Clock::resume(Some(last), 0, booted)]
                .map(|it| it.now_ms(0))
        };
        assert_eq!(now_ms(START.wall_us + YEAR + HOUR), [last.now_ms + HOUR / 1000; 2]);
        assert_eq!(
            now_ms(START.wall_us + HOUR),
            [last.now_ms; 2],
            "it is set right while the machine is down"
        );
        // A machine whose clock began anew may have the name of an earlier boot; it has not its time.
        let booted = Reading { uptime_us: 0, booted_us: 1, wall_us: START.wall_us + YEAR + HOUR };
        assert_eq!(Clock::resume(Some(last), BOOT, booted).now_ms(0), last.now_ms + HOUR / 1000);
    }

    #[test]
    fn a_clock_from_before_the_epoch_does_no_harm() {
        let mut clock = Clock::resume(None, BOOT, Reading { uptime_us: SECOND, booted_us: HOUR, wall_us: 0 });
        assert_eq!(clock.unix_ms(clock.now_ms(SECOND)), 0);
        let right = clock.observe(later(2 * SECOND, START.wall_us));
        assert!(right.is_some_and(|right| right.unix_ms(right.now_ms(2 * SECOND)) == START.wall_us / 1000));
    }

    #[test]
    fn the_clocks_of_the_system_are_read() {
        let started = Instant::now();
        let (one, other) = (Reading::take_at_start(started), Reading::take_at_start(started));
        assert!(one.uptime_us <= other.uptime_us && one.booted_us <= other.booted_us);
        assert!(one.booted_us > 0 && one.wall_us > 0);
        assert!(name_of_boot(BootId::current()) != 0);
        let id = "01234567-89ab-cdef-0000-000000000001".parse().ok();
        assert_eq!((name_of_boot(id), name_of_boot(None)), (0x0123_4567_89ab_cdef, 0));
    }
}
