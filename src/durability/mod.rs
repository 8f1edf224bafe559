//! A shard's way to the disk while it serves: what a turn changed, the answers that wait for it, and the snapshots that
//! replace a long log.

mod commit;
pub mod commit_delay;
pub mod compaction;
mod disk_health;
mod helper;
pub mod journal;
mod pending;
mod segments;
mod slices;
pub mod snapshotter;
mod uncommitted;

pub use disk_health::UNSYNCED_FILES_MAX;
