//! Sends the same random requests to kvlite and to a real Redis, and demands the same replies, the same messages and, now
//! and then, the same keys, values, types and deadlines.
//!
//! A walk is some hundred requests that follow from its seed alone, over several connections of either RESP version,
//! pipelined or not, with transactions, scripts and subscribers among them. A walk that finds a difference is shortened
//! for as long as it still finds it, and printed with its seed. What differs on purpose stands in one list with its
//! reason (`differences.rs`); requests that are not sent stand in `rows.rs`.
//!
//! Variables, besides `KVLITE_TEST_SERVER`:
//!
//! - `KVLITE_DIFFERENTIAL_COMMANDS=N` sends N requests in place of 20,000; `make differential` does.
//! - `KVLITE_DIFFERENTIAL_SEED=N` runs walks from seed N on, in place of the usual ones.
//! - `KVLITE_DIFFERENTIAL_WALKS=N` runs so many walks: with a seed and 1, that walk alone.
//! - `KVLITE_DIFFERENTIAL_REDIS=1` compares the Redis with another Redis: what then differs is the comparison's fault.
//!
//! Where no `redis-server` of version 7.0 is installed, it says so and passes.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

#[path = "../harness/mod.rs"]
mod harness; // one server, its clients, choices that can be repeated
use harness::{client, process, random, redis, words};

mod compare; // two replies
mod differences; // what differs on purpose
mod generator; // a walk from its seed
mod rows; // what is sent
mod walk; // a walk over both servers

use std::collections::BTreeMap;
use std::time::Instant;

use crate::generator::{Plan, Vocabulary};
use crate::walk::{Difference, Pair};

/// Requests of a walk, about.
const REQUESTS_PER_WALK: usize = 250;

/// Differences of one kind are shown once, and no more kinds than these.
const SHOWN_MAX: usize = 60;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

#[test]
fn replies_as_redis_does() {
    let Some(mut pair) = Pair::start() else { return };
    let vocabulary = Vocabulary::shared(&mut pair);
    let first = number("KVLITE_DIFFERENTIAL_SEED").unwrap_or(1);
    let requests = number("KVLITE_DIFFERENTIAL_COMMANDS").unwrap_or(20_000) as usize;
    let walks = number("KVLITE_DIFFERENTIAL_WALKS").unwrap_or(requests.div_ceil(REQUESTS_PER_WALK) as u64);
    println!("{walks} walks from KVLITE_DIFFERENTIAL_SEED={first} on");
    let start = Instant::now();
    let mut found: BTreeMap<String, (u64, Difference)> = BTreeMap::new();
    let mut sent = 0;
    for seed in first..first + walks {
        let plan = Plan::new(seed, REQUESTS_PER_WALK, &vocabulary);
        sent += plan.len();
        if let Err(difference) = pair.walk(&plan) {
            found.entry(difference.kind()).or_insert((seed, difference));
        }
        if found.len() == SHOWN_MAX {
            break;
        }
    }
    println!("{sent} requests in {:.1} s", start.elapsed().as_secs_f64());
    for (seed, difference) in found.values() {
        let plan = Plan::new(*seed, REQUESTS_PER_WALK, &vocabulary).up_to(difference.step);
        let (shortest, difference) = pair.shorten(plan, difference.clone());
        println!("\nKVLITE_DIFFERENTIAL_SEED={seed} KVLITE_DIFFERENTIAL_WALKS=1\n{shortest}{difference}");
    }
    assert!(found.is_empty(), "{} kinds of differences between Redis and kvlite, see above", found.len());
}

#[test]
fn every_command_that_both_have_is_sent_or_named() {
    let Some(mut pair) = Pair::start() else { return };
    if pair.is_redis_twice() {
        return; // It has data types that kvlite has not.
    }
    let shared = pair.shared_commands();
    let sent = |command: &String| {
        let words = command.replace('|', " ").to_uppercase();
        rows::ROWS.iter().any(|row| {
            let text = format!("{} {}", row.name, row.form);
            row.name == words
                || words.split_once(' ').is_some_and(|(container, sub)| {
                    row.name == container && text.split([' ', '(', ')', '|']).any(|word| word == sub)
                })
        })
    };
    let is_left_out = |command: &String| {
        let container = command.split('|').next().unwrap();
        rows::LEFT_OUT.iter().any(|(name, _)| name == command || *name == container)
    };
    let missing: Vec<&String> =
        shared.iter().filter(|command| !sent(command) && !is_left_out(command)).collect();
    assert!(missing.is_empty(), "these need a row, or a reason in LEFT_OUT: {missing:?}");
}
