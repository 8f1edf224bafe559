//! How often each command was called, exactly, and how long calls took, by a sample.
//!
//! To read the clock twice for each call would cost as much as some calls do. So the first calls of a second are
//! measured, of each command, and then one of [`MEASURED_ONE_OF`] on average. Which one is drawn: pipelines have a
//! period, and a fixed step would always meet the same place in them. A call that is measured stands for all since the
//! last one, so that a second with many calls weighs as much as it has. Commands whose time grows with what is stored
//! are all measured, which costs little beside their work and finds the slow ones; where someone looks for commands that
//! are hardly slow, all are.

use std::time::{Duration, Instant};

use shard::Command;
use shard::command::{self, Flags};

use super::histogram::Histogram;

/// So many calls of each command in each second are all measured.
const MEASURED_A_SECOND: u32 = 8;

/// Of the others, one of so many, on average.
const MEASURED_ONE_OF: u32 = 64;

/// The calls of all commands, by the [index](Command::index) of their rows.
#[derive(Clone, Debug)]
pub struct Calls {
    counts: Box<[Count]>,
    durations: Box<[Histogram]>,
    random: u32,
    /// Every call is measured.
    measures_all: bool,
}

/// The calls of one command.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    calls: u64,
    /// Once there are more calls than this, one is measured.
    next: u64,
    /// Calls that the measured ones stand for.
    measured: u64,
    /// How many of this second are still all measured.
    budget: u32,
}

/// A call that is measured, and is not answered yet.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    index: u16,
    /// Itself and those since the last one.
    stands_for: u32,
    began: Instant,
}

impl Measured {
    /// How long it has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Whether the time of a command grows with what is stored, and not only with what the client sends.
fn may_be_long(command: &Command) -> bool {
    !command.has(Flags::FAST) && !command.has(Flags::LISTS) && !command.complexity.starts_with("O(1)")
}

impl Default for Calls {
    fn default() -> Calls {
        let count = command::rows().len();
        let first = Count { budget: MEASURED_A_SECOND, ..Count::default() };
        Calls {
            counts: vec![first; count].into(),
            durations: vec![Histogram::default(); count].into(),
            random: 0x9e37_79b9,
            measures_all: false,
        }
    }
}

impl Calls {
    /// When a call begins, if it is to be measured.
    #[inline]
    pub fn begin(&self, command: &Command) -> Option<Instant> {
        let count = &self.counts[command.index()];
        (count.calls >= count.next).then(Instant::now)
    }

    /// Counts a call that [began](Calls::begin) then, if it is measured. What is returned is to be
    /// [ended](Calls::end) when it is answered.
    #[inline]
    pub fn count(&mut self, command: &Command, began: Option<Instant>) -> Option<Measured> {
        self.counts[command.index()].calls += 1;
        began.map(|began| self.measure(command.index(), began))
    }

    fn measure(&mut self, index: usize, began: Instant) -> Measured {
        let count = &mut self.counts[index];
        let stands_for = u32::try_from(count.calls - count.measured).unwrap_or(u32::MAX);
        (count.measured, count.next) = (count.calls, count.calls);
        if self.measures_all || may_be_long(&command::rows()[index]) {
            // The next one is measured, too.
        } else if count.budget > 0 {
            count.budget -= 1;
        } else {
            self.random ^= self.random << 13; // Xorshift (Marsaglia, 2003).
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            count.next += u64::from(self.random % (2 * MEASURED_ONE_OF - 1));
        }
        Measured { index: index as u16, stands_for, began }
    }

    /// A call was answered that is measured. Returns how long it took.
    pub fn end(&mut self, measured: Measured) -> Duration {
        let Measured { index, stands_for, began } = measured;
        let took = began.elapsed();
        self.durations[usize::from(index)].record_many(took, stands_for.into());
        took
    }

    /// Whether every call is measured from now on.
    pub fn measure_all(&mut self, all: bool) {
        if all && !self.measures_all {
            self.counts.iter_mut().for_each(|count| count.next = count.calls);
        }
        self.measures_all = all;
    }

    /// A second has passed.
    pub fn note_second(&mut self) {
        for count in &mut self.counts {
            (count.budget, count.next) = (MEASURED_A_SECOND, count.calls);
        }
    }

    /// Takes away what was counted up to then.
    pub fn subtract(&mut self, earlier: &Calls) {
        let counts = self.counts.iter_mut().zip(&earlier.counts);
        counts.for_each(|(now, then)| now.calls = now.calls.saturating_sub(then.calls));
        self.durations.iter_mut().zip(&earlier.durations).for_each(|(now, then)| now.subtract(then));
    }

    /// Of every command that was called: its row, how often, and how long the measured calls took.
    pub fn called(&self) -> impl Iterator<Item = (&'static Command, u64, &Histogram)> {
        let rows = command::rows().iter().zip(&self.counts).zip(&self.durations);
        rows.filter(|((_, count), _)| count.calls > 0).map(|((row, count), took)| (row, count.calls, took))
    }
}

impl std::ops::AddAssign<&Calls> for Calls {
    fn add_assign(&mut self, other: &Calls) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| sum.calls += count.calls);
        self.durations.iter_mut().zip(&other.durations).for_each(|(sum, took)| *sum += took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &[u8]) -> &'static Command {
        command::find(name).unwrap()
    }

    /// Calls a command so often; returns how many of the calls were measured.
    fn call(calls: &mut Calls, command: &Command, times: u64) -> usize {
        let measured: Vec<_> = (0..times)
            .filter_map(|_| {
                let began = calls.begin(command);
                calls.count(command, began)
            })
            .collect();
        for measured in &measured {
            calls.end(*measured);
        }
        measured.len()
    }

    #[test]
    fn the_first_calls_of_each_second_are_measured_however_many_came_before() {
        let (mut calls, get) = (Calls::default(), row(b"GET"));
        for many in 1_000..1_050 {
            call(&mut calls, get, many);
            calls.note_second();
            assert_eq!(call(&mut calls, get, 8), 8);
        }
    }

    #[test]
    fn commands_that_may_be_long_are_all_measured_and_all_commands_where_that_is_asked_for() {
        let (mut calls, get) = (Calls::default(), row(b"GET"));
        assert_eq!(call(&mut calls, row(b"BITCOUNT"), 1000), 1000);
        assert!(call(&mut calls, get, 1000) < 100);
        calls.measure_all(true);
        assert_eq!(call(&mut calls, get, 1000), 1000);
        calls.measure_all(false);
        assert!(call(&mut calls, get, 1000) < 100);
    }

    #[test]
    fn few_calls_are_all_measured_and_of_many_one_in_64() {
        let (mut calls, get) = (Calls::default(), row(b"GET"));
        assert_eq!(call(&mut calls, row(b"SET"), 1), 1);
        assert_eq!(call(&mut calls, get, 8), 8);
        let measured = call(&mut calls, get, 640_000);
        assert!((9_500..10_500).contains(&measured), "{measured}");
        calls.note_second();
        call(&mut calls, get, 200);
        let seen: Vec<_> = calls.called().map(|(row, calls, took)| (row.name, calls, took.count())).collect();
        let [("GET", 640_208, stood_for), ("SET", 1, 1)] = seen[..] else { panic!("{seen:?}") };
        assert!((640_208 - 2 * 64..=640_208).contains(&stood_for), "{stood_for}");
    }
}
