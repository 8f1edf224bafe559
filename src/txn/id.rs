//! Ids of transactions, by which the logs of all shards know them.

use crate::mesh::TransactionId;
use crate::slots::SHARDS_MAX;

/// The id of a transaction whose parts are run at this time by this worker: `micros:54 worker:10`. The time is in
/// microseconds since the Unix epoch; a worker never uses the same one twice.
pub fn transaction_id(micros: u64, worker: usize) -> TransactionId {
    micros << 10 | worker as u64
}

/// The greatest time of an id, in the year 2255: a wall clock that shows a later one is wrong, and its ids would wrap.
pub const ID_MICROS_MAX: u64 = 1 << 53;

/// The time in an id.
pub fn id_micros(id: TransactionId) -> u64 {
    id >> 10
}

/// The id that marks a snapshot which begins at this time: not below that of any transaction of its shard.
pub fn snapshot_id(micros: u64, last_id: TransactionId) -> TransactionId {
    transaction_id(micros.max(id_micros(last_id)), SHARDS_MAX - 1)
}
