//! What each command of the keyspace does: one function a row of the command table, which has checked the
//! number of arguments. A function that refuses a request has changed nothing.

mod analytics;
mod expiry;
mod keys;
mod strings;

#[cfg(test)]
pub(crate) mod transcript;

pub(crate) use analytics::analyze;
pub(crate) use expiry::{expire, persist, pttl, setex, ttl};
pub(crate) use keys::{clear, dbsize, del, exists, memory_usage};
pub(crate) use strings::{append, decr, decrby, get, incr, incrby, mget, mset, set, setnx, strlen};

use crate::{Error, integer};

/// Reads an argument that has to be an integer.
fn integer(text: &[u8]) -> Result<i64, Error> {
    integer::parse(text).ok_or(Error::NotAnInteger)
}

/// A length or a number of keys as a reply's integer.
fn count(count: usize) -> i64 {
    i64::try_from(count).expect("nothing in memory is counted past 2^63")
}
