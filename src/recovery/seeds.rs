//! What no client may know or guess.

use std::hash::{BuildHasher, RandomState};

/// Seeds that no client can know, from the randomness with which the standard library seeds its maps.
pub(crate) fn random_seeds() -> [u64; 4] {
    std::array::from_fn(|index| RandomState::new().hash_one(index))
}

/// A tag for a new layout; see [`wal::Place::tag`].
pub(crate) fn random_tag() -> u32 {
    RandomState::new().hash_one(()) as u32 | 1
}
