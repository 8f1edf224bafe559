//! The keys of a shard: where names, values and deadlines lie in memory. It knows no command, no log and no time.
//!
//! - `keyspace` the table of keys
//! - `buckets` the hashes of a small part of the keys, a cache line each
//! - `arena` the memory of the entries
//! - `entry` the bytes of a key, its value and its deadline
//! - `objects` values that stand outside of the arena
//! - `expiry` the deadlines in their order

mod arena;
mod buckets;
pub(crate) mod entry;
mod expiry;
pub(crate) mod keyspace;
mod objects;
