//! `BACKUP` while clients write: each copy is the state of one moment, and starts with any number of shards. What is
//! cut short is no backup; nothing is written elsewhere than below `--backup-dir`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tempfile::TempDir;

use crate::client::{Resp, Value, encoded};
use crate::process::{Server, run_to_end, within_deadline};

/// Writers, each of which has two keys of its own on two connections.
const PAIRS: usize = 8;

/// The keys that are set together, all to the same value.
const TOGETHER: usize = 6;

/// A server that makes backups, and where.
fn start(shards: usize, flags: &[&str]) -> (Server, TempDir) {
    let root = TempDir::with_prefix("kvlite-backups-").unwrap();
    let mut all = vec!["--backup-dir", root.path().to_str().unwrap(), "--wal-segment-size", "64k"];
    all.extend(flags);
    (Server::start(shards, &all), root)
}

/// The figures in the reply to a `BACKUP` that succeeded: keys and bytes.
fn figures(reply: &Value) -> (i64, i64) {
    let items = reply.items();
    let names = [0, 2, 4].map(|index| items[index].to_string());
    assert_eq!((items.len(), names.concat()), (6, "\"keys\"\"bytes\"\"ms\"".to_owned()), "{reply}");
    assert!(items[5].integer() >= 0, "{reply}");
    (items[1].integer(), items[3].integer())
}

fn number(resp: &mut Resp, key: &str) -> u64 {
    match resp.ask(&format!("GET {key}")) {
        Value::Nil => 0,
        value => String::from_utf8_lossy(value.bytes()).parse().unwrap(),
    }
}

/// A server on a copy of a backup, which is itself left as it is.
fn restored(backup: &Path, shards: usize) -> (Server, TempDir) {
    let copy = TempDir::with_prefix("kvlite-restored-").unwrap();
    let data = copy.path().join("data");
    let copied = Command::new("cp").arg("-r").arg(backup).arg(&data).status().unwrap();
    assert!(copied.success());
    let mut server = Server::stopped(Some(&data), &[]);
    server.restart(shards);
    (server, copy)
}

/// What the writers have sent, and what of that was acknowledged.
#[derive(Default)]
struct Written {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// Sets `first`, and only after the acknowledgement `second`, to the same number, which grows. Odd writers append to
/// the second one instead, so that its length is the number.
fn write_pairs(server: &Server, writer: usize, written: &Written, stop: &AtomicBool) {
    let (mut one, mut other) = (server.resp(), server.resp());
    for n in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        written.sent.store(n, Ordering::SeqCst);
        assert_eq!(one.ask(&format!("SET first:{writer} {n}")).to_string(), "+OK");
        if writer.is_multiple_of(2) {
            assert_eq!(other.ask(&format!("SET second:{writer} {n}")).to_string(), "+OK");
        } else {
            assert_eq!(other.ask(&format!("APPEND second:{writer} x")).integer(), n as i64);
        }
        written.acknowledged.store(n, Ordering::SeqCst);
    }
}

fn write_together(server: &Server, written: &Written, stop: &AtomicBool) {
    let mut resp = server.resp();
    for n in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        written.sent.store(n, Ordering::SeqCst);
        let pairs: String = (0..TOGETHER).map(|key| format!(" together:{key} {n}")).collect();
        assert_eq!(resp.ask(&format!("MSET{pairs}")).to_string(), "+OK");
        written.acknowledged.store(n, Ordering::SeqCst);
    }
}

fn compact_again_and_again(server: &Server, stop: &AtomicBool) {
    let mut resp = server.resp();
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(resp.ask("COMPACT").to_string(), "+OK");
    }
}

/// Keeps the shard of one key busy with long turns, so that the others are ahead of it.
fn keep_busy(server: &Server, key: &str, stop: &AtomicBool) {
    const PIPELINE: usize = 500;
    let mut resp = server.resp();
    let requests = encoded(&["GET", key]).repeat(PIPELINE);
    while !stop.load(Ordering::Relaxed) {
        resp.wire.send(&requests);
        (0..PIPELINE).for_each(|_| assert_eq!(resp.read(), Value::Nil));
    }
}

