//! Writes and syncs that do not come back, for a while: the other shard serves on, clients that wait are told in time
//! that the outcome is unknown, and when the disk goes on so does the shard.

use std::time::{Duration, Instant};

use fuser::Errno;
use rustix::process::Signal;

use crate::client::{Resp, Value, encoded};
use crate::disk::{Fault, Operation};
use crate::http::{get, value};
use crate::process::within_deadline;
use crate::rig::{Rig, SICK, WELL, is_refused, is_unknown, key, send};
use crate::service_manager::ServiceManager;
use crate::words::words;

/// No request of the other shard takes longer, on a busy machine in a debug build.
const LATENCY_MAX: Duration = Duration::from_millis(700);

/// A client that waits for the sick disk hears of it within this time: the disk timeout of one second, some ticks, and
/// what a busy machine takes.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// The other shard serves as if nothing had happened.
fn assert_serves(rig: &Rig, resp: &mut Resp) {
    let name = key(WELL, "served");
    let mut slowest = Duration::ZERO;
    for index in 0..200 {
        let begun = Instant::now();
        assert_eq!(resp.ask(&format!("SET {name} {index}")).to_string(), "+OK");
        assert_eq!(resp.ask(&format!("GET {name}")).to_string(), format!("\"{index}\""));
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < LATENCY_MAX, "a request took {slowest:?}\n{}", rig.server.log.tail());
}

/// Reads a reply that says that the outcome is unknown, and returns it.
fn expect_unknown(resp: &mut Resp) -> String {
    let begun = Instant::now();
    let reply = resp.read();
    assert!(is_unknown(&reply), "{reply}");
    assert!(begun.elapsed() < TOLD_WITHIN, "{:?}", begun.elapsed());
    reply.to_string()
}

fn assert_nothing_came(resp: &mut Resp) {
    resp.wire.sender().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(resp.wire.try_line().is_err(), "an answer came that the disk does not hold");
    resp.wire.sender().set_read_timeout(Some(crate::process::DEADLINE)).unwrap();
}

#[test]
fn a_sync_that_hangs_holds_up_no_other_client_and_is_told_in_time() {
    let Some(mut rig) = Rig::start("hanging sync", "always") else { return };
    let mut resp = rig.client_at(WELL);
    let changed = key(SICK, "changed");
    assert_eq!(resp.ask(&format!("SET {changed} old")).to_string(), "+OK");
    rig.fail_log(&[Operation::Sync], Fault::Hang);
    let [mut writer, mut reader] = [SICK, WELL].map(|shard| rig.client_at(shard));
    send(&mut writer, &format!("SET {changed} new"));
    rig.await_hanging();
    send(&mut reader, &format!("GET {changed}"));
    assert_nothing_came(&mut writer);
    // A reply that is ready waits for those behind it, but not for as long as a disk takes.
    let mut pipelined = rig.client_at(WELL);
    let begun = Instant::now();
    let both = [format!("GET {}", key(WELL, "nothing")), format!("GET {changed}")];
    pipelined.wire.send(&both.map(|command| encoded(&words(&command))).concat());
    assert_eq!(pipelined.read().to_string(), "nil");
    assert!(begun.elapsed() < LATENCY_MAX, "{:?}", begun.elapsed());
    // The shard's own worker goes on too.
    let mut beside = rig.client_at(SICK);
    assert_serves(&rig, &mut beside);
    expect_unknown(&mut writer);
    expect_unknown(&mut reader);
    expect_unknown(&mut pipelined);
    let health = rig.await_health(&mut resp, "degraded");
    assert!(health.contains("shard 1: a sync of the log does not come to its end"), "{health}");
    assert!(is_refused(&resp.ask(&format!("SET {changed} newer"))));
    assert!(is_unknown(&resp.ask(&format!("GET {changed}"))), "what may be lost is not shown");
    assert!(is_unknown(&resp.ask("KVLITE.SYNC")));
    assert_serves(&rig, &mut resp);

    rig.disk.heal();
    rig.await_health(&mut resp, "healthy");
    assert_eq!(resp.ask(&format!("GET {changed}")).to_string(), "\"new\"");
    assert_eq!(resp.ask(&format!("SET {changed} newest")).to_string(), "+OK");
    rig.crash(true);
    assert_eq!(rig.server.resp().ask(&format!("GET {changed}")).to_string(), "\"newest\"");
}

