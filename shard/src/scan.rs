//! A walk over the keys of one shard that shows those that match a pattern, in slices of bounded work. It keeps no
//! hold of the keyspace between two slices.

use std::sync::Arc;

use crate::glob::{Glob, Matching};

/// To visit a key takes as much time as so many steps of comparing: it is seldom in the processor's caches.
pub(crate) const KEY_STEPS: usize = 128;

/// To show or copy so many bytes of a key takes as much time as one step.
const BYTES_PER_STEP: usize = 8;

/// How many steps a key takes that is visited and shown or copied.
pub(crate) fn steps_of(key: &[u8]) -> usize {
    KEY_STEPS + key.len() / BYTES_PER_STEP
}

/// A walk on its way.
#[derive(Debug)]
pub struct Scan {
    /// The number of the database.
    pub(crate) database: u16,
    /// Where to go on; `None` at the end of the shard.
    pub(crate) position: Option<u64>,
    pub(crate) pattern: Option<Arc<Glob>>,
    /// Copies of keys that were visited when no step was left to compare them: most often one, sometimes those few
    /// that share its position.
    pub(crate) undecided: Vec<(Box<[u8]>, Matching)>,
}

impl Scan {
    /// A walk over a database that begins at a position, 0 for all keys.
    pub fn new(database: u16, position: u64, pattern: Option<Arc<Glob>>) -> Scan {
        Scan { database, position: Some(position), pattern, undecided: Vec::new() }
    }

    /// Where a later walk goes on; `None` at the end of the shard.
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// Whether all keys that were visited have been compared.
    pub fn is_decided(&self) -> bool {
        self.undecided.is_empty()
    }

    /// Goes on with the keys that are undecided, as far as the steps go.
    pub(crate) fn decide(&mut self, steps: &mut usize, mut emit: impl FnMut(&[u8])) {
        let Scan { undecided, pattern, .. } = self;
        let glob = pattern.as_deref().expect("without a pattern, nothing is compared");
        while let Some((key, matching)) = undecided.last_mut() {
            match matching.go_on(glob, key, steps) {
                None => return,
                Some(true) => {
                    *steps = steps.saturating_sub(steps_of(key));
                    emit(key);
                }
                Some(false) => {}
            }
            undecided.pop();
        }
    }

    /// Takes a key that is visited.
    pub(crate) fn take(&mut self, key: &[u8], steps: &mut usize, mut emit: impl FnMut(&[u8])) {
        let mut matching = Matching::default();
        let found = match self.pattern.as_deref() {
            None => Some(true),
            Some(glob) => matching.go_on(glob, key, steps),
        };
        match found {
            Some(true) => emit(key),
            Some(false) => {}
            None => self.undecided.push((key.into(), matching)),
        }
        *steps = steps.saturating_sub(if found == Some(false) { KEY_STEPS } else { steps_of(key) });
    }
}