/// Demands that a restored server holds the state of one moment, not before `from` and not after `to`.
fn assert_is_of_one_moment(server: &Server, from: &[u64], to: &[u64]) {
    let mut resp = server.resp();
    for writer in 0..PAIRS {
        let first = number(&mut resp, &format!("first:{writer}"));
        let second = match writer % 2 {
            0 => number(&mut resp, &format!("second:{writer}")),
            _ => resp.ask(&format!("STRLEN second:{writer}")).integer() as u64,
        };
        assert!(second <= first && first <= second + 1, "pair {writer}: {first} and then {second}");
        assert!(from[writer] <= second && first <= to[writer], "pair {writer}: {second} and {first}");
    }
    let together: Vec<u64> = (0..TOGETHER).map(|key| number(&mut resp, &format!("together:{key}"))).collect();
    assert!(together.iter().all(|n| *n == together[0]), "an MSET is there by half: {together:?}");
    assert!(from[PAIRS] <= together[0] && together[0] <= to[PAIRS], "{together:?}");
}

/// Makes backups under all kinds of writes, and looks into each with the same or with another number of shards.
fn backups_are_of_one_moment(shards: usize, sync_mode: &str) {
    const BACKUPS: usize = 24;
    let (server, root) = start(shards, &["--sync-mode", sync_mode]);
    let written: Vec<Written> = (0..=PAIRS).map(|_| Written::default()).collect();
    let stop = AtomicBool::new(false);
    let all = |of: fn(&Written) -> &AtomicU64| -> Vec<u64> {
        written.iter().map(|written| of(written).load(Ordering::SeqCst)).collect()
    };
    let mut bounds = Vec::new();
    thread::scope(|scope| {
        let (server, stop, written) = (&server, &stop, &written);
        for (writer, written) in written[..PAIRS].iter().enumerate() {
            scope.spawn(move || write_pairs(server, writer, written, stop));
        }
        scope.spawn(move || write_together(server, &written[PAIRS], stop));
        scope.spawn(move || compact_again_and_again(server, stop));
        scope.spawn(move || keep_busy(server, "busy", stop));
        let mut resp = server.resp();
        for backup in 0..BACKUPS {
            let enough =
                |least: u64| written.iter().all(|it| it.acknowledged.load(Ordering::SeqCst) >= least);
            let goes_on = within_deadline(|| enough(20 * (backup as u64 + 1)));
            let from = all(|written| &written.acknowledged);
            let reply = resp.ask(&format!("BACKUP set/{backup}"));
            let to = all(|written| &written.sent);
            stop.fetch_or(!goes_on || !matches!(reply, Value::Array(_)), Ordering::Relaxed);
            assert!(goes_on, "the writers do not get on");
            let (keys, bytes) = figures(&reply);
            assert!(keys as usize == 2 * PAIRS + TOGETHER && bytes > 0, "{reply}");
            bounds.push((from, to));
        }
        stop.store(true, Ordering::Relaxed);
    });
    for (backup, (from, to)) in bounds.iter().enumerate() {
        let shards = if backup % 2 == 0 { shards } else { shards + 1 };
        let (restored, _copy) = restored(&root.path().join(format!("set/{backup}")), shards);
        assert_is_of_one_moment(&restored, from, to);
    }
    assert_eq!(names(&root.path().join("set")).len(), BACKUPS, "nothing else is left there");
}

#[test]
fn backups_of_one_shard_are_of_one_moment() {
    backups_are_of_one_moment(1, "everysec");
}

#[test]
fn backups_of_three_shards_are_of_one_moment() {
    backups_are_of_one_moment(3, "everysec");
}

#[test]
fn backups_are_of_one_moment_when_every_answer_waits_for_the_disk() {
    backups_are_of_one_moment(2, "always");
}

