//! What each command of the keyspace does.

use crate::{Changes, Reply, Request, Shard};

/// append
pub fn append<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// clear
pub fn clear<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// dbsize
pub fn dbsize<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// decr
pub fn decr<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// decrby
pub fn decrby<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// del
pub fn del<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// exists
pub fn exists<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// expire
pub fn expire<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// get
pub fn get<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// incr
pub fn incr<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// incrby
pub fn incrby<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// mget
pub fn mget<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// mset
pub fn mset<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// persist
pub fn persist<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// pttl
pub fn pttl<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// set
pub fn set<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// setex
pub fn setex<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// setnx
pub fn setnx<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// strlen
pub fn strlen<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
/// ttl
pub fn ttl<'s>(_shard: &'s mut Shard, _request: &Request<'_>, _now_ms: u64, _changes: &mut Changes) -> Reply<'s> { Reply::Nil }
