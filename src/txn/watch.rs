//! Keys that clients watch: whether one has changed since.
//!
//! A shard keeps a version of each key that a client watches, and of no other. What changes a key raises it. That a key
//! has gone, by its deadline or with all others, needs no version: a client that watched it while it was there does not
//! find it any more, and if it is back, what made it has raised the version.

use ahash::RandomState;
use hashbrown::HashMap;
use shard::{Error, Touched};

use crate::mesh::Watch;

/// How many keys one client may watch, and how many bytes these may have.
pub const WATCHED_KEYS_MAX: usize = 16 << 10;
/// See [`WATCHED_KEYS_MAX`].
pub const WATCHED_BYTES_MAX: usize = 4 << 20;

/// How many keys of a shard may be watched, and how many bytes these may have.
const KEYS_MAX: usize = 1 << 20;
const BYTES_MAX: usize = 256 << 20;

/// The watched keys of a shard, by their keyspaces.
#[derive(Default)]
pub struct WatchTable {
    watched: HashMap<Box<[u8]>, Vec<Watched>, RandomState>,
    bytes: usize,
}

/// The key of one keyspace.
struct Watched {
    keyspace: u16,
    version: u64,
    watchers: usize,
}

impl WatchTable {
    /// Whether no key is watched.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// One more client watches a key of a database, which is this keyspace now; it exists or not.
    ///
    /// # Errors
    /// Too many are watched.
    pub fn watch(
        &mut self,
        database: u16,
        keyspace: u16,
        key: Box<[u8]>,
        existed: bool,
    ) -> Result<Watch, Error> {
        if !self.watched.contains_key(&key) {
            if self.watched.len() == KEYS_MAX || self.bytes + key.len() > BYTES_MAX {
                return Err(Error::Unavailable("too many keys of a shard are watched; nothing is watched"));
            }
            self.bytes += key.len();
        }
        let watched = self.watched.entry(key.clone()).or_default();
        let at = watched.iter().position(|it| it.keyspace == keyspace).unwrap_or_else(|| {
            watched.push(Watched { keyspace, version: 0, watchers: 0 });
            watched.len() - 1
        });
        watched[at].watchers += 1;
        Ok(Watch { database, keyspace, key, version: watched[at].version, existed })
    }

    /// A client that watched a key does not any more.
    pub fn forget(&mut self, watch: &Watch) {
        let watched = self.watched.get_mut(&watch.key).expect("it is watched");
        let at = watched.iter().position(|it| it.keyspace == watch.keyspace).expect("it is watched");
        watched[at].watchers -= 1;
        if watched[at].watchers == 0 {
            watched.swap_remove(at);
        }
        if watched.is_empty() {
            self.watched.remove(&watch.key);
            self.bytes -= watch.key.len();
        }
    }

    /// Something has changed.
    pub fn raise(&mut self, touched: Touched<'_>) {
        match touched {
            Touched::Key(keyspace, key) => {
                let watched = self.watched.get_mut(key).into_iter().flatten();
                watched.filter(|it| it.keyspace == keyspace).for_each(|it| it.version += 1);
            }
            // Databases are others now: all keys count as changed.
            Touched::Databases => self.watched.values_mut().flatten().for_each(|it| it.version += 1),
            Touched::All => {}
        }
    }

    /// Whether a key has changed since it was watched; `exists` tells whether it is there now.
    pub fn has_changed(&self, watch: &Watch, exists: bool) -> bool {
        let mut watched = self.watched.get(&watch.key).into_iter().flatten();
        let version = watched.find(|it| it.keyspace == watch.keyspace).map(|it| it.version);
        version != Some(watch.version) || watch.existed && !exists
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_changed_if_its_version_has_or_if_it_is_gone() {
        let mut table = WatchTable::default();
        let mut watch = |key: &[u8], existed| table.watch(0, 0, key.into(), existed).unwrap();
        let (there, missing) = (watch(b"there", true), watch(b"missing", false));
        let elsewhere = table.watch(3, 3, b"missing"[..].into(), false).unwrap();
        assert!(!table.has_changed(&there, true) && table.has_changed(&there, false));
        assert!(!table.has_changed(&missing, false));
        table.raise(Touched::Key(0, b"missing"));
        table.raise(Touched::Key(0, b"unwatched"));
        table.raise(Touched::All);
        assert!(table.has_changed(&missing, false), "it was there meanwhile");
        assert!(!table.has_changed(&elsewhere, false) && !table.has_changed(&there, true));
        let later = table.watch(0, 0, b"missing"[..].into(), false).unwrap();
        assert!(!table.has_changed(&later, false) && table.has_changed(&missing, false));
        table.raise(Touched::Databases);
        assert!(table.has_changed(&later, false) && table.has_changed(&elsewhere, false));
        for watch in [there, missing, later, elsewhere] {
            assert!(!table.is_empty());
            table.forget(&watch);
        }
        assert!(table.is_empty() && table.bytes == 0);
    }
}
