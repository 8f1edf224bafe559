//! A full disk under load: what was acknowledged before is there once there is space again.

use std::time::{Duration, Instant};

use crate::client::Value;
use crate::load::{Ledger, Load, Pace};
use crate::mount::{self, Mount};
use crate::process::{Server, within_deadline};
use crate::random::Random;
use crate::rounds::{self, SHARD_COUNTS, SYNC_MODES};

/// How long a load may find enough space, because it is compacted all the time or the disk is slow.
const LOAD_MAX: Duration = Duration::from_secs(6);

#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    let campaign = "full disk";
    rounds::run(campaign, |random| {
        for make in [|| Mount::tmpfs(16), || Mount::ext4(32)] {
            match make() {
                Ok(mount) => fill_up(&mount, random),
                Err(why) => return rounds::skip(campaign, &why),
            }
        }
    });
}

fn fill_up(mount: &Mount, random: &mut Random) {
    let (shards, mode) = (random.one_of(&SHARD_COUNTS), random.one_of(&SYNC_MODES));
    let entries = random.one_of(&["300", "10000000"]);
    // What waits for space is told so before the load is over.
    let flags = ["--wal-segment-size", "65536", "--compact-interval", "10ms", "--disk-timeout", "1s"];
    let mut server = Server::stopped(Some(&mount.path().join("data")), &flags);
    server.set_flag("--sync-mode", mode);
    server.set_flag("--max-wal-entries", entries);
    server.restart(shards);
    let free = random.below(1 << 20);
    println!("  {}: {shards} shards, --sync-mode {mode}, {entries} entries", mount.path().display());
    let ballast = mount::fill(mount, free);

    let load = Load::start(&server, "full", Pace::OneCommand);
    let begun = Instant::now();
    within_deadline(|| load.has_ended() || begun.elapsed() > LOAD_MAX);
    let met_the_end = load.has_ended();
    if !met_the_end {
        server.kill9();
    }
    let mut ledgers = load.join();
    let refused = ledgers.iter().filter(|ledger| ledger.refused.is_some()).count();
    let steps: u64 = ledgers.iter().map(Ledger::acknowledged).sum();
    println!("  {steps} steps; the disk was full: {met_the_end}; {refused} writers were refused");
    // A server that meets a full disk either refuses writes and goes on, or ends and says why.
    if met_the_end && refused == 0 {
        let status = server.wait();
        assert_eq!(status.code(), Some(1), "a full disk ends the server otherwise\n{}", server.log.tail());
        let says_why = server.log.text().contains("No space left on device");
        assert!(says_why, "the log does not say why the server ended\n{}", server.log.tail());
    }
    ballast.remove();
    if met_the_end && refused > 0 {
        let mut resp = server.resp();
        let accepts = within_deadline(|| resp.ask("SET space again") == Value::Simple("OK".to_owned()));
        assert!(accepts, "there is space, and writes are still refused\n{}", server.log.tail());
        server.kill9();
    }
    server.restart(shards);
    let mut resp = server.resp();
    for ledger in &mut ledgers {
        ledger.check(ledger.acknowledged(), &mut resp);
    }
    assert_eq!(resp.ask("SET still writable").to_string(), "+OK");
    server.kill9();
}
