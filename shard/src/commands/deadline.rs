//! How requests name the time at which a key expires. A TTL is a duration, a deadline the moment at which it ends: by
//! the server's time, unless the client names a moment of the wall clock.

use crate::clock::deadline_by_wall_clock;
use crate::error::Error;
use crate::integer;
use crate::request::Request;

/// In what a client gives the time at which a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUnit {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Milliseconds,
    /// Seconds since the Unix epoch.
    UnixSeconds,
    /// Milliseconds since the Unix epoch.
    UnixMilliseconds,
}

impl TimeUnit {
    /// Every unit.
    const ALL: [TimeUnit; 4] =
        [TimeUnit::Seconds, TimeUnit::Milliseconds, TimeUnit::UnixSeconds, TimeUnit::UnixMilliseconds];

    /// The unit of the times that stand behind this option, in any case.
    pub(super) fn of_option(option: &[u8]) -> Option<TimeUnit> {
        TimeUnit::ALL.into_iter().find(|unit| option.eq_ignore_ascii_case(unit.option()))
    }

    fn option(self) -> &'static [u8] {
        match self {
            TimeUnit::Seconds => b"EX",
            TimeUnit::Milliseconds => b"PX",
            TimeUnit::UnixSeconds => b"EXAT",
            TimeUnit::UnixMilliseconds => b"PXAT",
        }
    }

    /// Whether the time is a moment of the wall clock.
    fn is_moment(self) -> bool {
        matches!(self, TimeUnit::UnixSeconds | TimeUnit::UnixMilliseconds)
    }

    /// The deadline at this moment of the clock that times in this unit go by.
    pub(super) fn by_its_clock(self, moment_ms: u64) -> u64 {
        if self.is_moment() { deadline_by_wall_clock(moment_ms) } else { moment_ms }
    }

    /// The moment that this amount means, in milliseconds of the clock that it goes by; `None` if it is out of range.
    pub(super) fn deadline_ms(self, amount: i64, now_ms: u64) -> Option<i64> {
        let now_ms = i64::try_from(now_ms).ok()?;
        match self {
            TimeUnit::Seconds => amount.checked_mul(1000)?.checked_add(now_ms),
            TimeUnit::Milliseconds => amount.checked_add(now_ms),
            TimeUnit::UnixSeconds => amount.checked_mul(1000),
            TimeUnit::UnixMilliseconds => Some(amount),
        }
    }
}

/// The deadline that a request gives to a value, which has to be a positive time.
///
/// # Errors
/// The amount is no integer, not positive or too large.
pub(super) fn deadline_of(
    request: &Request<'_>,
    unit: TimeUnit,
    amount: &[u8],
    now_ms: u64,
) -> Result<u64, Error> {
    let amount = time_argument(amount)?;
    let deadline_ms = unit.deadline_ms(amount, now_ms).filter(|_| amount > 0);
    deadline_ms
        .and_then(|deadline_ms| u64::try_from(deadline_ms).ok())
        .map(|deadline_ms| unit.by_its_clock(deadline_ms))
        .ok_or(Error::InvalidExpire(request.command))
}

/// The amount of time that an argument names.
///
/// # Errors
/// The amount is no integer.
pub(super) fn time_argument(amount: &[u8]) -> Result<i64, Error> {
    integer::parse(amount).ok_or(Error::ExpireNotAnInteger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_means_its_moment() {
        let moments = TimeUnit::ALL.map(|unit| unit.deadline_ms(3, 10));
        assert_eq!(moments, [Some(3010), Some(13), Some(3000), Some(3)]);
    }
}
