//! Errors of writing, creating and allocating: the shard refuses writes and says why, reads go on, the other shard
//! takes writes, nothing acknowledged is lost, and once the disk is well so is the server.

use fuser::Errno;

use crate::client::{Resp, Value};
use crate::disk::{Fault, Operation};
use crate::process::within_deadline;
use crate::rig::{Rig, SICK, WELL, is_refused, is_unknown, key, send};

const VALUE_BYTES: usize = 20_000;

fn value(index: usize) -> String {
    format!("{index}:").repeat(VALUE_BYTES)[..VALUE_BYTES].to_owned()
}

/// Sets keys of the sick shard until one is refused, or the outcome is unknown; returns how many were acknowledged.
fn fill(resp: &mut Resp) -> usize {
    for index in 0..10_000 {
        let reply = resp.ask(&format!("SET {} {}", key(SICK, &format!("key:{index}")), value(index)));
        if reply.to_string() != "+OK" {
            assert!(is_refused(&reply) || is_unknown(&reply), "{reply}");
            return index;
        }
    }
    panic!("a disk that fails takes everything");
}

fn assert_filled(resp: &mut Resp, end: usize) {
    for index in 0..end {
        let found = resp.ask(&format!("GET {}", key(SICK, &format!("key:{index}"))));
        assert_eq!(found, Value::bulk(value(index)), "key {index} of {end}");
    }
}

/// The sick shard meets `errno` in these operations, until it refuses writes; then the disk is well again.
fn meets(test: &str, operations: &[Operation], errno: Errno, cause: &str) {
    for mode in ["always", "everysec"] {
        let Some(mut rig) = Rig::start(test, mode) else { return };
        let (mut resp, mut filler) = (rig.client_at(WELL), rig.server.resp());
        rig.fail(operations, Fault::Error(errno));
        let end = fill(&mut filler);
        let health = rig.await_health(&mut resp, "degraded");
        assert!(health.contains("\"wal_error\":\"shard 1: ") && health.contains(cause), "{mode}: {health}");
        let reply = resp.ask(&format!("SET {} v", key(SICK, "other")));
        assert!(is_refused(&reply) && reply.to_string().contains(cause), "{mode}: {reply}");
        let refused = rig.server.text().ask_one(&format!("SET {} v", key(SICK, "other")));
        assert!(refused.starts_with("-ERR writes are refused: ") && refused.contains(cause), "{refused}");
        assert!(is_refused(&resp.ask(&format!("MSET {} v {} v", key(WELL, "half"), key(SICK, "half")))));
        assert_filled(&mut resp, end);
        assert_eq!(resp.ask(&format!("SET {} v", key(WELL, "other"))).to_string(), "+OK", "{mode}");
        assert_eq!(resp.ask(&format!("EXISTS {}", key(WELL, "half"))).integer(), 0, "{mode}");

        rig.disk.heal();
        rig.await_health(&mut resp, "healthy");
        let again = || resp.ask(&format!("SET {} again", key(SICK, "again"))).to_string() == "+OK";
        assert!(within_deadline(again), "{mode}: {}", rig.server.log.tail());
        assert_filled(&mut resp, end);
        rig.crash(mode == "always");
        let mut resp = rig.server.resp();
        assert_filled(&mut resp, end);
        for name in [key(SICK, "again"), key(WELL, "other")] {
            assert_eq!(resp.ask(&format!("EXISTS {name}")).integer(), 1, "{mode}: {name}");
        }
    }
}

#[test]
fn a_disk_without_space_for_a_write() {
    meets("ENOSPC", &[Operation::Write], Errno::ENOSPC, "No space left on device");
}

#[test]
fn a_disk_without_space_for_a_segment() {
    meets("ENOSPC", &[Operation::Create, Operation::Allocate], Errno::ENOSPC, "No space left on device");
}

#[test]
fn a_disk_that_cannot_write() {
    meets("EIO", &[Operation::Write], Errno::EIO, "Input/output error");
}

#[test]
fn a_disk_that_became_read_only() {
    meets("EROFS", &Operation::ALL, Errno::EROFS, "Read-only file system");
}

#[test]
fn writes_that_are_cut_short_go_on_where_they_stopped() {
    let Some(mut rig) = Rig::start("short writes", "everysec") else { return };
    rig.fail(&[Operation::Write], Fault::Short);
    let mut resp = rig.server.resp();
    for index in 0..100 {
        let name = key(SICK, &format!("key:{index}"));
        assert_eq!(resp.ask(&format!("SET {name} {}", value(index))).to_string(), "+OK");
    }
    rig.await_faults(100);
    rig.await_health(&mut resp, "healthy");
    rig.crash(false);
    assert_filled(&mut rig.server.resp(), 100);
}

#[test]
fn where_no_segment_is_made_ready_in_time_the_reserve_is_used() {
    for mode in ["always", "everysec"] {
        let Some(mut rig) = Rig::start("no spare", mode) else { return };
        let mut resp = rig.client_at(WELL);
        rig.disk.fail(&[Operation::Create], "shard-1/spare", Fault::Error(Errno::EIO));
        // Four segments of one MiB; only the first is one that was made ready.
        let end = 200;
        let reserve = rig.disk.below().join("data/layout-1/shard-1/reserve");
        let mut reserves = 0;
        for index in 0..end {
            let was_there = reserve.exists();
            let reply = resp.ask(&format!("SET {} {}", key(SICK, &format!("key:{index}")), value(index)));
            assert_eq!(reply.to_string(), "+OK", "{mode}, key {index}");
            reserves += u32::from(was_there && !reserve.exists());
        }
        rig.await_faults(1);
        assert!(reserves >= 2, "{mode}: {reserves} reserves became segments");
        assert_filled(&mut resp, end);
        rig.crash(mode == "always");
        assert_filled(&mut rig.server.resp(), end);
    }
}

#[test]
fn a_write_that_a_crash_tears_is_cut_off() {
    for mode in ["always", "everysec"] {
        let Some(mut rig) = Rig::start("torn write", mode) else { return };
        let mut resp = rig.client_at(WELL);
        let [acknowledged, torn] = ["acknowledged", "torn"].map(|name| key(SICK, name));
        assert_eq!(resp.ask(&format!("SET {acknowledged} v")).to_string(), "+OK");
        rig.fail_log(&[Operation::Write], Fault::Torn);
        send(&mut resp, &format!("SET {torn} {}", value(1)));
        rig.await_hanging();
        rig.crash(false);
        let mut resp = rig.server.resp();
        assert_eq!(resp.ask(&format!("GET {acknowledged}")).to_string(), "\"v\"", "{mode}");
        assert_eq!(resp.ask(&format!("GET {torn}")), Value::Nil, "{mode}");
        assert!(rig.server.log.text().contains("the end of the log was torn"), "{}", rig.server.log.tail());
    }
}
