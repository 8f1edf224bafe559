//! A shard's way to the disk while it serves: what a turn changed, the answers that wait for it, and the snapshots that
//! replace a long log.

pub mod commit_delay;
pub mod compaction;
pub mod journal;
pub mod snapshotter;
