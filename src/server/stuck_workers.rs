//! Workers that do not come to the end of a turn, as the service manager's watchdog has to know of them: only a restart
//! helps there. What is right to wait is none of them.
//!
//! - A worker that waits for its **disk** does what it is to do: its clients are told (`worker/watchdog.rs`), and a
//!   server that is started again would wait for the same disk.
//! - A worker that **gets no CPU**, or is stopped by a debugger, would get none after a restart either.
//! - A worker that **computes** in one turn for longer than the watchdog's period never ends it. No turn that is in order
//!   comes near that.
//! - A worker that **waits for another thread** in the middle of a turn, for as long, waits for ever: while it has nothing
//!   to do it takes a turn with each tick.

use std::fmt;
use std::time::Duration;

use crate::shared::Shared;

/// System calls in which a thread waits for another thread, an event or the time, and not for a disk.
const WAITS: [i64; 7] = [
    libc::SYS_futex,
    libc::SYS_io_uring_enter,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall, // One of these, after the process was stopped.
];

/// Those that other processors do not have.
#[cfg(target_arch = "x86_64")]
const OLD_WAITS: [i64; 2] = [libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const OLD_WAITS: [i64; 0] = [];

/// What a thread does, as the system shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Activity {
    /// The CPU time that it has used.
    cpu: Duration,
    /// It waits in one of the system calls of [`WAITS`].
    waits: bool,
}

impl Activity {
    /// That of a thread of this process. What the system does not tell is taken to be in order.
    fn of(thread: i32) -> Activity {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        // The fields stand behind the thread's name, which is in parentheses; utime and stime are the 14th and 15th of all.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let cpu = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
        let number = call.split_whitespace().next().and_then(|number| number.parse().ok());
        Activity { cpu, waits: number.is_some_and(|it| WAITS.contains(&it) || OLD_WAITS.contains(&it)) }
    }
}

/// What is known of one worker.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// When it began the turn in which it was seen last.
    turn_began_ms: u64,
    /// What it had computed when it was first seen in that turn.
    cpu_before: Duration,
    /// For how long it was seen to wait since.
    waited: Duration,
}

impl Seen {
    /// Looks again, after `passed`. Returns for how long it has computed or waited in this turn.
    fn look(&mut self, turn_began_ms: u64, passed: Duration, activity: Activity) -> (Duration, Duration) {
        if turn_began_ms != self.turn_began_ms {
            *self = Seen { turn_began_ms, cpu_before: activity.cpu, waited: Duration::ZERO };
        } else if activity.waits {
            self.waited += passed;
        }
        (activity.cpu.saturating_sub(self.cpu_before), self.waited)
    }
}

/// A worker that is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    pub shard: usize,
    /// It computes; else it waits.
    pub computes: bool,
    pub since: Duration,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.computes { "has computed" } else { "has waited for another thread" };
        write!(f, "shard {} {verb} for {:?} in one turn", self.shard, self.since)
    }
}

/// Watches all workers.
pub(super) struct StuckWorkers {
    seen: Vec<Seen>,
    patience: Duration,
}

impl StuckWorkers {
    /// One is stuck after `patience`.
    pub fn new(workers: usize, patience: Duration) -> StuckWorkers {
        StuckWorkers { seen: vec![Seen::default(); workers], patience }
    }

    /// Looks at each of them, after `passed`. Returns the first that is stuck.
    pub fn look(&mut self, passed: Duration, shared: &Shared) -> Option<Stuck> {
        let patience = self.patience;
        let mut found = None;
        for (shard, seen) in self.seen.iter_mut().enumerate() {
            let activity = Activity::of(shared.thread(shard));
            let (computed, waited) = seen.look(shared.turn_began_ms(shard), passed, activity);
            let (computes, since) = (computed >= waited, computed.max(waited));
            if since >= patience {
                found = found.or(Some(Stuck { shard, computes, since }));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::time::Instant;

    use super::*;

    const STEP: Duration = Duration::from_secs(1);

    #[test]
    fn what_counts_is_time_in_one_turn_that_is_computed_or_waited_for_another_thread() {
        let at = |cpu_s: u64, waits: bool| Activity { cpu: Duration::from_secs(cpu_s), waits };
        let seconds = |(computed, waited): (Duration, Duration)| (computed.as_secs(), waited.as_secs());
        let mut seen = Seen::default();
        assert_eq!(
            seconds(seen.look(7, STEP, at(100, true))),
            (0, 0),
            "what was before this turn is no part of it"
        );
        assert_eq!(seconds(seen.look(7, STEP, at(101, true))), (1, 1));
        assert_eq!(seconds(seen.look(7, STEP, at(103, false))), (3, 1));
        // It waits for its disk, or gets no CPU.
        (0..60).for_each(|_| assert_eq!(seconds(seen.look(7, STEP, at(103, false))), (3, 1)));
        assert_eq!(seconds(seen.look(7, STEP, at(103, true))), (3, 2));
        assert_eq!(seconds(seen.look(8, STEP, at(103, true))), (0, 0), "the next turn");
    }

    /// Whether the system shows a thread like this within a bound.
    fn is_seen(thread: &AtomicI32, mut like: impl FnMut(Activity) -> bool) -> bool {
        let begun = Instant::now();
        loop {
            let thread = thread.load(Ordering::Acquire);
            if thread != 0 && like(Activity::of(thread)) {
                return true;
            }
            if begun.elapsed() > Duration::from_secs(20) {
                return false;
            }
            std::thread::yield_now();
        }
    }

    fn note_own(thread: &AtomicI32) {
        thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
    }

    #[test]
    fn the_system_tells_who_computes_who_waits_for_a_thread_and_who_for_a_file() {
        let (is_over, ended) = (Mutex::new(false), Condvar::new());
        let spins = AtomicBool::new(true);
        let [computing, waiting, reading] = [const { AtomicI32::new(0) }; 3];
        let (mut reader, writer) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                note_own(&computing);
                while spins.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            scope.spawn(|| {
                note_own(&waiting);
                drop(ended.wait_while(is_over.lock().unwrap(), |is_over| !*is_over).unwrap());
            });
            scope.spawn(|| {
                note_own(&reading);
                assert_eq!(reader.read(&mut [0]).unwrap(), 0);
            });
            let computes = is_seen(&computing, |it| it.cpu >= Duration::from_millis(50));
            let waits = is_seen(&waiting, |it| it.waits);
            let never_waits = (0..1000).all(|_| !Activity::of(reading.load(Ordering::Acquire)).waits);
            spins.store(false, Ordering::Relaxed);
            *is_over.lock().unwrap() = true;
            ended.notify_all();
            drop(writer);
            assert!(computes, "the CPU time of a thread that computes does not grow");
            assert!(waits, "a thread that waits for another was not seen to");
            assert!(never_waits, "a thread that reads a file was taken for one that waits for another");
        });
    }

    #[test]
    fn a_thread_that_is_gone_is_not_stuck() {
        assert_eq!(Activity::of(0), Activity::default());
    }
}
