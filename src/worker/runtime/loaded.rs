//! What is there only once a shard is in memory.

use std::ops::{Deref, DerefMut};

/// What a worker has from the moment on at which its shard is in memory. Until then it is not to be asked for: no
/// command on keys runs before every shard is there.
#[derive(Debug)]
pub struct Loaded<T>(Option<T>);

impl<T> Loaded<T> {
    /// Not there yet.
    pub fn not_yet() -> Loaded<T> {
        Loaded(None)
    }

    /// There from now on.
    pub fn set(&mut self, value: T) {
        self.0 = Some(value);
    }

    /// What is there, if it is.
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// Takes it out, if it is there.
    pub fn into_inner(self) -> Option<T> {
        self.0
    }
}

const TOO_EARLY: &str = "nothing is asked of a shard that is not loaded";

impl<T> Deref for Loaded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().expect(TOO_EARLY)
    }
}

impl<T> DerefMut for Loaded<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(TOO_EARLY)
    }
}
