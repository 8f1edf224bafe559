//! Locks on keys of one shard, for requests that touch several shards at the same moment.
//!
//! A transaction locks its keys on every shard, runs, and releases them. A request that finds a key locked waits;
//! waiters are served in the order in which they came, and none overtakes a waiter that wants one of the
//! same keys incompatibly: a client's requests keep their order. Nearly always there are no locks and no
//! waiters, which [`LockTable::is_idle`] tells at the cost of two comparisons. The table decides only who
//! may go on. It runs nothing, and does not look for deadlocks: transactions that wait have to ask the
//! shards in one order.
//!
//! Keys are known by their [hashes](LockTable::hash): two keys that share one are locked together, which makes a
//! client wait, at worst.

use std::collections::VecDeque;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::mesh::TransactionId;

/// What is to be locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockKeys {
    /// The whole shard; excludes everything else, shared or not.
    Whole,
    /// The keys with these hashes. A key that is named twice is locked once.
    Each(Vec<u64>),
}

/// A request or a part that has to wait for locks of others.
#[derive(Debug)]
pub struct Waiter<W> {
    /// The keys that are needed.
    pub keys: LockKeys,
    /// Whether no other may have them meanwhile.
    pub exclusive: bool,
    /// What is handed back when the waiter's turn comes.
    pub payload: W,
    /// The transaction that gets the locks when its turn comes; `None` for a request that then runs at once.
    pub lock_for: Option<TransactionId>,
}

/// The locks of one shard. `W` is what its user knows a waiter by.
#[derive(Debug)]
pub struct LockTable<W> {
    hasher: RandomState,
    /// Of every key that is locked or waited for, by how many.
    claims: HashMap<u64, Claims, RandomState>,
    whole_held: bool,
    whole_waiting: usize,
    held: Vec<Lock>,
    waiters: VecDeque<Waiter<W>>,
}

#[derive(Debug)]
struct Lock {
    transaction: TransactionId,
    keys: LockKeys,
    exclusive: bool,
}

/// Those who hold a key, or wait for it.
#[derive(Debug, Default)]
struct Claims {
    shared: usize,
    exclusive: usize,
    shared_waiting: usize,
    exclusive_waiting: usize,
}

impl Claims {
    fn exclude(&self, exclusive: bool) -> bool {
        let exclusives = self.exclusive + self.exclusive_waiting;
        exclusives > 0 || exclusive && self.shared + self.shared_waiting > 0
    }

    fn are_none(&self) -> bool {
        self.shared + self.exclusive + self.shared_waiting + self.exclusive_waiting == 0
    }
}

impl<W> LockTable<W> {
    /// A table without locks. The seeds have to be random and secret, as those of the keyspace.
    pub fn new(seeds: [u64; 4]) -> Self {
        let hasher = RandomState::with_seeds(seeds[0], seeds[1], seeds[2], seeds[3]);
        LockTable {
            hasher: hasher.clone(),
            claims: HashMap::with_hasher(hasher),
            whole_held: false,
            whole_waiting: 0,
            held: Vec::new(),
            waiters: VecDeque::new(),
        }
    }

