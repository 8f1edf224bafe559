//! The rounds of a campaign: one in a test run, as many as asked for in a long run, each with its own seed.

use std::io::Write;

use crate::random::Random;

/// Sync modes, as `--sync-mode` names them.
pub const SYNC_MODES: [&str; 3] = ["always", "everysec", "no"];

/// Numbers of shards.
pub const SHARD_COUNTS: [usize; 3] = [1, 2, 5];

/// Runs the rounds of a campaign.
pub fn run(campaign: &str, mut round: impl FnMut(&mut Random)) {
    let count: u64 = match std::env::var("KVLITE_CRASH_ROUNDS") {
        Ok(count) => count.parse().expect("KVLITE_CRASH_ROUNDS is a number"),
        Err(_) => 1,
    };
    let first = Random::first_seed();
    for index in 0..count {
        println!("{campaign}, round {} of {count}: KVLITE_TEST_SEED={}", index + 1, first + index);
        round(&mut Random::seeded(first + index));
    }
}

/// Says why a campaign is not run, where a test that passes is heard too.
pub fn skip(campaign: &str, why: &str) {
    // The test harness holds back what `println` writes, and shows it only when the test fails.
    writeln!(std::io::stderr(), "SKIPPED: {campaign}: {why}").expect("stderr is open");
}