#[test]
fn a_backup_holds_every_kind_of_value_and_can_be_written_on() {
    let (server, root) = start(2, &[]);
    let mut resp = server.resp();
    for command in ["SET \"bin\\x00\\n\" \"\\x00\\xff\"", "SET empty \"\"", "SET timed v EX 1000"] {
        assert_eq!(resp.ask(command).to_string(), "+OK");
    }
    assert_eq!(resp.ask("SET gone v").to_string(), "+OK");
    assert_eq!(resp.ask("DEL gone").integer(), 1);
    let mut text = server.text();
    let answer = text.ask_one("BACKUP a path with blanks");
    assert!(answer.starts_with("+OK keys=3 bytes="), "{answer}");
    assert_eq!(resp.ask("FLUSHALL").to_string(), "+OK");
    let info = resp.ask("INFO persistence").to_string();
    assert!(info.contains("backup_in_progress:0") && info.contains("backup_last_status:ok"), "{info}");
    assert!(!info.contains("backup_last_time:0"), "{info}");

    let (mut restored, _copy) = restored(&root.path().join("a path with blanks"), 2);
    for shards in [2, 5] {
        let mut resp = restored.resp();
        assert_eq!(resp.ask("MGET \"bin\\x00\\n\" empty gone").to_string(), "[\"\\x00\\xff\", \"\", nil]");
        assert!((900..=1000).contains(&resp.ask("TTL timed").integer()));
        assert_eq!(resp.ask(&format!("SET new:{shards} v")).to_string(), "+OK");
        restored.kill9();
        restored.restart(shards + 1);
        assert_eq!(restored.resp().ask(&format!("GET new:{shards}")), Value::bulk("v"));
    }
}

#[test]
fn a_backup_of_nothing_is_one() {
    let (server, root) = start(2, &[]);
    let (keys, bytes) = figures(&server.resp().ask("BACKUP nothing"));
    assert!(keys == 0 && bytes < 1000, "{bytes} bytes that tell what time it was");
    let (restored, _copy) = restored(&root.path().join("nothing"), 3);
    assert_eq!(restored.resp().ask("DBSIZE").integer(), 0);
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn nothing_is_written_but_below_the_directory_for_backups() {
    let (server, root) = start(1, &[]);
    let outside = TempDir::with_prefix("kvlite-outside-").unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    fs::create_dir(root.path().join("full")).unwrap();
    fs::write(root.path().join("full/file"), "a").unwrap();
    fs::write(root.path().join("file"), "a").unwrap();
    let before = names(root.path());
    let mut resp = server.resp();
    for (path, why) in [
        ("/tmp/x", "relative to --backup-dir"),
        ("../x", "relative to --backup-dir"),
        ("a/../../x", "relative to --backup-dir"),
        (".hidden", "relative to --backup-dir"),
        ("\"\"", "relative to --backup-dir"),
        ("out", "exists already"),
        ("out/x", "leads out of --backup-dir"),
        ("full", "exists already"),
        ("file", "exists already"),
        ("file/x", "cannot"),
        ("\"x\\n2026-01-01 ERROR forged\\x1b[31m\"", "control character"),
        ("\"x\\x00/y\"", "control character"),
        ("\"x\\xff\"", "control character"),
        (&"long".repeat(60), "longer than 200 bytes"),
    ] {
        let answer = resp.ask(&format!("BACKUP {path}")).to_string();
        assert!(answer.starts_with("-ERR ") && answer.contains(why), "{path}: {answer}");
    }
    assert_eq!(names(root.path()), before);
    assert!(names(outside.path()).is_empty());
    fs::create_dir(root.path().join("empty")).unwrap();
    figures(&resp.ask("BACKUP empty"));

    let without = Server::start(1, &[]);
    let answer = without.text().ask_one("BACKUP x");
    assert!(answer.contains("start the server with --backup-dir"), "{answer}");
    let inside = Server::start(1, &["--backup-dir", "/proc"]);
    let answer = inside.text().ask_one("BACKUP x");
    assert!(answer.starts_with("-ERR no backup was made: "), "{answer}");
}

#[test]
fn a_path_that_changes_meanwhile_leads_nowhere_else() {
    const BACKUPS: usize = 60;
    let (server, root) = start(1, &[]);
    let outside = TempDir::with_prefix("kvlite-outside-").unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir(path("a")).unwrap();
    symlink(outside.path(), path("link")).unwrap();
    let stop = AtomicBool::new(false);
    let mut made = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, path("a"), CWD, path("link"), RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut resp = server.resp();
        for backup in 0..BACKUPS {
            match resp.ask(&format!("BACKUP a/{backup}/x")) {
                Value::Error(text) => assert!(text.starts_with("ERR no backup was made: "), "{text}"),
                reply => {
                    figures(&reply);
                    made += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(names(outside.path()).is_empty(), "{:?}", names(outside.path()));
    assert!(0 < made && made < BACKUPS, "{made} of {BACKUPS} backups were made: the path did not change");
}

#[test]
fn a_system_that_cannot_keep_a_path_below_a_directory_makes_no_backup() {
    const OPENAT2: i64 = 437; // The same number on every architecture.
    for errno in [1, 38] {
        let (server, root) = crate::startup::without_system_call(OPENAT2, errno, || start(1, &[]));
        for path in ["a", "a/b"] {
            let answer = server.resp().ask(&format!("BACKUP {path}")).to_string();
            assert!(answer.starts_with("-ERR ") && answer.contains("refuses openat2"), "{answer}");
        }
        assert!(names(root.path()).is_empty(), "{:?}", names(root.path()));
    }
}

/// Sets keys until the log has a good many files.
fn fill(server: &Server, keys: usize) {
    let value = "v".repeat(4000);
    let mut resp = server.resp();
    let requests: Vec<u8> =
        (0..keys).flat_map(|key| encoded(&["SET", &format!("key:{key}"), &value])).collect();
    let mut sender = resp.wire.sender();
    thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut sender, &requests).unwrap());
        (0..keys).for_each(|_| assert_eq!(resp.read().to_string(), "+OK"));
    });
}

