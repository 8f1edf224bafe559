//! Power cuts under load: in `always` nothing acknowledged is lost, in `everysec` not more than the last seconds, and
//! in no mode is a command over several shards there by half, or a change without the ones before it.

use std::time::{Duration, Instant};

use crate::load::{Ledger, Load, Pace, now_ms};
use crate::mount::{Journal, Mount};
use crate::process::{Server, within_deadline};
use crate::random::Random;
use crate::rounds::{self, SHARD_COUNTS};

/// What `everysec` may lose was acknowledged within this time before the cut: a second between two syncs, and one
/// for the sync itself, on a machine with other work.
const EVERYSEC_LOSS_MS: u64 = 2000;

#[test]
fn a_power_cut_loses_what_the_sync_mode_allows() {
    let campaign = "power cut";
    rounds::run(campaign, |random| {
        // Room for all that writers can write in a life; the file is sparse.
        let mount = match Mount::with_power(1024) {
            Ok(mount) => mount,
            Err(why) => return rounds::skip(campaign, &why),
        };
        lives_on(mount, random);
    });
}

fn lives_on(mut mount: Mount, random: &mut Random) {
    let mut modes = ["always", "everysec", "no"];
    random.shuffle(&mut modes);
    let mut server = Server::stopped(Some(&mount.path().join("data")), &["--wal-segment-size", "262144"]);
    let mut ledgers: Vec<Ledger> = Vec::new();
    let mut shards = random.one_of(&SHARD_COUNTS);
    for (life, mode) in modes.into_iter().enumerate() {
        if random.below(2) == 0 {
            shards = random.one_of(&SHARD_COUNTS);
        }
        let entries = random.one_of(&["1000", "10000000"]);
        server.set_flag("--sync-mode", mode);
        server.set_flag("--max-wal-entries", entries);
        server.set_flag("--compact-interval", "50ms");
        server.set_flag("--boot-id", &mount.boot_id());
        server.restart(shards);
        check_old(&server, &mut ledgers);

        let load_ms = if mode == "everysec" { 2500 + random.below(1000) } else { 200 + random.below(1500) };
        let journal = random.one_of(&[Journal::Written, Journal::Lost]);
        println!(
            "  life {life}: {shards} shards, --sync-mode {mode}, {entries} entries; \
             power cut after {load_ms} ms, journal {journal:?}"
        );
        let load = Load::start(&server, &format!("life{life}"), Pace::Pipelined);
        let begun = Instant::now();
        within_deadline(|| begun.elapsed() > Duration::from_millis(load_ms));
        let cut_ms = now_ms();
        mount.cut_power(journal);
        server.kill9();
        let mut new = load.join();
        mount.reboot();
        server.set_flag("--boot-id", &mount.boot_id());

        server.restart(shards);
        check_old(&server, &mut ledgers);
        let mut resp = server.resp();
        for ledger in &mut new {
            // What is answered while the cut is under way proves nothing: of a file whose blocks are not marked as
            // written yet, as where a segment was only allocated, the kernel says that it is synced although it can no
            // longer mark them. After a real power cut no client is there to hear that.
            let least = match mode {
                "always" => ledger.acknowledged_by(cut_ms),
                "everysec" => ledger.acknowledged_by(cut_ms - EVERYSEC_LOSS_MS),
                _ => 0,
            };
            ledger.check(least, &mut resp);
        }
        let steps: u64 = new.iter().map(Ledger::acknowledged).sum();
        let lost_ms = new.iter().map(|ledger| ledger.lost_ms(cut_ms)).max().unwrap_or(0);
        println!("  of {steps} acknowledged steps, the oldest lost one was {lost_ms} ms before the cut");
        ledgers.extend(new);
        // What was served after a power cut is on disk, whatever the next one takes.
        server.kill9();
    }
    server.restart(random.one_of(&SHARD_COUNTS));
    check_old(&server, &mut ledgers);
    server.kill9();
}

/// Checks what an earlier start served.
fn check_old(server: &Server, ledgers: &mut [Ledger]) {
    let mut resp = server.resp();
    for ledger in ledgers {
        ledger.check(0, &mut resp);
    }
}
