//! Which keys were changed by frames that a crash could take back.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;
use shard::Request;

/// Which frame last changed a key, for frames that a crash could take back: in the mode `always` those that are not
/// on disk, otherwise those that could not be written. Keys are known by their hash: where two share one, a reader
/// waits for a frame that does not concern it, at worst.
pub(super) struct Uncommitted {
    hasher: RandomState,
    frame_of: HashMap<u64, u64, RandomState>,
    in_order: VecDeque<(u64, u64)>,
    /// The frame that last changed every key.
    of_all: u64,
}

impl Uncommitted {
    pub fn new() -> Uncommitted {
        Uncommitted {
            hasher: RandomState::new(),
            frame_of: HashMap::default(),
            in_order: VecDeque::new(),
            of_all: 0,
        }
    }

    /// A frame changes this key, or every key.
    pub fn note(&mut self, key: Option<&[u8]>, seq: u64) {
        match key {
            Some(key) => {
                let hash = self.hasher.hash_one(key);
                self.frame_of.insert(hash, seq);
                self.in_order.push_back((seq, hash));
            }
            None => self.of_all = seq,
        }
    }

    /// The last of the frames that changed a key of this request; 0 where there is none.
    pub fn last_of(&self, request: &Request<'_>) -> u64 {
        let of_key = |key| self.frame_of.get(&self.hasher.hash_one(key)).copied().unwrap_or(0);
        request.keys().map(of_key).max().unwrap_or(0).max(self.of_all)
    }

    /// No crash takes back the frames up to this one.
    pub fn forget(&mut self, safe_seq: u64) {
        while let Some((seq, hash)) = self.in_order.pop_front_if(|(seq, _)| *seq <= safe_seq) {
            if self.frame_of.get(&hash) == Some(&seq) {
                self.frame_of.remove(&hash);
            }
        }
    }
}