fn unfinished(root: &Path) -> PathBuf {
    root.join(".b.unfinished")
}

/// How many files there are below a directory, which may be changing.
fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

/// Demands that no server takes what is left of a backup for more or less than it is: it is whole, or it is refused,
/// or no file has come into it.
fn assert_is_whole_or_none(left: &Path, keys: i64) {
    let is_whole = left.join("MANIFEST").exists() && !left.join("UNFINISHED").exists();
    let is_empty = count(left) == 0;
    let mut is_started = Server::stopped(Some(left), &[]);
    match is_started.try_restart(3) {
        Err(_) => {
            let is_told = is_started.log.text().contains("/UNFINISHED: expected a data directory");
            assert!(is_told && !is_whole && !is_empty, "{}", is_started.log.tail());
        }
        Ok(()) => {
            assert!(is_whole || is_empty, "{}", is_started.log.tail());
            assert_eq!(is_started.resp().ask("DBSIZE").integer(), if is_whole { keys } else { 0 });
        }
    }
}

#[test]
fn a_kill_in_the_middle_leaves_nothing_that_looks_like_a_backup() {
    const KEYS: usize = 2000;
    let (mut server, root) = start(3, &[]);
    fill(&server, KEYS);
    let mut kills = 0;
    for files in [0, 1, 2, 5, 10, 20, 40, 60, 80, 100] {
        let _ = fs::remove_dir_all(unfinished(root.path())); // What the last one left, if it did.
        let mut resp = server.resp();
        resp.wire.send(&encoded(&["BACKUP", "b"]));
        let begun = within_deadline(|| {
            let left = unfinished(root.path());
            left.exists() && count(&left) >= files || root.path().join("b").exists()
        });
        assert!(begun, "no backup begins\n{}", server.log.tail());
        server.kill9();
        if root.path().join("b").exists() {
            // It was quicker; then it is whole.
            let (restored, _copy) = restored(&root.path().join("b"), 2);
            assert_eq!(restored.resp().ask("DBSIZE").integer(), KEYS as i64);
            fs::remove_dir_all(root.path().join("b")).unwrap();
        } else {
            kills += 1;
            assert_is_whole_or_none(&unfinished(root.path()), KEYS as i64);
        }
        server.restart(3);
        assert_eq!(server.resp().ask("DBSIZE").integer(), KEYS as i64);
    }
    assert!(kills >= 3, "only {kills} kills came before the end");
    assert_eq!(figures(&server.resp().ask("BACKUP b")).0, KEYS as i64);
    assert_eq!(names(root.path()), ["b"], "what was left is gone");
}