    /// Whether there are neither locks nor waiters: all may go on.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.waiters.is_empty()
    }

    /// What the table knows a key by.
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Whether a request that uses the keys with these hashes has to wait: one of them is locked incompatibly, or a
    /// waiter who came earlier waits for it incompatibly. A request that uses the whole shard has to wait unless all is
    /// idle.
    pub fn conflicts(&self, mut hashes: impl Iterator<Item = u64>, exclusive: bool) -> bool {
        if self.is_idle() {
            return false;
        }
        let excluded = |hash| self.claims.get(&hash).is_some_and(|claims: &Claims| claims.exclude(exclusive));
        self.whole_held || self.whole_waiting > 0 || hashes.any(excluded)
    }

    /// Locks all of these keys for a transaction, or none; whether it did. A transaction that has locks here
    /// must not ask for more: its own would be in its way.
    pub fn try_lock(&mut self, transaction: TransactionId, keys: LockKeys, exclusive: bool) -> bool {
        let keys = without_repeats(keys);
        if self.excluded(&keys, exclusive) {
            return false;
        }
        self.lock(transaction, keys, exclusive);
        true
    }

    /// Puts a waiter at the end of the queue, after [`LockTable::conflicts`] or [`LockTable::try_lock`] said
    /// that it cannot go on now.
    pub fn wait(&mut self, waiter: Waiter<W>) {
        let waiter = Waiter { keys: without_repeats(waiter.keys), ..waiter };
        debug_assert!(self.excluded(&waiter.keys, waiter.exclusive), "a waiter waits for another");
        self.claim_waiting(&waiter.keys, waiter.exclusive);
        self.waiters.push_back(waiter);
    }

    /// Frees the locks of a transaction, if it has any, and takes it out of the queue, if it waits. Adds to
    /// `granted` all whose turn has come, in the order in which they have to run; transactions
    /// among them have their locks.
    pub fn release(&mut self, transaction: TransactionId, granted: &mut Vec<W>) {
        while let Some(index) = self.held.iter().position(|lock| lock.transaction == transaction) {
            let lock = self.held.swap_remove(index);
            self.unlock(&lock);
        }
        if self.waiters.is_empty() {
            return;
        }
        // All queue up anew, in the old order: one that is not excluded by those before leaves the
        // queue.
        let waiters = std::mem::take(&mut self.waiters);
        self.forget_waiting();
        for waiter in waiters {
            let Waiter { keys, exclusive, payload, lock_for } = waiter;
            if lock_for == Some(transaction) {
                continue;
            }
            if self.excluded(&keys, exclusive) {
                self.claim_waiting(&keys, exclusive);
                self.waiters.push_back(Waiter { keys, exclusive, payload, lock_for });
                continue;
            }
            if let Some(transaction) = lock_for {
                self.lock(transaction, keys, exclusive);
            }
            granted.push(payload);
        }
    }

    fn excluded(&self, keys: &LockKeys, exclusive: bool) -> bool {
        match keys {
            LockKeys::Whole => !self.is_idle(),
            LockKeys::Each(keys) => self.conflicts(keys.iter().copied(), exclusive),
        }
    }

    fn lock(&mut self, transaction: TransactionId, keys: LockKeys, exclusive: bool) {
        match &keys {
            LockKeys::Whole => self.whole_held = true,
            LockKeys::Each(each) => {
                for hash in each {
                    let claims = self.claims.entry(*hash).or_default();
                    *if exclusive { &mut claims.exclusive } else { &mut claims.shared } += 1;
                }
            }
        }
        self.held.push(Lock { transaction, keys, exclusive });
    }

    fn unlock(&mut self, lock: &Lock) {
        let LockKeys::Each(keys) = &lock.keys else {
            self.whole_held = false;
            return;
        };
        for hash in keys {
            let claims = self.claims.get_mut(hash).expect("a locked key is claimed");
            *if lock.exclusive { &mut claims.exclusive } else { &mut claims.shared } -= 1;
            if claims.are_none() {
                self.claims.remove(hash);
            }
        }
    }

    fn claim_waiting(&mut self, keys: &LockKeys, exclusive: bool) {
        let LockKeys::Each(keys) = keys else {
            self.whole_waiting += 1;
            return;
        };
        for hash in keys {
            let claims = self.claims.entry(*hash).or_default();
            *if exclusive { &mut claims.exclusive_waiting } else { &mut claims.shared_waiting } += 1;
        }
    }

    fn forget_waiting(&mut self) {
        self.whole_waiting = 0;
        self.claims.retain(|_, claims| {
            *claims = Claims { shared_waiting: 0, exclusive_waiting: 0, ..*claims };
            !claims.are_none()
        });
    }
}

