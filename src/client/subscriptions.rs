//! What a client is subscribed to.

use std::collections::HashMap;

use bytes::Bytes;

use crate::mesh::SubscriptionKind;

/// How many subscriptions a client may have.
pub const SUBSCRIPTIONS_MAX: usize = 1 << 20;

/// The subscriptions of a client: at least one, or the client has none of these.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// The names of each kind, with numbers that tell which are older.
    names: [HashMap<Bytes, u64>; 3],
    next_number: u64,
}

impl Subscriptions {
    /// Begins one. Returns whether there was none to this name.
    pub fn insert(&mut self, kind: SubscriptionKind, name: &Bytes) -> bool {
        let names = &mut self.names[kind as usize];
        if names.contains_key(name) {
            return false;
        }
        self.next_number += 1;
        names.insert(name.clone(), self.next_number);
        true
    }

    /// Ends one. Returns its name, if there was one.
    pub fn remove(&mut self, kind: SubscriptionKind, name: &[u8]) -> Option<Bytes> {
        self.names[kind as usize].remove_entry(name).map(|(name, _)| name)
    }

    /// The names of a kind, the oldest first.
    pub fn names(&self, kind: SubscriptionKind) -> Vec<Bytes> {
        let mut names: Vec<_> = self.names[kind as usize].iter().collect();
        names.sort_unstable_by_key(|(_, number)| **number);
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// How many there are of a kind.
    pub fn count_of(&self, kind: SubscriptionKind) -> usize {
        self.names[kind as usize].len()
    }

    /// How many there are in all.
    pub fn count(&self) -> usize {
        self.names.iter().map(HashMap::len).sum()
    }

    /// The number that a client is told when a subscription of this kind begins or ends: channels and patterns count
    /// together.
    pub fn told_count(&self, kind: SubscriptionKind) -> usize {
        match kind {
            SubscriptionKind::ShardChannel => self.count_of(kind),
            _ => self.count_of(SubscriptionKind::Channel) + self.count_of(SubscriptionKind::Pattern),
        }
    }
}