#[test]
fn a_server_that_stops_gives_its_backup_up() {
    let (mut server, root) = start(2, &[]);
    fill(&server, 2000);
    let mut resp = server.resp();
    resp.wire.send(&encoded(&["BACKUP", "b"]));
    assert!(within_deadline(|| unfinished(root.path()).exists() || root.path().join("b").exists()));
    server.signal(Signal::TERM);
    let answer = resp.try_read().map(|answer| answer.to_string());
    assert_eq!(server.wait().code(), Some(0), "{}", server.log.tail());
    if !root.path().join("b").exists() {
        assert_eq!(answer.unwrap(), "-ERR no backup was made: the server stops");
        assert!(names(root.path()).is_empty(), "{:?}", names(root.path()));
    }
}

#[test]
fn a_disk_that_takes_no_backup_harms_no_client() {
    let (server, root) = start(1, &[]);
    fill(&server, 2000);
    let mut resp = server.resp();
    assert_eq!(resp.ask("COMPACT").to_string(), "+OK"); // Into one file of 8 MB.
    let process = Pid::from_raw(i32::try_from(server.id()).unwrap());
    let limit = |bytes| {
        prlimit(process, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    };
    limit(Some(2 << 20));
    let answer = resp.ask("BACKUP b").to_string();
    assert!(answer.starts_with("-ERR no backup was made: cannot write "), "{answer}");
    assert!(names(root.path()).is_empty(), "{:?}", names(root.path()));
    assert_eq!(resp.ask("SET a 1").to_string(), "+OK");
    let health = server.text().ask_one("HEALTH");
    assert!(health.contains("\"status\":\"healthy\""), "{health}");
    let info = resp.ask("INFO persistence").to_string();
    assert!(info.contains("backup_last_status:err"), "{info}");
    limit(None);
    assert_eq!(figures(&resp.ask("BACKUP b")).0, 2001);
    // A second server on it while the first one serves: nothing of it belongs to the first.
    let (restored, _copy) = restored(&root.path().join("b"), 1);
    assert_eq!(restored.resp().ask("DBSIZE").integer(), 2001);
}

#[test]
fn one_backup_is_made_at_a_time() {
    let (server, root) = start(2, &[]);
    fill(&server, 2000);
    let (mut one, mut other) = (server.resp(), server.resp());
    let refused = within_deadline(|| {
        one.wire.send(&encoded(&["BACKUP", "b"]));
        other.wire.send(&encoded(&["BACKUP", "c"]));
        // Either may come first: the second is refused, or comes when the first is made.
        let mut answers = [one.read(), other.read()];
        answers.sort_by_key(|answer| !matches!(answer, Value::Array(_)));
        figures(&answers[0]);
        for name in names(root.path()) {
            fs::remove_dir_all(root.path().join(name)).unwrap();
        }
        let refused = answers[1].to_string() == "-ERR a backup is being made already";
        if !refused {
            figures(&answers[1]);
        }
        refused
    });
    assert!(refused, "no two backups met");
}

#[test]
fn the_tools_find_a_backup_sound() {
    let (server, root) = start(2, &[]);
    fill(&server, 100);
    figures(&server.resp().ask("BACKUP b"));
    let mut check = crate::process::command();
    check.arg("check").arg(root.path().join("b"));
    let ended = run_to_end(check);
    assert!(ended.status.success(), "{ended:?}");
}
