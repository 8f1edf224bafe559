//! Workers that do not come to the end of a turn, as the service manager's watchdog and the admin port have to know of
//! them. There is one judge, whose [verdict](Verdict) both tell: where a worker is stuck only a restart helps. What is
//! right to wait is not stuck.
//!
//! - A worker that waits for its **disk** does what it is to do: its clients are told (`worker/watchdog.rs`), and a
//!   server that is started again would wait for the same disk. After `--disk-timeout` it hangs, which is another verdict.
//! - A worker that **gets no CPU**, or is stopped by a debugger, would get none after a restart either.
//! - A worker that **computes** in one turn for longer than [`PATIENCE`], or the watchdog's period, never ends it. No
//!   turn that is in order comes near that.
//! - A worker that **waits for another thread** in the middle of a turn, for as long, waits for ever: while it has nothing
//!   to do it takes a turn with each tick.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::shared::Shared;
use crate::shared::verdict::{Stuck, Verdict};

/// A turn that takes longer never ends, where no watchdog says otherwise: no turn that is in order takes half of it.
const PATIENCE: Duration = Duration::from_mins(3);

/// How often the workers are looked at, and how often within the patience at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOKS_MIN: u32 = 4;

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
    waits: Option<WaitsFor>,
}

/// What a thread waits for in a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    /// What the system calls of [`WAITS`] wait for.
    Thread,
    /// A disk: a worker waits for nothing else.
    Disk,
}

impl Activity {
    /// That of a thread of this process. What the system does not tell is taken to be in order.
    fn of(thread: i32) -> Activity {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        // The fields stand behind the thread's name, which is in parentheses: the state, and utime and stime as the 14th
        // and 15th of all.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let Some(state) = fields.next() else { return Activity::default() };
        let ticks: u64 = fields.skip(10).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let cpu = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        if !matches!(state, "S" | "D") {
            return Activity { cpu, waits: None }; // It runs, waits for a CPU, or was stopped.
        }
        let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
        let number = call.split_whitespace().next().and_then(|number| number.parse().ok());
        let is_wait = |number: i64| WAITS.contains(&number) || OLD_WAITS.contains(&number);
        let waits = number.map(|number| if is_wait(number) { WaitsFor::Thread } else { WaitsFor::Disk });
        Activity { cpu, waits }
    }
}

/// What is known of one worker.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// When it began the turn in which it was seen last.
    turn_began_ms: u64,
    /// What it had computed when it was first seen in that turn.
    cpu_before: Duration,
    /// What it has computed since.
    computed: Duration,
    /// For how long it was seen to wait for another thread since, and for its disk.
    waited: Duration,
    hung: Duration,
}

impl Seen {
    /// Looks again, after `passed`.
    fn look(&mut self, turn_began_ms: u64, passed: Duration, activity: Activity) {
        if turn_began_ms != self.turn_began_ms {
            *self = Seen { turn_began_ms, cpu_before: activity.cpu, ..Seen::default() };
            return;
        }
        self.computed = activity.cpu.saturating_sub(self.cpu_before);
        match activity.waits {
            Some(WaitsFor::Thread) => self.waited += passed,
            Some(WaitsFor::Disk) => self.hung += passed,
            None => {}
        }
    }
}

/// Judges all workers.
struct StuckWorkers {
    seen: Vec<Seen>,
    /// One is stuck after `patience`, and hangs after `disk_timeout`.
    patience: Duration,
    disk_timeout: Duration,
}

impl StuckWorkers {
    fn new(workers: usize, patience: Duration, disk_timeout: Duration) -> StuckWorkers {
        StuckWorkers { seen: vec![Seen::default(); workers], patience, disk_timeout }
    }

    /// Looks at each of them, after `passed`.
    fn look(&mut self, passed: Duration, shared: &Shared) -> Verdict {
        for (shard, seen) in self.seen.iter_mut().enumerate() {
            seen.look(shared.turn_began_ms(shard), passed, Activity::of(shared.thread(shard)));
        }
        self.verdict()
    }

    fn all_hang(&self) -> bool {
        self.seen.iter().all(|seen| seen.hung > self.disk_timeout)
    }

    fn verdict(&self) -> Verdict {
        let stuck = self.seen.iter().enumerate().find_map(|(shard, seen)| {
            let (computes, since) = (seen.computed >= seen.waited, seen.computed.max(seen.waited));
            (since >= self.patience).then_some(Stuck { shard, computes, since })
        });
        Verdict { stuck, hung: self.seen.iter().position(|seen| seen.hung > self.disk_timeout) }
    }
}

