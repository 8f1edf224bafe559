//! A sync that fails has lost what it should have kept, although a later one succeeds: the shard writes a snapshot
//! before a client is told that the data is safe. The disk here does lose it.

use fuser::Errno;

use crate::disk::{Fault, Operation};
use crate::process::within_deadline;
use crate::rig::{Rig, SICK, WELL, is_refused, is_unknown, key, send};

const SYNC: &[Operation] = &[Operation::Sync];

#[test]
fn a_failed_sync_is_not_repeated_as_if_nothing_had_happened() {
    for mode in ["always", "everysec"] {
        let Some(mut rig) = Rig::start("failed sync", mode) else { return };
        let mut resp = rig.client_at(WELL);
        let (changed, safe) = (key(SICK, "changed"), key(SICK, "safe"));
        assert_eq!(resp.ask(&format!("MSET {changed} old {safe} v")).to_string(), "+OK");
        assert_eq!(resp.ask("KVLITE.SYNC").to_string(), "+OK");

        let met = rig.disk.met();
        rig.fail(SYNC, Fault::Error(Errno::EIO));
        let reply = resp.ask(&format!("SET {changed} new"));
        // In everysec it was acknowledged before its sync.
        assert!(if mode == "always" { is_unknown(&reply) } else { reply.to_string() == "+OK" }, "{reply}");
        let health = rig.await_health(&mut resp, "degraded");
        assert!(
            health.contains("shard 1: cannot sync ") && health.contains("Input/output error"),
            "{health}"
        );
        assert!(is_refused(&resp.ask(&format!("SET {safe} no"))), "{mode}");
        assert_eq!(resp.ask(&format!("GET {safe}")).to_string(), "\"v\"", "{mode}");
        assert_eq!(resp.ask(&format!("SET {} v", key(WELL, "other"))).to_string(), "+OK", "{mode}");
        assert!(is_unknown(&resp.ask("KVLITE.SYNC")), "{mode}");
        // The snapshot that is to help is tried again and again.
        rig.await_faults(met + 3);

        rig.disk.heal();
        rig.await_health(&mut resp, "healthy");
        assert_eq!(resp.ask(&format!("GET {changed}")).to_string(), "\"new\"", "{mode}");
        assert_eq!(resp.ask("KVLITE.SYNC").to_string(), "+OK", "{mode}");
        rig.crash(true);
        let mget = format!("MGET {changed} {safe} {}", key(WELL, "other"));
        assert_eq!(rig.server.resp().ask(&mget).to_string(), "[\"new\", \"v\", \"v\"]", "{mode}");
    }
}

#[test]
fn one_sync_that_fails_among_many_loses_nothing() {
    for mode in ["always", "everysec"] {
        let Some(mut rig) = Rig::start("failed sync", mode) else { return };
        let mut resp = rig.client_at(WELL);
        let met = rig.disk.met();
        rig.fail(SYNC, Fault::Error(Errno::EIO));
        let mut acknowledged = Vec::new();
        for index in 0..200 {
            let name = key(SICK, &format!("key:{index}"));
            send(&mut resp, &format!("SET {name} {index}"));
            if index == 0 {
                rig.await_faults(met + 1);
                rig.disk.heal(); // Every later sync succeeds.
            }
            let set = resp.read();
            if set.to_string() == "+OK" {
                acknowledged.push((name, index));
            } else {
                assert!(is_refused(&set) || is_unknown(&set), "{mode}: {set}");
            }
        }
        rig.await_health(&mut resp, "healthy");
        assert_eq!(resp.ask("KVLITE.SYNC").to_string(), "+OK");
        let all = |resp: &mut crate::client::Resp| {
            for (name, index) in &acknowledged {
                assert_eq!(
                    resp.ask(&format!("GET {name}")).to_string(),
                    format!("\"{index}\""),
                    "{mode}: {name}"
                );
            }
        };
        all(&mut resp);
        rig.crash(true);
        all(&mut rig.server.resp());
    }
}

#[test]
fn a_server_whose_syncs_fail_says_so_at_its_end() {
    let Some(mut rig) = Rig::start("failed sync", "everysec") else { return };
    let mut resp = rig.client_at(WELL);
    rig.fail(SYNC, Fault::Error(Errno::EIO));
    assert_eq!(resp.ask(&format!("SET {} v", key(SICK, "a"))).to_string(), "+OK");
    rig.await_health(&mut resp, "degraded");
    assert_eq!(rig.server.terminate().code(), Some(1), "{}", rig.server.log.tail());
    let says_why = || rig.server.log.text().contains("shard 1");
    assert!(within_deadline(says_why), "{}", rig.server.log.tail());
}
