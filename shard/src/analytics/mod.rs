//! What a shard knows about the use of its keys, in bounded memory, whatever the number of distinct keys.
//!
//! The parts are plain data structures that know nothing of the shard: hashes and names of keys, sizes, the
//! time and seeds are arguments, and what comes out depends on nothing else. In reading order:
//!
//! - `hot` the keys that are used most
//! - `classes` kinds of keys, learnt from their names
//! - `intervals` how long keys rest between two uses, and the TTL that follows
//! - `reuse` the hit ratio to expect with more or less memory
//! - `load` the measured load over the hours of the week, and its forecast
//! - `anomalies` which series have left what is normal for them

pub mod anomalies;
pub mod classes;
mod gate;
pub mod hot;
pub mod intervals;
pub mod load;
pub mod reuse;
