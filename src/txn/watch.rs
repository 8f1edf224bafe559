//! Keys that clients watch: whether one has changed since.
//!
//! A shard keeps a version of each key that somebody watches, and of no other. What changes a key raises it. That a key
//! has gone, by its deadline or with all others, needs no version: whoever watched it while it was there does not find it
//! any more, and if it is back, what made it has raised the version.

use ahash::RandomState;
use hashbrown::HashMap;
use shard::Error;

use crate::mesh::Watch;

/// How many keys one client may watch, and how many bytes these may have.
pub const WATCHED_KEYS_MAX: usize = 16 << 10;
/// See [`WATCHED_KEYS_MAX`].
pub const WATCHED_BYTES_MAX: usize = 4 << 20;

/// How many keys of a shard may be watched, and how many bytes these may have.
const KEYS_MAX: usize = 1 << 20;
const BYTES_MAX: usize = 256 << 20;

/// The watched keys of a shard.
#[derive(Default)]
pub struct WatchTable {
    watched: HashMap<Box<[u8]>, Watched, RandomState>,
    bytes: usize,
}

#[derive(Default)]
struct Watched {
    version: u64,
    watchers: usize,
}

impl WatchTable {
    /// Whether no key is watched.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// One more client watches a key, which exists now or not.
    ///
    /// # Errors
    /// Too many are watched.
    pub fn watch(&mut self, key: Box<[u8]>, existed: bool) -> Result<Watch, Error> {
        if !self.watched.contains_key(&key) {
            if self.watched.len() == KEYS_MAX || self.bytes + key.len() > BYTES_MAX {
                return Err(Error::Unavailable("too many keys of a shard are watched; nothing is watched"));
            }
            self.bytes += key.len();
        }
        let watched = self.watched.entry(key.clone()).or_default();
        watched.watchers += 1;
        Ok(Watch { key, version: watched.version, existed })
    }

    /// A client that watched a key does not any more.
    pub fn forget(&mut self, key: &[u8]) {
        let watched = self.watched.get_mut(key).expect("it is watched");
        watched.watchers -= 1;
        if watched.watchers == 0 {
            self.watched.remove(key);
            self.bytes -= key.len();
        }
    }

    /// A key has changed.
    pub fn raise(&mut self, key: &[u8]) {
        if let Some(watched) = self.watched.get_mut(key) {
            watched.version += 1;
        }
    }

    /// Whether a key has changed since it was watched; `exists` tells whether it is there now.
    pub fn has_changed(&self, watch: &Watch, exists: bool) -> bool {
        let version = self.watched.get(&watch.key).map(|watched| watched.version);
        version != Some(watch.version) || watch.existed && !exists
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_changed_if_its_version_has_or_if_it_is_gone() {
        let mut table = WatchTable::default();
        let there = table.watch(b"there"[..].into(), true).unwrap();
        let missing = table.watch(b"missing"[..].into(), false).unwrap();
        assert!(!table.has_changed(&there, true) && table.has_changed(&there, false));
        assert!(!table.has_changed(&missing, false));
        table.raise(b"missing");
        table.raise(b"unwatched");
        assert!(table.has_changed(&missing, false), "it was there meanwhile");
        let later = table.watch(b"missing"[..].into(), false).unwrap();
        assert!(!table.has_changed(&later, false) && table.has_changed(&missing, false));
        for key in ["there", "missing", "missing"] {
            assert!(!table.is_empty());
            table.forget(key.as_bytes());
        }
        assert!(table.is_empty() && table.bytes == 0);
    }
}