#[test]
fn the_counts_of_the_server_are_of_its_memory_and_do_not_wait_for_the_disk() {
    let Some(rig) = Rig::start("hanging sync", "always") else { return };
    let mut resp = rig.client_at(WELL);
    rig.fail_log(&[Operation::Sync], Fault::Hang);
    let mut writer = rig.client_at(SICK);
    send(&mut writer, &format!("SET {} new", key(SICK, "unsynced")));
    rig.await_hanging();
    for (request, count) in [
        ("INFO keyspace", "keys=1,"),
        ("STATS", "\"keys\", 1,"),
        ("HEALTH", "\"keys\":1,"),
        ("MEMORY STATS", "\"keys.count\", 1,"),
    ] {
        let reply = resp.ask(request).to_string();
        assert!(reply.replace('\\', "").contains(count), "{request}: {reply}");
    }
    let mut counter = rig.client_at(WELL);
    send(&mut counter, "DBSIZE");
    assert_nothing_came(&mut counter);
    rig.disk.heal();
    assert_eq!(counter.read().integer(), 1);
    assert_eq!(writer.read().to_string(), "+OK");
}

#[test]
fn waitaof_waits_no_longer_than_its_timeout() {
    for mode in ["always", "everysec"] {
        let Some(rig) = Rig::start("hanging sync", mode) else { return };
        let (mut resp, mut writer) = (rig.client_at(WELL), rig.client_at(SICK));
        rig.fail_log(&[Operation::Sync], Fault::Hang);
        send(&mut writer, &format!("SET {} new", key(SICK, "changed")));
        rig.await_hanging();
        assert_eq!(resp.ask("WAITAOF 1 0 100").to_string(), "[0, 0]", "{mode}");
        assert_eq!(resp.ask("WAITAOF 0 0 0").to_string(), "[0, 0]", "{mode}");
        assert_eq!(resp.ask("ECHO on").to_string(), "\"on\"", "{mode}");
        // The shard still answers the one that has timed out: it is not taken for another's answer.
        send(&mut resp, "WAITAOF 1 0 0");
        rig.disk.heal();
        assert_eq!(resp.read().to_string(), "[1, 0]", "{mode}");
        assert_eq!(resp.ask("ECHO on").to_string(), "\"on\"", "{mode}");
    }
}

#[test]
fn a_sync_that_hangs_and_then_fails_counts_as_failed() {
    for mode in ["always", "everysec"] {
        let Some(mut rig) = Rig::start("hanging sync", mode) else { return };
        let mut resp = rig.client_at(WELL);
        let changed = key(SICK, "changed");
        rig.fail_log(&[Operation::Sync], Fault::Hang);
        send(&mut resp, &format!("SET {changed} new"));
        rig.await_hanging();
        if mode == "always" {
            expect_unknown(&mut resp);
        } else {
            // No more than about a second of changes may be lost: writes are refused while nothing is synced.
            assert_eq!(resp.read().to_string(), "+OK");
        }
        let health = rig.await_health(&mut resp, "degraded");
        assert!(health.contains("does not come to its end"), "{mode}: {health}");
        assert!(is_refused(&resp.ask(&format!("SET {changed} newer"))), "{mode}");
        rig.disk.fail_hanging();
        rig.await_health(&mut resp, "healthy");
        assert!(rig.server.log.text().contains("cannot sync the log"), "{}", rig.server.log.tail());
        assert_eq!(resp.ask(&format!("GET {changed}")).to_string(), "\"new\"", "{mode}");
        rig.crash(true);
        assert_eq!(rig.server.resp().ask(&format!("GET {changed}")).to_string(), "\"new\"", "{mode}");
    }
}

/// A server that was told to stop while a sync hangs, and a client of it.
fn stopped_during_a_sync() -> Option<(Rig, Resp)> {
    let rig = Rig::start("hanging sync", "everysec")?;
    let mut resp = rig.client_at(WELL);
    rig.fail_log(&[Operation::Sync], Fault::Hang);
    assert_eq!(resp.ask(&format!("SET {} v", key(SICK, "changed"))).to_string(), "+OK");
    rig.await_hanging();
    rig.server.signal(Signal::TERM);
    Some((rig, resp))
}

