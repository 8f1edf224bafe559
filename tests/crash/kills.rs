//! `kill -9` under load: nothing acknowledged is missing, in no sync mode, nothing is there by half or twice.

use std::thread;
use std::time::Duration;

use crate::load::{Ledger, Load, Pace};
use crate::process::{Server, within_deadline};
use crate::random::Random;
use crate::rounds::{self, SHARD_COUNTS, SYNC_MODES};

#[test]
fn kill_9_loses_nothing_acknowledged() {
    rounds::run("kill -9", |random| {
        // One directory through every mode and every number of shards.
        let mut lives: Vec<(usize, &str)> =
            SHARD_COUNTS.into_iter().flat_map(|shards| SYNC_MODES.map(|mode| (shards, mode))).collect();
        random.shuffle(&mut lives);
        let mut server = Server::stopped(None, &[]);
        let mut ledgers: Vec<Ledger> = Vec::new();
        for (life, (shards, mode)) in lives.into_iter().enumerate() {
            start(&mut server, shards, mode, random);
            check(&server, &mut ledgers);
            let load = Load::start(&server, &format!("life{life}"), Pace::Pipelined);
            let steps = 20 + random.below(600);
            println!("  life {life}: killed after {steps} steps");
            load.await_steps(steps, &server);
            server.kill9();
            ledgers.extend(load.join());
        }
        start(&mut server, random.one_of(&SHARD_COUNTS), random.one_of(&SYNC_MODES), random);
        check(&server, &mut ledgers);
    });
}

/// Starts the server, at times after a start that was killed while it recovered or moved keys between shards.
fn start(server: &mut Server, shards: usize, mode: &str, random: &mut Random) {
    // Small segments and few entries: rotation and compaction are under way most of the time.
    let (segment, entries, interval) =
        random.one_of(&[("65536", "200", "10ms"), ("65536", "10000000", "60s"), ("4194304", "2000", "50ms")]);
    server.set_flag("--wal-segment-size", segment);
    server.set_flag("--max-wal-entries", entries);
    server.set_flag("--compact-interval", interval);
    server.set_flag("--sync-mode", mode);
    for _ in 0..random.below(3) {
        let other = random.one_of(&SHARD_COUNTS);
        let heard = server.log.text().len();
        server.begin_restart(other);
        within_deadline(|| server.has_ended() || server.log.text()[heard..].contains(" INFO "));
        let delay = Duration::from_micros(random.below(30_000));
        println!("  a start with {other} shards was killed {delay:?} after its first word");
        thread::sleep(delay); // It waits for nothing: the kill is to come at any time.
        server.kill9();
    }
    println!("  {shards} shards, --sync-mode {mode}, segments of {segment} bytes, {entries} entries");
    server.restart(shards);
}

fn check(server: &Server, ledgers: &mut [Ledger]) {
    let mut resp = server.resp();
    for ledger in ledgers {
        ledger.check(ledger.acknowledged(), &mut resp);
    }
}
