//! Commands on keys, whatever their values are.

use super::{count, integer};
use crate::{Changes, Error, Reply, Request, Shard};

/// `DEL key [key ...]`, also as `DELETE` and `MDEL`.
pub(crate) fn del<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let mut removed = 0;
    for key in request.keys() {
        if let Some(found) = shard.find(key, now_ms) {
            shard.remove(found, key, changes);
            removed += 1;
        }
    }
    Reply::Integer(removed)
}

/// `EXISTS key [key ...]`; a key that is named twice counts twice.
pub(crate) fn exists<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    _changes: &mut Changes,
) -> Reply<'s> {
    Reply::Integer(count(request.keys().filter(|key| shard.look_up(key, now_ms).is_some()).count()))
}

/// `MEMORY USAGE key [SAMPLES count]`. A value is never a sum over samples here, so that the count changes nothing.
/// It does not count as a use of the key.
pub(crate) fn memory_usage<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    _changes: &mut Changes,
) -> Reply<'s> {
    let samples = || request.arg(1).eq_ignore_ascii_case(b"SAMPLES").then(|| integer(request.arg(2)));
    match request.arg_count() {
        1 => {}
        3 => match samples() {
            Some(Ok(0..)) => {}
            Some(Err(error)) => return error.into(),
            Some(Ok(_)) | None => return Error::Syntax.into(),
        },
        _ => return Error::Syntax.into(),
    }
    match shard.find(request.arg(0), now_ms) {
        Some(found) => Reply::Integer(count(shard.footprint_bytes(found))),
        None => Reply::Nil,
    }
}

/// `DBSIZE`.
pub(crate) fn dbsize<'s>(
    shard: &'s mut Shard,
    _request: &Request<'_>,
    _now_ms: u64,
    _changes: &mut Changes,
) -> Reply<'s> {
    Reply::Integer(count(shard.key_count()))
}

/// `FLUSHALL [ASYNC | SYNC]`, also as `FLUSHDB` and `CLEAR`. The memory is freed in the background either
/// way.
pub(crate) fn clear<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    _now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let known = |mode: &[u8]| mode.eq_ignore_ascii_case(b"ASYNC") || mode.eq_ignore_ascii_case(b"SYNC");
    if request.arg_count() > 1 || !request.args().all(known) {
        return Error::Syntax.into();
    }
    shard.clear(changes);
    Reply::Ok
}

#[cfg(test)]
mod tests {
    use crate::commands::transcript;

    #[test]
    fn del_counts_the_keys_that_there_were() {
        transcript::run(
            "> MSET a 1 b 2 c 3
             OK
             > DEL a nope b a
             2
             ! remove a, remove b
             > DELETE nope
             0
             !
             > MDEL c
             1
             > DBSIZE
             0",
        );
    }

    #[test]
    fn del_of_an_expired_key_finds_nothing() {
        transcript::run(
            "> SETEX a 1 x
             OK
             @ 2000
             > DEL a
             0
             !",
        );
    }

    #[test]
    fn exists_counts_repeated_keys() {
        transcript::run(
            "> SET a 1
             OK
             > EXISTS a a nope
             2",
        );
    }

    #[test]
    fn flushing_takes_a_mode_and_nothing_else() {
        transcript::run(
            "> MSET a 1 b 2
             OK
             > FLUSHALL ASYNC SYNC
             Syntax
             !
             > FLUSHALL now
             Syntax
             !
             > DBSIZE
             2
             > FLUSHALL async
             OK
             ! clear
             > DBSIZE
             0
             > SET a 1
             OK
             > FLUSHDB SYNC
             OK
             > GET a
             nil
             > CLEAR
             OK",
        );
    }
}