/// Judges the workers from now on, for all that tell how the server is. The watchdog of the service manager, where there
/// is one, says how long a turn may take.
pub(super) fn judge_workers(shared: Arc<Shared>, watchdog: Option<Duration>) -> Result<(), Failure> {
    let patience = watchdog.unwrap_or(PATIENCE);
    let step = LOOK_INTERVAL.min(patience / LOOKS_MIN);
    let work = move || {
        let config = &shared.config;
        let mut workers = StuckWorkers::new(config.shard_count(), patience, config.disk_timeout);
        let (mut stuck_before, mut all_hung_before) = (None, false);
        loop {
            // A longer time was none in which the process ran.
            let verdict = workers.look(step, &shared);
            shared.note_verdict(verdict);
            if let Some(Stuck { shard, computes, since }) = verdict.stuck
                && stuck_before != Some(shard)
            {
                let (ms, does) = (since.as_millis() as u64, if computes { "computes" } else { "waits" });
                tracing::error!(shard, ms, does, "a worker is stuck in one turn: only a restart helps");
            }
            stuck_before = verdict.stuck.map(|stuck| stuck.shard);
            // While one worker takes turns, it tells.
            let all_hang = workers.all_hang();
            if all_hang != std::mem::replace(&mut all_hung_before, all_hang) {
                if all_hang {
                    tracing::error!(
                        "all shards hang in their disks: no client is answered until a disk goes on"
                    );
                } else {
                    tracing::warn!("a disk goes on");
                }
            }
            thread::sleep(step);
        }
    };
    let thread = thread::Builder::new().name("kvlite-judge".to_owned()).spawn(work);
    thread.map(drop).map_err(Failure::Thread)
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
    fn what_counts_is_time_in_one_turn_that_is_computed_or_waited() {
        let at = |cpu_s: u64, waits| Activity { cpu: Duration::from_secs(cpu_s), waits };
        let (thread, disk) = (Some(WaitsFor::Thread), Some(WaitsFor::Disk));
        let mut seen = Seen::default();
        let mut look = |turn_began_ms, activity| {
            seen.look(turn_began_ms, STEP, activity);
            [seen.computed, seen.waited, seen.hung].map(|time| time.as_secs())
        };
        assert_eq!(look(7, at(100, thread)), [0, 0, 0], "what was before this turn is no part of it");
        assert_eq!(look(7, at(101, thread)), [1, 1, 0]);
        assert_eq!(look(7, at(103, disk)), [3, 1, 1]);
        // It gets no CPU.
        (0..60).for_each(|_| assert_eq!(look(7, at(103, None)), [3, 1, 1]));
        assert_eq!(look(7, at(103, thread)), [3, 2, 1]);
        assert_eq!(look(8, at(103, disk)), [0, 0, 0], "the next turn");
    }

    #[test]
    fn a_worker_that_waits_for_its_disk_hangs_and_is_never_stuck() {
        let mut workers = StuckWorkers::new(2, 60 * STEP, 10 * STEP);
        let mut verdict_after = |looks: u32, activity| {
            (0..looks).for_each(|_| workers.seen[1].look(7, STEP, activity));
            workers.verdict()
        };
        let on_disk = Activity { cpu: Duration::ZERO, waits: Some(WaitsFor::Disk) };
        assert_eq!(verdict_after(11, on_disk), Verdict::default());
        assert_eq!(verdict_after(1, on_disk), Verdict { stuck: None, hung: Some(1) });
        assert_eq!(verdict_after(1000, on_disk), Verdict { stuck: None, hung: Some(1) });
        let waits = Activity { waits: Some(WaitsFor::Thread), ..on_disk };
        let stuck = |computes, seconds| Some(Stuck { shard: 1, computes, since: seconds * STEP });
        assert_eq!(verdict_after(59, waits).stuck, None);
        assert_eq!(verdict_after(1, waits).stuck, stuck(false, 60));
        let computes = Activity { cpu: 70 * STEP, waits: None };
        assert_eq!(verdict_after(1, computes).stuck, stuck(true, 70));
    }

    #[test]
    fn all_hang_only_when_each_does() {
        let mut workers = StuckWorkers::new(2, 60 * STEP, 10 * STEP);
        let on_disk = Activity { cpu: Duration::ZERO, waits: Some(WaitsFor::Disk) };
        for (worker, all_hang) in [(0, false), (1, true)] {
            (0..12).for_each(|_| workers.seen[worker].look(7, STEP, on_disk));
            assert_eq!(workers.all_hang(), all_hang, "{worker}");
        }
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
            thread::yield_now();
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
        thread::scope(|scope| {
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
            let waits = is_seen(&waiting, |it| it.waits == Some(WaitsFor::Thread));
            let reads = is_seen(&reading, |it| it.waits == Some(WaitsFor::Disk))
                && (0..1000)
                    .all(|_| Activity::of(reading.load(Ordering::Acquire)).waits == Some(WaitsFor::Disk));
            spins.store(false, Ordering::Relaxed);
            *is_over.lock().unwrap() = true;
            ended.notify_all();
            drop(writer);
            assert!(computes, "the CPU time of a thread that computes does not grow");
            assert!(waits, "a thread that waits for another was not seen to");
            assert!(reads, "a thread that reads a file was not seen to");
        });
    }

    #[test]
    fn a_thread_that_is_gone_is_not_stuck() {
        assert_eq!(Activity::of(0), Activity::default());
    }
}
