//! The load of a shard over the hours of the week, and when it is a good moment for work in the background.

/// The hours of a week.
pub const HOURS: usize = 168;

/// Which hour of the week a time is, from 0 for the first hour of Monday on, in UTC. The time is in milliseconds
/// since the Unix epoch.
pub fn hour_of_week(now_ms: u64) -> usize {
    // The epoch was the beginning of a Thursday.
    ((now_ms / 3_600_000 + 3 * 24) % HOURS as u64) as usize
}