#[test]
fn a_server_that_is_stopped_waits_for_the_sync_that_is_under_way() {
    let Some((mut rig, mut resp)) = stopped_during_a_sync() else { return };
    // Once the other shard has ended, nothing else keeps this one.
    assert!(resp.wire.try_line().is_err());
    rig.disk.fail_hanging();
    // A sync that begins now succeeds, and brings nothing back.
    assert_eq!(rig.server.wait().code(), Some(1), "{}", rig.server.log.tail());
    assert!(rig.server.log.text().contains("shard 1"), "{}", rig.server.log.tail());
}

#[test]
fn a_server_that_is_stopped_does_not_wait_for_ever_for_a_sync() {
    let Some((mut rig, _resp)) = stopped_during_a_sync() else { return };
    let is_told = within_deadline(|| rig.server.log.text().contains("is not durable"));
    assert!(is_told, "{}", rig.server.log.tail());
    rig.disk.heal(); // Until then the system keeps the process.
    assert_eq!(rig.server.wait().code(), Some(1), "{}", rig.server.log.tail());
}

#[test]
fn a_write_that_hangs_stops_its_shard_and_no_other() {
    for mode in ["always", "everysec"] {
        let Some(mut rig) = Rig::start("hanging write", mode) else { return };
        let mut resp = rig.client_at(WELL);
        let [changed, other] = ["changed", "other"].map(|name| key(SICK, name));
        assert_eq!(resp.ask(&format!("MSET {changed} old {other} v")).to_string(), "+OK");
        rig.fail_log(&[Operation::Write], Fault::Hang);
        let [mut writer, mut flood, mut counter] = [(); 3].map(|()| rig.client_at(WELL));
        send(&mut writer, &format!("SET {changed} new"));
        rig.await_hanging();
        // One client that asks for more than may be under way does not keep the others from asking.
        let get = encoded(&["GET", &other]);
        let mut sender = flood.wire.sender();
        let requests = 40_000;
        let sending = std::thread::spawn(move || {
            let _ = std::io::Write::write_all(&mut sender, &get.repeat(requests)); // Read below, or not at all.
        });
        send(&mut counter, "DBSIZE");
        assert_serves(&rig, &mut resp);
        for waiting in [&mut writer, &mut flood, &mut counter] {
            expect_unknown(waiting);
        }
        let health = rig.await_health(&mut resp, "degraded");
        assert!(health.contains("shard 1: its disk hangs"), "{mode}: {health}");
        // From now on it is known.
        for command in
            [format!("GET {other}"), format!("MSET {other} 1 {} 1", key(WELL, "half")), "DBSIZE".into()]
        {
            let reply = resp.ask(&command).to_string();
            assert!(reply.starts_with("-ERR the disk of a shard that it needs hangs"), "{command}: {reply}");
        }
        assert_eq!(resp.ask(&format!("EXISTS {}", key(WELL, "half"))).integer(), 0);
        for _ in 0..10 {
            assert_eq!(rig.server.resp().ask("PING").to_string(), "+PONG", "new clients are served");
        }
        assert_serves(&rig, &mut resp);

        rig.disk.heal();
        rig.await_health(&mut resp, "healthy");
        for _ in 1..requests {
            let reply = flood.read();
            let told = reply == Value::bulk("v") || is_unknown(&reply);
            assert!(told || reply.to_string().starts_with("-ERR the disk"), "{reply}");
        }
        sending.join().unwrap();
        // What was under way has been done.
        assert_eq!(resp.ask(&format!("GET {changed}")).to_string(), "\"new\"", "{mode}");
        assert_eq!(writer.ask(&format!("SET {changed} newer")).to_string(), "+OK", "{mode}");
        rig.crash(mode == "always");
        assert_eq!(rig.server.resp().ask(&format!("GET {changed}")).to_string(), "\"newer\"", "{mode}");
    }
}

