use std::collections::BTreeMap;
use std::sync::Arc;

use shard::{Changes, Glob, Reply, Scan, Shard};

use crate::dice::{Dice, each_seed};
use crate::requests::Call;

const STAYING_KEYS: usize = 700;
/// So many that the keyspace splits its segments several times, and merges them again when they go.
const PASSING_KEYS: usize = 9000;
const NOW_MS: u64 = 5;

fn staying(index: usize) -> Vec<u8> {
    format!("stay:{index}").into_bytes()
}

fn run(shard: &mut Shard, name: &str, args: &[&[u8]]) {
    let mut changes = Changes::default();
    let reply = Call::new(name, args).run(shard, NOW_MS, &mut changes);
    assert!(matches!(reply, Reply::Ok | Reply::Integer(_)), "{reply:?}");
}

/// Adds or removes keys that do not stay, and changes some that do.
fn churn(shard: &mut Shard, dice: &mut Dice, growing: bool) {
    for _ in 0..dice.below(1200) {
        let key = format!("pass:{}", dice.below(PASSING_KEYS)).into_bytes();
        match growing {
            true => run(shard, "SET", &[&key, &vec![0; dice.below(40)]]),
            false => run(shard, "DEL", &[&key]),
        }
    }
    for _ in 0..20 {
        let key = staying(dice.below(STAYING_KEYS));
        match dice.below(3) {
            0 => run(shard, "SETEX", &[&key, b"100", &vec![1; dice.below(100)]]),
            1 => run(shard, "PERSIST", &[&key]),
            _ => run(shard, "APPEND", &[&key, b"more"]),
        }
    }
}

#[test]
fn a_key_that_stays_is_seen_once_while_the_keyspace_grows_and_shrinks() {
    let name = "a_key_that_stays_is_seen_once_while_the_keyspace_grows_and_shrinks";
    each_seed(name, 4, |dice, trace| {
        let mut shard = Shard::new(std::array::from_fn(|_| dice.roll()));
        for index in 0..STAYING_KEYS {
            run(&mut shard, "SET", &[&staying(index), b"x"]);
        }
        for walk in 0..4 {
            let growing = walk % 2 == 0;
            let pattern = dice.one_in(2).then(|| Arc::new(Glob::new(b"stay:*").unwrap()));
            let mut seen = BTreeMap::new();
            let mut scan = Scan::new(0, 0, pattern.clone());
            while scan.position().is_some() || !scan.is_decided() {
                trace.step();
                let (count, mut steps) = (1 + dice.below(900), 1 + dice.below(200_000));
                shard.scan(&mut scan, count, &mut steps, NOW_MS, |key| {
                    *seen.entry(key.to_vec()).or_insert(0) += 1;
                });
                churn(&mut shard, dice, growing);
            }
            for index in 0..STAYING_KEYS {
                let times = seen.remove(&staying(index));
                assert_eq!(times, Some(1), "walk {walk}: key {index} stayed and was seen {times:?} times");
            }
            assert!(pattern.is_none() || seen.is_empty(), "only keys that match are shown");
        }
    });
}
