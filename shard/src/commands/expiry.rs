//! Commands on deadlines. A TTL is a duration, a deadline the moment at which it ends: by the server's time,
//! unless the client names a moment of the wall clock.

use crate::clock::deadline_by_wall_clock;
use crate::{Changes, Dialect, Error, Reply, Request, Shard, integer};

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
    pub(super) const ALL: [TimeUnit; 4] =
        [TimeUnit::Seconds, TimeUnit::Milliseconds, TimeUnit::UnixSeconds, TimeUnit::UnixMilliseconds];

    /// The option of SET that takes a time in this unit.
    pub(super) fn option(self) -> &'static str {
        match self {
            TimeUnit::Seconds => "EX",
            TimeUnit::Milliseconds => "PX",
            TimeUnit::UnixSeconds => "EXAT",
            TimeUnit::UnixMilliseconds => "PXAT",
        }
    }

    /// Whether the time is a moment of the wall clock.
    fn is_moment(self) -> bool {
        matches!(self, TimeUnit::UnixSeconds | TimeUnit::UnixMilliseconds)
    }

    /// The moment that this amount means, in milliseconds of the clock that it goes by; `None` if it is out of range.
    fn deadline_ms(self, amount: i64, now_ms: u64) -> Option<i64> {
        let now_ms = i64::try_from(now_ms).ok()?;
        match self {
            TimeUnit::Seconds => amount.checked_mul(1000)?.checked_add(now_ms),
            TimeUnit::Milliseconds => amount.checked_add(now_ms),
            TimeUnit::UnixSeconds => amount.checked_mul(1000),
            TimeUnit::UnixMilliseconds => Some(amount),
        }
    }
}

/// The deadline that a request gives to a new value, which has to be a positive time.
pub(super) fn deadline_of(
    request: &Request<'_>,
    unit: TimeUnit,
    amount: &[u8],
    now_ms: u64,
) -> Result<u64, Error> {
    let amount = time_argument(request, amount)?;
    let deadline_ms = unit.deadline_ms(amount, now_ms).filter(|_| amount > 0);
    deadline_ms
        .and_then(|deadline_ms| u64::try_from(deadline_ms).ok())
        .map(|deadline_ms| if unit.is_moment() { deadline_by_wall_clock(deadline_ms) } else { deadline_ms })
        .ok_or(Error::InvalidExpire(request.command))
}

/// The text protocol calls any TTL that it cannot use invalid; RESP tells a text that is no integer
/// from one that is.
fn time_argument(request: &Request<'_>, amount: &[u8]) -> Result<i64, Error> {
    integer::parse(amount).ok_or(match request.dialect {
        Dialect::Text => Error::InvalidExpire(request.command),
        Dialect::Resp2 | Dialect::Resp3 => Error::ExpireNotAnInteger,
    })
}

