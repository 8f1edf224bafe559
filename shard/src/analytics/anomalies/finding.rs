//! What is measured of what, and what is found: a value that is not normal, and the line that says so.

use std::fmt::Write as _;

/// What a series measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Executed operations per second.
    Rate,
    /// Misses among the look-ups, from 0 to 1. Only to be observed where there were some ten look-ups.
    MissRatio,
    /// Writes among the operations, from 0 to 1. Only to be observed where there were some ten operations.
    WriteRatio,
    /// How long operations take, in microseconds.
    LatencyUs,
    /// By how many bytes per second the memory grows; negative when it shrinks.
    MemoryGrowth,
}

impl Measure {
    /// All of them, each at its number.
    pub const ALL: [Measure; 5] =
        [Measure::Rate, Measure::MissRatio, Measure::WriteRatio, Measure::LatencyUs, Measure::MemoryGrowth];

    /// The word by which people name it.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Rate => "rate",
            Measure::MissRatio => "miss ratio",
            Measure::WriteRatio => "write ratio",
            Measure::LatencyUs => "latency",
            Measure::MemoryGrowth => "memory growth",
        }
    }

    /// The least standard deviation that is assumed around a normal value, however quiet the series was: less
    /// than some of it counts for nothing.
    pub(super) fn least_deviation(self, normal: f32) -> f32 {
        let (absolute, relative) = match self {
            Measure::Rate => (10.0, 0.1),
            Measure::MissRatio | Measure::WriteRatio => (0.04, 0.0),
            Measure::LatencyUs => (50.0, 0.25),
            Measure::MemoryGrowth => (256.0 * 1024.0, 0.25),
        };
        (relative * normal.abs()).max(absolute)
    }

    fn write(self, value: f64, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = match self {
            Measure::Rate => write!(out, "{value:.0}/s"),
            Measure::MissRatio | Measure::WriteRatio => write!(out, "{value:.2}"),
            Measure::LatencyUs => write!(out, "{value:.0}us"),
            Measure::MemoryGrowth => write!(out, "{value:.0}B/s"),
        };
    }
}

/// What a series is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The whole shard.
    Shard,
    /// One key.
    Key,
    /// A class of keys.
    Class,
}

impl Scope {
    /// All of them, each at its number.
    pub const ALL: [Scope; 3] = [Scope::Shard, Scope::Key, Scope::Class];

    /// The word by which people name it.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Shard => "shard",
            Scope::Key => "key",
            Scope::Class => "class",
        }
    }
}

/// Which series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesId<'a> {
    /// What it is about.
    pub scope: Scope,
    /// What it measures.
    pub measure: Measure,
    /// The key or the class; empty for the shard.
    pub name: &'a [u8],
}

impl<'a> SeriesId<'a> {
    /// A series of the whole shard.
    pub fn shard(measure: Measure) -> SeriesId<'static> {
        SeriesId { scope: Scope::Shard, measure, name: b"" }
    }

    /// A series of a key.
    pub fn key(measure: Measure, key: &'a [u8]) -> Self {
        SeriesId { scope: Scope::Key, measure, name: key }
    }

    /// A series of a class of keys.
    pub fn class(measure: Measure, class: &'a [u8]) -> Self {
        SeriesId { scope: Scope::Class, measure, name: class }
    }

    /// Whether it is a part of the load, and changes with it.
    pub(super) fn has_common(&self) -> bool {
        self.measure == Measure::Rate && self.scope != Scope::Shard
    }

    /// Whether less than normal is worth a finding, too: a server that falls silent is, a key that cools down
    /// or requests that become faster are not.
    pub(super) fn may_fall(&self) -> bool {
        match self.measure {
            Measure::Rate => self.scope != Scope::Key,
            Measure::WriteRatio => true,
            Measure::MissRatio | Measure::LatencyUs | Measure::MemoryGrowth => false,
        }
    }
}

/// A series that has left what is normal for it. Times are milliseconds since the Unix epoch, as the wall clock went
/// when it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What it is about.
    pub scope: Scope,
    /// What was measured.
    pub measure: Measure,
    /// The key or the class; empty for the shard.
    pub name: Box<[u8]>,
    /// When the change began, about.
    pub since_ms: u64,
    /// When it was over; none while it lasts.
    pub until_ms: Option<u64>,
    /// The newest value while it lasts; once it is over, the one furthest from normal.
    pub value: f64,
    /// What was normal when it began.
    pub normal: f64,
    /// Of normal values, one in a hundred is less.
    pub normal_p1: f64,
    /// Of normal values, one in a hundred is greater.
    pub normal_p99: f64,
    /// The normal values are not known, only that they were no greater: the key was not followed before.
    pub normal_is_bound: bool,
    /// The distance from normal where it was greatest, in robust standard deviations.
    pub score: f64,
}

impl Finding {
    /// In one line, e.g. `rate user:42 9310/s, normal 120/s (p99 240/s), since 14:02:10Z`. Times are UTC.
    pub fn explanation(&self, shard: usize) -> String {
        let mut text = String::from(self.measure.name());
        let _ = match self.scope {
            Scope::Shard => write!(text, " shard {shard} "),
            Scope::Key | Scope::Class => write!(text, " {} ", self.name.escape_ascii()),
        };
        self.measure.write(self.value, &mut text);
        text.push_str(if self.normal_is_bound { ", normal at most " } else { ", normal " });
        self.measure.write(self.normal, &mut text);
        if !self.normal_is_bound {
            let (edge, value) =
                if self.value < self.normal { ("p1", self.normal_p1) } else { ("p99", self.normal_p99) };
            let _ = write!(text, " ({edge} ");
            self.measure.write(value, &mut text);
            text.push(')');
        }
        match self.until_ms {
            None => text.push_str(", since "),
            Some(_) => text.push_str(", from "),
        }
        write_time(self.since_ms, &mut text);
        if let Some(until_ms) = self.until_ms {
            text.push_str(" to ");
            write_time(until_ms, &mut text);
        }
        text
    }
}

fn write_time(ms: u64, out: &mut String) {
    let s = ms / 1000;
    let _ = write!(out, "{:02}:{:02}:{:02}Z", s / 3600 % 24, s / 60 % 60, s % 60);
}
