//! The two clocks that deadlines go by, and how the log tells what they showed.
//!
//! A TTL runs by the server's own time, which goes on with what really elapses and which no administrator can set. A
//! deadline that the client names as a moment (`EXAT`, `PXAT`) follows the wall clock, wherever that is set to. Both
//! kinds stand in one word:
//!
//! ```text
//! bit 63        0: by the server's time, 1: by the wall clock
//! bits 0 to 62  milliseconds: of the server's time, or since the Unix epoch
//! ```
//!
//! So in ascending order those by the server's time come first, and each kind is in the order of its moments.

/// Set in deadlines by the wall clock.
pub(crate) const BY_WALL_CLOCK: u64 = 1 << 63;

/// What the clocks showed at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The server's time, in milliseconds. It is the Unix time of the first start, and from there on it goes by what
    /// elapsed.
    pub now_ms: u64,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// By which name this boot of the machine is known; 0 if by none.
    pub boot: u64,
    /// How long ago that was, in milliseconds, with the time during which the machine was suspended.
    pub booted_ms: u64,
}

impl Clocks {
    /// How far the wall clock is ahead of the server's time.
    pub fn wall_ahead_ms(&self) -> i64 {
        self.wall_ms.wrapping_sub(self.now_ms) as i64
    }
}

/// The deadline at a moment in milliseconds since the Unix epoch.
pub fn deadline_by_wall_clock(unix_ms: u64) -> u64 {
    unix_ms.min(!BY_WALL_CLOCK) | BY_WALL_CLOCK
}

/// When a deadline comes, in the server's time, while the wall clock is so far ahead of it.
#[inline]
pub fn due_ms(deadline_ms: u64, wall_ahead_ms: i64) -> u64 {
    if deadline_ms & BY_WALL_CLOCK == 0 {
        deadline_ms
    } else {
        (deadline_ms & !BY_WALL_CLOCK).saturating_add_signed(wall_ahead_ms.saturating_neg())
    }
}

/// The moment of a deadline by the wall clock, in milliseconds since the Unix epoch; `None` for one by the server's
/// time.
pub fn unix_deadline_ms(deadline_ms: u64) -> Option<u64> {
    (deadline_ms & BY_WALL_CLOCK != 0).then_some(deadline_ms & !BY_WALL_CLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deadlines_by_the_wall_clock_move_with_it() {
        let (by_server, by_wall) = (5000, deadline_by_wall_clock(5000));
        assert!(by_server < by_wall && by_wall < deadline_by_wall_clock(5001));
        assert_eq!((unix_deadline_ms(by_server), unix_deadline_ms(by_wall)), (None, Some(5000)));
        for (wall_ahead_ms, due) in [(0, 5000), (2000, 3000), (-2000, 7000), (9000, 0)] {
            assert_eq!(due_ms(by_server, wall_ahead_ms), 5000);
            assert_eq!(due_ms(by_wall, wall_ahead_ms), due);
        }
    }
}