/// `SETEX key seconds value`.
pub(crate) fn setex<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let (key, value) = (request.arg(0), request.arg(2));
    let deadline_ms = match deadline_of(request, TimeUnit::Seconds, request.arg(1), now_ms) {
        Ok(deadline_ms) => deadline_ms,
        Err(error) => return error.into(),
    };
    if value.len() > shard.value_len_max() {
        return Error::ValueTooLarge { limit: shard.value_len_max() }.into();
    }
    let found = shard.find(key, now_ms);
    shard.put_arg(found, key, (request, 2), Some(deadline_ms), changes);
    Reply::Ok
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`. In RESP a deadline that has passed removes the key; the text
/// protocol takes only times to come.
pub(crate) fn expire<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    set_deadline(shard, request, TimeUnit::Seconds, now_ms, changes).into()
}

fn set_deadline<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    unit: TimeUnit,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let condition = ExpireCondition::parse(request.args().skip(2))?;
    let amount = time_argument(request, request.arg(1))?;
    let in_range = |deadline_ms: &i64| request.dialect != Dialect::Text || *deadline_ms > now_ms as i64;
    let deadline_ms = unit.deadline_ms(amount, now_ms).filter(in_range);
    let deadline_ms = deadline_ms.ok_or(Error::InvalidExpire(request.command))?;
    let Some(found) = shard.find(key, now_ms) else { return Ok(Reply::Integer(0)) };
    let deadline_ms = u64::try_from(deadline_ms).unwrap_or(0);
    let before_ms = shard.entry(found).deadline_ms().map(|before_ms| shard.due_ms(before_ms));
    if !condition.holds(before_ms, deadline_ms) {
        return Ok(Reply::Integer(0));
    }
    if deadline_ms <= now_ms {
        shard.remove(found, key, changes);
    } else {
        shard.set_deadline(found, key, Some(deadline_ms), changes);
    }
    Ok(Reply::Integer(1))
}

/// On what deadline, before and after, EXPIRE insists.
#[derive(Default)]
struct ExpireCondition {
    none_before: bool,
    some_before: bool,
    later: bool,
    earlier: bool,
}

impl ExpireCondition {
    fn parse<'a>(options: impl Iterator<Item = &'a [u8]>) -> Result<Self, Error> {
        let mut condition = ExpireCondition::default();
        for option in options {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if is("NX") {
                condition.none_before = true;
            } else if is("XX") {
                condition.some_before = true;
            } else if is("GT") {
                condition.later = true;
            } else if is("LT") {
                condition.earlier = true;
            } else {
                return Err(Error::UnsupportedOption(option.into()));
            }
        }
        if condition.none_before && (condition.some_before || condition.later || condition.earlier) {
            return Err(Error::IncompatibleOptions("NX and XX, GT or LT"));
        }
        if condition.later && condition.earlier {
            return Err(Error::IncompatibleOptions("GT and LT"));
        }
        Ok(condition)
    }

    /// A key without a deadline counts as one whose deadline never comes.
    fn holds(&self, before: Option<u64>, after: u64) -> bool {
        let fits_later = !self.later || before.is_some_and(|before| after > before);
        let fits_earlier = !self.earlier || before.is_none_or(|before| after < before);
        let fits_presence = match before {
            Some(_) => !self.none_before,
            None => !self.some_before,
        };
        fits_presence && fits_later && fits_earlier
    }
}

/// `PERSIST key`.
pub(crate) fn persist<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let key = request.arg(0);
    match shard.find(key, now_ms) {
        Some(found) if shard.entry(found).deadline_ms().is_some() => {
            shard.set_deadline(found, key, None, changes);
            Reply::Integer(1)
        }
        _ => Reply::Integer(0),
    }
}

/// `TTL key`: to the nearest second.
pub(crate) fn ttl<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    _changes: &mut Changes,
) -> Reply<'s> {
    Reply::Integer(match time_to_live_ms(shard, request.arg(0), now_ms) {
        ms @ ..0 => ms,
        ms => ms.saturating_add(500) / 1000,
    })
}

/// `PTTL key`.
pub(crate) fn pttl<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    _changes: &mut Changes,
) -> Reply<'s> {
    Reply::Integer(time_to_live_ms(shard, request.arg(0), now_ms))
}

/// Milliseconds until the deadline; -1 if there is none, -2 if there is no key.
fn time_to_live_ms(shard: &mut Shard, key: &[u8], now_ms: u64) -> i64 {
    let Some(found) = shard.look_up(key, now_ms) else { return -2 };
    match shard.entry(found).deadline_ms() {
        Some(deadline_ms) => i64::try_from(shard.due_ms(deadline_ms) - now_ms).unwrap_or(i64::MAX),
        None => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::TimeUnit;
    use crate::Dialect;
    use crate::commands::transcript;

    #[test]
    fn setex_sets_value_and_deadline_at_once() {
        transcript::run(
            r#"> SETEX a 10 x
               OK
               ! put a=x until 11000
               > SETEX a 0 y
               InvalidExpire SETEX
               !
               > SETEX a -1 y
               InvalidExpire SETEX
               > SETEX a ten y
               ExpireNotAnInteger
               > SETEX a 9223372036854775807 y
               InvalidExpire SETEX
               > GET a
               "x"
               "#,
        );
    }

    #[test]
    fn expire_sets_a_deadline_on_a_key_that_exists() {
        transcript::run(
            "> EXPIRE a 10
             0
             !
             > SET a x
             OK
             > EXPIRE a 10
             1
             ! deadline a until 11000
             > TTL a
             10
             @ 11000
             > EXPIRE a 10
             0",
        );
    }

    #[test]
    fn expire_in_the_past_removes_the_key() {
        for seconds in ["0", "-1", "-9223372036854775"] {
            transcript::run(&format!("> SET a x\nOK\n> EXPIRE a {seconds}\n1\n! remove a\n> EXISTS a\n0"));
        }
    }

    #[test]
    fn expire_holds_to_its_conditions() {
        transcript::run(
            "> SET a x
             OK
             > EXPIRE a 10 XX
             0
             > EXPIRE a 10 GT
             0
             > EXPIRE a 10 nx
             1
             > EXPIRE a 20 NX
             0
             > EXPIRE a 10 GT
             0
             > EXPIRE a 11 GT
             1
             > EXPIRE a 11 LT
             0
             > EXPIRE a 5 XX LT
             1
             > TTL a
             5
             > EXPIRE a -1 GT
             0
             > EXPIRE a -1 LT
             1
             ! remove a
             > SET a x
             OK
             > EXPIRE a 100 LT
             1
             ! deadline a until 101000",
        );
    }

    #[test]
    fn expire_refuses_what_redis_refuses() {
        for (arguments, refusal) in [
            ("x", "ExpireNotAnInteger"),
            ("9223372036854775807", "InvalidExpire EXPIRE"),
            ("9223372036854775", "InvalidExpire EXPIRE"),
            ("-9223372036854775807", "InvalidExpire EXPIRE"),
            ("x NX XX", "IncompatibleOptions(\"NX and XX, GT or LT\")"),
            ("1 NX LT", "IncompatibleOptions(\"NX and XX, GT or LT\")"),
            ("1 LT GT", "IncompatibleOptions(\"GT and LT\")"),
            ("x AB", "UnsupportedOption([65, 66])"),
        ] {
            transcript::run(&format!("> SET a 1\nOK\n> EXPIRE a {arguments}\n{refusal}\n!\n> TTL a\n-1"));
        }
    }

    #[test]
    fn the_text_protocol_takes_only_times_to_come() {
        for seconds in ["0", "-1", "ten", "1.5", "9223372036854775807"] {
            let transcript = format!(
                "> SET a x
                 OK
                 > EXPIRE a {seconds}
                 InvalidExpire EXPIRE
                 !
                 > EXPIRE nope {seconds}
                 InvalidExpire EXPIRE
                 > SETEX a {seconds} y
                 InvalidExpire SETEX
                 > TTL a
                 -1",
            );
            transcript::run_in(Dialect::Text, &transcript);
        }
    }

    #[test]
    fn persist_removes_a_deadline() {
        transcript::run(
            "> SETEX a 10 x
             OK
             > PERSIST a
             1
             ! deadline a
             > PERSIST a
             0
             !
             > PERSIST nope
             0
             > TTL a
             -1
             > SETEX a 1 x
             OK
             @ 2000
             > PERSIST a
             0
             !",
        );
    }

    #[test]
    fn times_to_live_run_on_when_the_wall_clock_is_set_and_moments_follow_it() {
        transcript::run(
            "> SET lock x PX 1500
             OK
             ! put lock=x until 2500
             > SET at x PXAT 2500
             OK
             ! put at=x until 2500 by the wall clock
             ~ -3600000
             > PTTL lock
             1500
             > PTTL at
             3601500
             > EXPIRE at 3600 GT
             0
             > EXPIRE at 3602 GT
             1
             ! deadline at until 3603000
             @ 2500
             > GET lock
             nil
             > GET at
             \"x\"
             ~ 31536000000
             > SET lock x PX 1500
             OK
             ! put lock=x until 4000
             > SET at x EXAT 31536003
             OK
             > PTTL at
             500
             > SET at y KEEPTTL
             OK
             ! put at=y until 31536003000 by the wall clock
             @ 3000
             > GET at
             nil
             ~ 0
             > GET at
             nil
             > PTTL lock
             1000
             @ 4000
             > GET lock
             nil",
        );
    }

    #[test]
    fn ttl_rounds_to_the_nearest_second() {
        transcript::run(
            "> TTL a
             -2
             > PTTL a
             -2
             > SET a x PX 1499
             OK
             > TTL a
             1
             > PTTL a
             1499
             > SET a x PX 1500
             OK
             > TTL a
             2
             > SET a x PX 499
             OK
             > TTL a
             0
             > SET a x
             OK
             > TTL a
             -1
             > PTTL a
             -1",
        );
    }

    #[test]
    fn every_unit_means_its_moment() {
        let moments = TimeUnit::ALL.map(|unit| unit.deadline_ms(3, 10));
        assert_eq!(moments, [Some(3010), Some(13), Some(3000), Some(3)]);
    }
}
