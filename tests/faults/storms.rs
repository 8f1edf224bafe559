//! Any fault at any time under load, several times, then a crash: nothing acknowledged is missing, nothing is there
//! by half, and what was served once stays. A writer ends when a command is refused; others go on.

use std::time::{Duration, Instant};

use fuser::Errno;

use crate::disk::{Fault, Operation};
use crate::load::{Ledger, Load, Pace};
use crate::process::within_deadline;
use crate::random::Random;
use crate::rig::{Rig, WELL};
use crate::rounds;

/// How long a fault lasts at most: beyond the disk timeout at times.
const FAULT_MS_MAX: u64 = 1800;

#[test]
fn faults_at_any_time_lose_nothing_acknowledged() {
    rounds::run("disk faults", |random| {
        let mode = random.one_of(&rounds::SYNC_MODES);
        let Some(mut rig) = Rig::start("disk faults", mode) else { return };
        let mut ledgers = Vec::new();
        let faults = 1 + random.below(3);
        for index in 0..faults {
            let load = Load::start(&rig.server, &format!("fault{index}"), Pace::OneCommand);
            load.await_steps(10 + random.below(100), &rig.server);
            let (operations, fault) = any_fault(random);
            let lasts = Duration::from_millis(random.below(FAULT_MS_MAX));
            println!("  --sync-mode {mode}: {operations:?} {fault:?} for {lasts:?}");
            rig.fail(operations, fault);
            let begun = Instant::now();
            within_deadline(|| begun.elapsed() > lasts);
            // What a failed sync has lost, the system would still show to a process that starts again, and this disk
            // does not: only in `always` is nothing of it acknowledged.
            let loses = operations.contains(&Operation::Sync) && matches!(fault, Fault::Error(_));
            let shows_less = mode != "always" && loses;
            if index + 1 == faults && random.below(2) == 0 && !shows_less {
                println!("  crash while it lasts");
                rig.crash(mode == "always");
                ledgers.extend(load.join());
                return check(&rig, &mut ledgers);
            }
            if random.below(4) == 0 {
                rig.disk.fail_hanging();
            } else {
                rig.disk.heal();
            }
            rig.await_health(&mut rig.client_at(WELL), "healthy");
            // Where no writer was refused, they write on.
            load.stop();
            ledgers.extend(load.join());
            check(&rig, &mut ledgers);
        }
        rig.crash(mode == "always");
        check(&rig, &mut ledgers);
    });
}

fn any_fault(random: &mut Random) -> (&'static [Operation], Fault) {
    let errno = random.one_of(&[Errno::EIO, Errno::ENOSPC, Errno::EROFS]);
    match random.below(8) {
        0 | 1 => (&[Operation::Sync], Fault::Error(Errno::EIO)),
        2 => (&[Operation::Sync], Fault::Hang),
        3 => (&[Operation::Write], Fault::Hang),
        4 => (&[Operation::Write], Fault::Torn),
        5 => (&[Operation::Write], Fault::Short),
        6 => (&[Operation::Write], Fault::Error(errno)),
        _ => (&Operation::ALL, Fault::Error(errno)),
    }
}

fn check(rig: &Rig, ledgers: &mut [Ledger]) {
    let mut resp = rig.server.resp();
    for ledger in ledgers {
        ledger.check(ledger.acknowledged(), &mut resp);
    }
}
