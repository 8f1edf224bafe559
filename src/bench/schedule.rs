//! When requests are due. A pure function of their numbers: it looks at no clock, and no delay of the server
//! or of the load generator moves it, which is what keeps the latencies honest (no coordinated omission).

use std::time::Duration;

/// Requests at a fixed rate, dealt to the connections in turns: request `n` belongs to connection
/// `n % clients`.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    interval_ns: f64,
    clients: u64,
    /// The number of requests.
    pub count: u64,
}

impl Schedule {
    /// As many requests a second as `rate` says, for `duration`, but no more than `requests_max`.
    pub fn new(rate: u64, clients: u64, duration: Duration, requests_max: u64) -> Schedule {
        let count = ((rate as f64 * duration.as_secs_f64()).ceil() as u64).min(requests_max);
        Schedule { interval_ns: 1e9 / rate as f64, clients, count }
    }

    /// The time at which a request is due, in nanoseconds from the start.
    pub fn due_ns(&self, number: u64) -> u64 {
        (number as f64 * self.interval_ns) as u64
    }

    /// The request that the same connection has next.
    pub fn next_of_client(&self, number: u64) -> u64 {
        number + self.clients
    }
}

/// Goes through the times at which the connections of one thread have something to do.
#[derive(Debug)]
pub struct Cursor {
    schedule: Schedule,
    /// The numbers of the thread's connections: `first`, `first + step`, ...
    first: u64,
    step: u64,
    /// The next request.
    number: u64,
}

impl Cursor {
    /// For the thread with the connections `first`, `first + step` and so on.
    pub fn new(schedule: Schedule, first: u64, step: u64) -> Cursor {
        Cursor { schedule, first, step, number: first }
    }

    /// When the next request is due; `None` behind the last.
    pub fn next_due_ns(&self) -> Option<u64> {
        (self.number < self.schedule.count).then(|| self.schedule.due_ns(self.number))
    }

    /// The position among the thread's connections of the one whose request is due by `now_ns`, if one is,
    /// and goes on to the next.
    pub fn take_due(&mut self, now_ns: u64) -> Option<usize> {
        self.next_due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        let client = self.number % self.schedule.clients;
        let next = client + self.step;
        let round_start = self.number - client;
        self.number = if next < self.schedule.clients {
            round_start + next
        } else {
            round_start + self.schedule.clients + self.first
        };
        Some(((client - self.first) / self.step) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_the_rate_until_the_time_or_the_requests_are_over() {
        let schedule = Schedule::new(1000, 3, Duration::from_millis(2500), u64::MAX);
        assert_eq!(schedule.count, 2500);
        assert_eq!(
            (schedule.due_ns(0), schedule.due_ns(1), schedule.due_ns(2499)),
            (0, 1_000_000, 2_499_000_000)
        );
        assert_eq!(schedule.next_of_client(7), 10);
        assert_eq!(Schedule::new(1000, 3, Duration::from_secs(9), 10).count, 10);
        // A rate that does not divide a second does not drift.
        assert_eq!(
            Schedule::new(3, 1, Duration::from_hours(1), u64::MAX).due_ns(3 * 3600),
            3_600_000_000_000
        );
    }

    #[test]
    fn the_threads_together_go_through_every_request_once_and_in_time() {
        for (clients, threads) in [(5, 2), (4, 4), (7, 3), (1, 1)] {
            let schedule = Schedule::new(1000, clients, Duration::from_secs(1), 101);
            let mut seen = vec![0; clients as usize];
            for thread in 0..threads {
                let mut cursor = Cursor::new(schedule, thread, threads);
                while let Some(due_ns) = cursor.next_due_ns() {
                    assert_eq!(
                        cursor.take_due(due_ns.saturating_sub(1)).is_some(),
                        due_ns == 0,
                        "not before"
                    );
                    if due_ns > 0 {
                        let position = cursor.take_due(due_ns).expect("it is due");
                        let client = position as u64 * threads + thread;
                        assert_eq!(due_ns / 1_000_000 % clients, client, "request {due_ns}");
                        seen[client as usize] += 1;
                    } else {
                        seen[thread as usize] += 1;
                    }
                }
            }
            assert_eq!(seen.iter().sum::<u64>(), 101, "{clients} clients, {threads} threads");
        }
    }
}