fn without_repeats(keys: LockKeys) -> LockKeys {
    match keys {
        LockKeys::Whole => LockKeys::Whole,
        LockKeys::Each(mut keys) => {
            keys.sort_unstable();
            keys.dedup();
            LockKeys::Each(keys)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(key: &str) -> u64 {
        table().hash(key.as_bytes())
    }

    fn each(keys: &str) -> LockKeys {
        LockKeys::Each(keys.split_terminator(' ').map(hash).collect())
    }

    fn table() -> LockTable<u32> {
        LockTable::new([1, 2, 3, 4])
    }

    fn waiter(keys: LockKeys, exclusive: bool, payload: u32, lock_for: Option<u64>) -> Waiter<u32> {
        Waiter { keys, exclusive, payload, lock_for }
    }

    fn released(table: &mut LockTable<u32>, transaction: u64) -> Vec<u32> {
        let mut granted = Vec::new();
        table.release(transaction, &mut granted);
        granted
    }

    #[test]
    fn shared_locks_go_together_and_exclusive_ones_do_not() {
        let mut table = table();
        assert!(table.try_lock(1, each("a b"), false));
        assert!(table.try_lock(2, each("b c"), false));
        assert!(!table.try_lock(3, each("d c"), true));
        assert!(!table.conflicts([hash("d")].into_iter(), true), "a refused lock leaves nothing behind");
        assert!(table.try_lock(4, each("d d"), true));
        assert!(table.conflicts([hash("d")].into_iter(), false));
        assert!([1, 2, 4].iter().all(|transaction| released(&mut table, *transaction).is_empty()));
        assert!(table.is_idle() && table.claims.is_empty());
    }

    #[test]
    fn a_waiter_is_not_overtaken() {
        let mut table = table();
        assert!(table.try_lock(1, each("a"), false));
        table.wait(waiter(each("a b"), true, 10, Some(2)));
        assert!(!table.try_lock(3, each("a"), false), "a shared lock would overtake the waiter");
        assert!(table.conflicts([hash("b")].into_iter(), false), "so would a request on a key still free");
        table.wait(waiter(each("b"), false, 11, None));
        table.wait(waiter(each("a"), false, 12, None));
        assert_eq!(released(&mut table, 1), [10]);
        assert_eq!(released(&mut table, 2), [11, 12]);
        assert!(table.is_idle() && table.claims.is_empty());
    }

    #[test]
    fn the_whole_shard_excludes_everything() {
        let mut table = table();
        assert!(table.try_lock(1, each("a"), false));
        assert!(!table.try_lock(2, LockKeys::Whole, true));
        table.wait(waiter(LockKeys::Whole, true, 10, Some(2)));
        assert!(table.conflicts([hash("z")].into_iter(), false));
        table.wait(waiter(each("z"), false, 11, None));
        assert_eq!(released(&mut table, 1), [10]);
        assert!(!table.try_lock(3, each("y"), false));
        assert_eq!(released(&mut table, 2), [11]);
        assert!(table.is_idle());
    }

    #[test]
    fn a_transaction_that_gives_up_leaves_the_queue() {
        let mut table = table();
        assert!(table.try_lock(1, each("a"), true));
        table.wait(waiter(each("a b"), true, 10, Some(2)));
        table.wait(waiter(each("b"), true, 11, None));
        assert_eq!(released(&mut table, 2), [11]);
        assert_eq!(released(&mut table, 1), [0_u32; 0]);
        assert!(table.is_idle() && table.claims.is_empty());
    }

    /// What is wanted: a set of keys, one bit each; all bits stand for the whole shard.
    #[derive(Clone, Copy, Debug)]
    struct Want {
        id: u32,
        keys: u8,
        exclusive: bool,
        locks: bool,
    }

    impl Want {
        fn lock_keys(self) -> LockKeys {
            if self.keys == u8::MAX {
                return LockKeys::Whole;
            }
            LockKeys::Each((0..8_u64).filter(|bit| self.keys >> bit & 1 == 1).collect())
        }

        fn excludes(self, other: Want) -> bool {
            let whole = self.keys == u8::MAX || other.keys == u8::MAX;
            whole || self.keys & other.keys != 0 && (self.exclusive || other.exclusive)
        }
    }

    fn wants() -> impl Strategy<Value = Vec<(u8, bool, bool, bool)>> {
        let keys = prop_oneof![8 => (0..8u8).prop_map(|bit| 1 << bit), 8 => 0..255u8, 1 => Just(u8::MAX)];
        proptest::collection::vec((keys, any::<bool>(), any::<bool>(), any::<bool>()), 1..80)
    }

    proptest! {
        /// The table grants what two plain lists, of those who hold and those who wait, say.
        #[test]
        fn grants_agree_with_two_lists(wants in wants(), releases: Vec<u8>) {
            let mut table = table();
            let (mut holding, mut waiting): (Vec<Want>, Vec<Want>) = (Vec::new(), Vec::new());
            let mut releases = releases.into_iter();
            let mut rest = wants.into_iter().zip(0..);
            loop {
                let want = rest.next().map(|((keys, exclusive, locks, release), id)| {
                    (Want { id, keys, exclusive, locks }, release)
                });
                if want.is_none() && holding.is_empty() {
                    break;
                }
                if let Some((want, _)) = want {
                    let excluded = holding.iter().chain(&waiting).any(|other| other.excludes(want));
                    let lock_for = want.locks.then_some(u64::from(want.id));
                    let goes_on = match (lock_for, want.lock_keys()) {
                        (Some(transaction), keys) => table.try_lock(transaction, keys, want.exclusive),
                        (None, LockKeys::Whole) => table.is_idle(),
                        (None, LockKeys::Each(keys)) => {
                            !table.conflicts(keys.into_iter(), want.exclusive)
                        }
                    };
                    prop_assert_eq!(goes_on, !excluded, "{:?}", want);
                    match goes_on {
                        true if want.locks => holding.push(want),
                        true => {}
                        false => {
                            table.wait(waiter(want.lock_keys(), want.exclusive, want.id, lock_for));
                            waiting.push(want);
                        }
                    }
                }
                if want.is_none_or(|(_, release)| release) {
                    let index = usize::from(releases.next().unwrap_or(0));
                    let transactions = holding.iter().chain(waiting.iter().filter(|want| want.locks));
                    let ids: Vec<u32> = transactions.map(|want| want.id).collect();
                    let Some(&transaction) = ids.get(index % ids.len().max(1)) else { continue };
                    let granted = released(&mut table, transaction.into());
                    holding.retain(|want| want.id != transaction);
                    let mut expected = Vec::new();
                    let mut still_waiting: Vec<Want> = Vec::new();
                    for want in waiting.into_iter().filter(|want| want.id != transaction) {
                        if holding.iter().chain(&still_waiting).any(|other| other.excludes(want)) {
                            still_waiting.push(want);
                        } else {
                            expected.push(want.id);
                            holding.extend(want.locks.then_some(want));
                        }
                    }
                    waiting = still_waiting;
                    prop_assert_eq!(granted, expected);
                }
            }
            prop_assert!(waiting.is_empty(), "each gets a turn");
            prop_assert!(table.is_idle() && table.claims.is_empty());
        }
    }
}