#[test]
fn health_and_metrics_are_told_while_a_worker_hangs() {
    let Some(rig) = Rig::start("hanging write", "everysec") else { return };
    let mut resp = rig.client_at(WELL);
    let paths = || ["/livez", "/readyz", "/healthz"].map(|path| get(rig.admin_port, path).code);
    assert!(within_deadline(|| paths() == [200, 200, 200]), "{:?}", paths());
    rig.fail_log(&[Operation::Write], Fault::Hang);
    send(&mut rig.client_at(WELL), &format!("SET {} new", key(SICK, "changed")));
    rig.await_hanging();
    // A restart would not help a disk.
    assert!(within_deadline(|| paths() == [200, 503, 503]), "{:?}", paths());
    let health = get(rig.admin_port, "/healthz").body;
    assert!(health.contains("\"wal_error\":\"shard 1: its disk hangs\""), "{health}");
    let requests = format!("kvlite_requests_total{{shard=\"{WELL}\"}}");
    let before = value(&get(rig.admin_port, "/metrics").body, &requests).unwrap();
    assert_serves(&rig, &mut resp);
    let mut page = String::new();
    let is_told = within_deadline(|| {
        page = get(rig.admin_port, "/metrics").body;
        let age = |of: &str, shard: usize| {
            value(&page, &format!("kvlite_shard_{of}_age_seconds{{shard=\"{shard}\"}}")).unwrap()
        };
        let is_seen_to_hang = age("report", SICK) > 3.0 && age("turn", SICK) > 3.0;
        is_seen_to_hang
            && age("turn", WELL) < 3.0
            && value(&page, &requests).unwrap() >= before + 400.0
            && value(&page, "kvlite_ready") == Some(0.0)
    });
    assert!(is_told, "{page}");
    rig.disk.heal();
    assert!(within_deadline(|| paths() == [200, 200, 200]), "{:?}", paths());
}

#[test]
fn the_page_comes_while_a_worker_hangs_and_says_so() {
    let Some(rig) = Rig::start("page while a worker hangs", "everysec") else { return };
    let mut resp = rig.client_at(WELL);
    let hot = key(SICK, "hot");
    resp.ask(&format!("SET {hot} old"));
    let is_shown = within_deadline(|| get(rig.admin_port, "/").body.contains("Hottest keys</caption>"));
    assert!(is_shown, "{}", get(rig.admin_port, "/").body);
    rig.fail_log(&[Operation::Write], Fault::Hang);
    send(&mut resp, &format!("SET {hot} new"));
    rig.await_hanging();
    let mut page = String::new();
    let is_told = within_deadline(|| {
        let asked = Instant::now();
        page = get(rig.admin_port, "/").body;
        assert!(asked.elapsed() < Duration::from_secs(8), "the page took {:?}", asked.elapsed());
        ["shard 1: its disk hangs", "stands still for"].iter().all(|it| page.contains(it))
    });
    assert!(is_told, "{page}");
    assert!(page.contains("Not everything is served.") && page.contains("Hottest keys"), "{page}");
    rig.disk.heal();
    let is_well = within_deadline(|| get(rig.admin_port, "/").body.contains(">healthy<"));
    assert!(is_well, "{}", get(rig.admin_port, "/").body);
}

#[test]
fn a_request_whose_outcome_is_unknown_has_failed_once() {
    let Some(rig) = Rig::start("counts of what is unknown", "always") else { return };
    let changed = key(SICK, "changed");
    rig.fail_log(&[Operation::Sync], Fault::Hang);
    let mut clients = [SICK, WELL, SICK, WELL].map(|shard| rig.client_at(shard));
    send(&mut clients[0], &format!("SET {changed} word"));
    rig.await_hanging();
    // These wait for the same frame, the errors as well.
    send(&mut clients[1], &format!("GET {changed}"));
    send(&mut clients[2], &format!("INCR {changed}"));
    send(&mut clients[3], &format!("INCR {changed}"));
    clients.iter_mut().for_each(|client| drop(expect_unknown(client)));
    let counts = [
        ("kvlite_commands_failed_total{command=\"set\"}", 1.0),
        ("kvlite_commands_failed_total{command=\"get\"}", 1.0),
        ("kvlite_commands_failed_total{command=\"incr\"}", 2.0),
        ("kvlite_errors_total{kind=\"MISCONF\"}", 4.0),
        ("kvlite_errors_total{kind=\"ERR\"}", 0.0),
    ];
    let mut page = String::new();
    let is_told = within_deadline(|| {
        page = get(rig.admin_port, "/metrics").body;
        counts.iter().all(|(sample, count)| value(&page, sample) == Some(*count))
    });
    assert!(is_told, "{page}");
}

