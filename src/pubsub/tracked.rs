//! The keys of a shard of which clients keep copies.

use std::collections::HashMap;

use bytes::Bytes;

use crate::net::SocketId;

/// A client that keeps copies of keys: its worker, and its socket there.
pub(crate) type Tracker = (usize, SocketId);

/// Which clients keep copies of which keys of a shard.
#[derive(Debug, Default)]
pub(crate) struct Tracked {
    /// The clients of each key, sorted, and the place of the key in the list of all.
    keys: HashMap<Bytes, (usize, Vec<Tracker>)>,
    /// The keys, for one of them to be chosen when they are too many.
    names: Vec<Bytes>,
    /// How many clients all keys have together.
    copies: usize,
    /// How many there may be, about; 0 for no limit.
    pub keys_max: usize,
    next_victim: usize,
}

impl Tracked {
    /// A client has read a key. Returns another key whose clients have to take it for changed, so that there are not
    /// too many.
    pub fn remember(&mut self, key: &[u8], tracker: Tracker) -> Option<Bytes> {
        if let Some((_, trackers)) = self.keys.get_mut(key) {
            let order = |other: &Tracker| (other.0, other.1.index, other.1.generation);
            if let Err(place) = trackers.binary_search_by_key(&order(&tracker), order) {
                trackers.insert(place, tracker);
                self.copies += 1;
            }
            return None;
        }
        let victim = (self.keys_max > 0 && self.names.len() >= self.keys_max).then(|| {
            self.next_victim = (self.next_victim + 1) % self.names.len();
            self.names[self.next_victim].clone()
        });
        let name = Bytes::copy_from_slice(key);
        self.keys.insert(name.clone(), (self.names.len(), vec![tracker]));
        self.names.push(name);
        self.copies += 1;
        victim
    }

    /// A key has changed: the clients that keep copies of it, until they read it again.
    pub fn take(&mut self, key: &[u8]) -> Vec<Tracker> {
        let Some((place, trackers)) = self.keys.remove(key) else { return Vec::new() };
        self.names.swap_remove(place);
        self.copies -= trackers.len();
        if let Some(moved) = self.names.get(place) {
            self.keys.get_mut(moved).expect("it is in the list").0 = place;
        }
        trackers
    }

    /// How many keys there are, and how many copies of them.
    pub fn counts(&self) -> [usize; 2] {
        [self.names.len(), self.copies]
    }

    /// All keys are gone.
    pub fn clear(&mut self) {
        self.keys = HashMap::new();
        self.names = Vec::new();
        self.copies = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(index: u32) -> Tracker {
        (1, SocketId { index, generation: 0 })
    }

    #[test]
    fn each_reader_of_a_key_is_told_once() {
        let mut tracked = Tracked::default();
        for (key, index) in [("a", 2), ("a", 1), ("a", 2), ("b", 3)] {
            assert_eq!(tracked.remember(key.as_bytes(), tracker(index)), None);
        }
        assert_eq!(tracked.counts(), [2, 3]);
        assert_eq!(tracked.take(b"a"), [tracker(1), tracker(2)]);
        assert_eq!((tracked.take(b"a"), tracked.take(b"b")), (vec![], vec![tracker(3)]));
        assert_eq!(tracked.counts(), [0, 0]);
    }

    #[test]
    fn of_too_many_keys_some_count_as_changed() {
        let mut tracked = Tracked { keys_max: 100, ..Tracked::default() };
        let mut victims = 0;
        for number in 0..1000 {
            if let Some(victim) = tracked.remember(format!("{number}").as_bytes(), tracker(1)) {
                assert_eq!(tracked.take(&victim), [tracker(1)]);
                victims += 1;
            }
            assert!(tracked.names.len() <= 100 && tracked.keys.len() == tracked.names.len());
        }
        assert_eq!(victims, 900);
        for (place, name) in tracked.names.iter().enumerate() {
            assert_eq!(tracked.keys[name].0, place);
        }
    }
}
