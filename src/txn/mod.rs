//! Commands that involve several shards or several steps: split, merge, transactions.
//!
//! A write over several shards is a transaction: it locks its keys everywhere, runs everywhere, and unlocks when
//! every shard has written its part to the log; a request for one of its keys meanwhile waits at that key's
//! shard. So no reader sees half of it, and none sees what a crash may still take back. First all
//! locks are asked for at once, and a shard that would have to wait refuses. After a refusal everything is given
//! back, and the locks are asked for again one shard at a time in ascending order, and waited for: transactions
//! that wait for each other all climb in the same order, so they cannot deadlock, and shards grant in the order of
//! arrival, so they do not starve. A read over several shards does the same and reads as it locks. What stands between
//! `MULTI` and `EXEC` is such a transaction, too, in several hops (`program`), and so may be whatever else knows its keys
//! before it begins (`transaction`).
//!
//! What stands here keeps the state of such a command at the worker of the client that asked. It does no I/O: it
//! puts calls into the [`Mesh`](crate::mesh::Mesh) and is told the answers.

pub mod gather;
pub mod id;
pub mod locks;
mod merge;
pub mod program;
pub mod scan;
pub mod transaction;
pub mod watch;