#[test]
fn a_command_over_several_shards_is_never_seen_by_half_while_one_of_them_hangs() {
    for (mode, operation) in [("always", Operation::Sync), ("everysec", Operation::Write)] {
        let Some(mut rig) = Rig::start("hanging transaction", mode) else { return };
        let mut resp = rig.client_at(WELL);
        let [well, sick] = [WELL, SICK].map(|shard| key(shard, "part"));
        assert_eq!(resp.ask(&format!("MSET {well} old {sick} old")).to_string(), "+OK");
        rig.fail_log(&[operation], Fault::Hang);
        let [mut writer, mut reader] = [(); 2].map(|()| rig.client_at(WELL));
        send(&mut writer, &format!("MSET {well} new {sick} new"));
        rig.await_hanging();
        send(&mut reader, &format!("GET {well}"));
        let told = expect_unknown(&mut writer);
        assert!(!told.contains("shard 0"), "{told}");
        // Its own shard is well, and waits for the other one's part.
        let told = expect_unknown(&mut reader);
        assert!(told.contains("while the disk of shard 1 hangs or fails"), "{told}");
        assert_serves(&rig, &mut resp);

        rig.disk.heal();
        rig.await_health(&mut resp, "healthy");
        let seen = resp.ask(&format!("MGET {well} {sick}"));
        assert_eq!(seen.to_string(), "[\"new\", \"new\"]", "{mode}");
        assert_eq!(writer.ask(&format!("MSET {well} newer {sick} newer")).to_string(), "+OK");
        rig.crash(mode == "always");
        let seen = rig.server.resp().ask(&format!("MGET {well} {sick}"));
        assert_eq!(seen.to_string(), "[\"newer\", \"newer\"]", "{mode}");
    }
}

#[test]
fn a_command_over_several_shards_whose_part_was_never_written_is_undone_by_a_crash() {
    let Some(mut rig) = Rig::start("failed transaction", "everysec") else { return };
    let mut resp = rig.client_at(WELL);
    let [well, sick] = [WELL, SICK].map(|shard| key(shard, "part"));
    assert_eq!(resp.ask(&format!("MSET {well} old {sick} old")).to_string(), "+OK");
    rig.fail_log(&[Operation::Write, Operation::Create], Fault::Error(Errno::EIO));
    send(&mut resp, &format!("MSET {well} new {sick} new"));
    expect_unknown(&mut resp);
    let mut reader = rig.client_at(WELL);
    send(&mut reader, &format!("GET {well}"));
    expect_unknown(&mut reader); // Its lock stays as long as the other part is in doubt.
    rig.crash(false);
    let seen = rig.server.resp().ask(&format!("MGET {well} {sick}"));
    assert_eq!(seen.to_string(), "[\"old\", \"old\"]");
}

#[test]
fn a_disk_that_hangs_is_no_reason_to_restart_the_server() {
    let Some(mut rig) = Rig::start("hanging write under a watchdog", "everysec") else { return };
    assert_eq!(rig.server.terminate().code(), Some(0), "{}", rig.server.log.tail());
    let manager = ServiceManager::of(&mut rig.server, Duration::from_secs(1));
    rig.server.restart(2);
    manager.hear_until("WATCHDOG=1");
    rig.fail_log(&[Operation::Write], Fault::Hang);
    let mut writer = rig.client_at(WELL);
    send(&mut writer, &format!("SET {} value", key(SICK, "hanging")));
    rig.await_hanging();
    // Much longer than a worker may compute or wait for another thread.
    for _ in 0..8 {
        let heard = manager.hear_until("WATCHDOG=1");
        assert!(!heard.iter().any(|message| message.contains("Stuck")), "{heard:?}");
    }
    assert!(rig.disk.hanging() > 0, "the write went on");
    rig.disk.heal();
    assert_eq!(rig.server.terminate().code(), Some(0), "{}", rig.server.log.tail());
}
