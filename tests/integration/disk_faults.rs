//! A disk that is full or fails while the server runs: writes are refused, reads go on, nothing acknowledged is
//! lost, and when the disk is well again so is the server, without a restart.
//!
//! Files that may not grow past a limit (`RLIMIT_FSIZE`) stand for a disk that takes nothing more. Tests on a real
//! full disk mount a small file system; where they may not, they say so and pass.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use crate::client::{Resp, Value, Wire, encoded, is_closed};
use crate::process::{Server, within_deadline};

/// The size of the segments of the servers here.
const SEGMENT_BYTES: u64 = 1 << 20;

/// The size of the values that fill a log.
const VALUE_BYTES: usize = 10_000;

fn start(shards: usize, sync_mode: &str) -> Server {
    let segment_bytes = SEGMENT_BYTES.to_string();
    Server::start(shards, &["--sync-mode", sync_mode, "--wal-segment-size", &segment_bytes])
}

/// Lets no file of the server grow past this many bytes, or all of them as far as they like.
fn limit_files(server: &Server, bytes: Option<u64>) {
    let process = Pid::from_raw(i32::try_from(server.id()).unwrap());
    prlimit(process, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

fn health(server: &Server) -> String {
    server.text().ask_one("HEALTH")
}

fn assert_healthy(server: &Server) {
    let health = health(server);
    assert!(health.contains("\"status\":\"healthy\"") && health.contains("\"wal_healthy\":true"), "{health}");
    assert!(!health.contains("wal_error"), "{health}");
}

fn assert_degraded(server: &Server) {
    let health = health(server);
    assert!(health.contains("\"status\":\"degraded\""), "{health}");
    assert!(health.contains("\"wal_healthy\":false,\"wal_error\":\"shard "), "{health}");
    assert!(server.text().ask_one("STATS").contains("wal_healthy=false"));
    assert!(server.resp().ask("INFO persistence").to_string().contains("aof_last_write_status:err"));
}

fn refused(reply: &Value) -> bool {
    reply.to_string().starts_with("-MISCONF writes are refused: ")
}

fn value(key: usize) -> String {
    format!("{key}:").repeat(VALUE_BYTES)[..VALUE_BYTES].to_owned()
}

/// Sets keys from `first` on, one after the other, until one is refused; returns the number of that one.
fn fill(resp: &mut Resp, first: usize) -> usize {
    for key in first..first + 100_000 {
        resp.wire.send(&encoded(&["SET", &format!("key:{key}"), &value(key)]));
        let reply = resp.read();
        if reply.to_string() != "+OK" {
            assert!(refused(&reply), "{reply}");
            return key;
        }
    }
    panic!("the server takes what no disk holds");
}

fn assert_filled(resp: &mut Resp, end: usize) {
    for key in 0..end {
        assert_eq!(resp.ask(&format!("GET key:{key}")), Value::bulk(value(key)), "key {key} of {end}");
    }
    assert_eq!(resp.ask(&format!("EXISTS key:{end}")).integer(), 0, "the refused write was not made");
}

fn taken_again(server: &Server, resp: &mut Resp) -> bool {
    within_deadline(|| resp.ask("SET again 1").to_string() == "+OK")
        && within_deadline(|| health(server).contains("\"status\":\"healthy\""))
}

/// Before the log needs the room that it does not get, writes are refused; what was acknowledged is kept.
fn room_runs_out(shards: usize, sync_mode: &str) {
    let mut server = start(shards, sync_mode);
    let mut resp = server.resp();
    assert_healthy(&server);
    // No new segment can be allocated, while those that exist are written as before.
    limit_files(&server, Some(SEGMENT_BYTES - 1));
    let end = fill(&mut resp, 0);
    assert!(end > 50, "a segment holds more than {end} values");
    assert_degraded(&server);
    let mut text = server.text();
    let refusal = text.ask_one(&format!("SET key:{end} v"));
    assert!(refusal.starts_with("-ERR writes are refused: cannot allocate "), "{refusal}");
    assert!(refusal.contains("(ulimit -f, LimitFSIZE= of systemd)"), "{refusal}");
    assert!(refused(&resp.ask("FLUSHALL")));
    assert!(refused(&resp.ask(&format!("MSET a 1 b 2 c 3 d 4 e 5 f 6 key:{end} 7"))));
    assert_eq!(resp.ask("MGET a b c d e f").to_string(), "[nil, nil, nil, nil, nil, nil]");
    assert_filled(&mut resp, end);

    limit_files(&server, None);
    assert!(taken_again(&server, &mut resp), "{}", server.log.tail());
    assert_eq!(resp.ask("MSET a 1 b 2 c 3 d 4 e 5 f 6").to_string(), "+OK");
    assert_healthy(&server);
    assert_filled(&mut resp, end);
    server.kill9();
    server.restart(shards);
    assert_filled(&mut server.resp(), end);
}

#[test]
fn writes_are_refused_before_the_room_runs_out() {
    room_runs_out(1, "everysec");
    room_runs_out(3, "no");
    room_runs_out(2, "always");
}

/// A write that fails although there was room: its answer waits, and so do reads of what it changed; others do not.
fn a_write_fails(shards: usize, sync_mode: &str) {
    let mut server = start(shards, sync_mode);
    let mut resp = server.resp();
    assert_eq!(resp.ask("SET other old").to_string(), "+OK");
    assert_eq!(resp.ask("SET {a}key old").to_string(), "+OK");
    assert_eq!(server.text().ask_one("SYNC"), "+OK");
    limit_files(&server, Some(0));
    let mut writer = server.resp();
    writer.wire.send(&encoded(&["SET", "{a}key", "new"]));
    assert!(within_deadline(|| health(&server).contains("degraded")), "{}", health(&server));
    assert_degraded(&server);

    // A reader of the key waits for the log; a read behind it shows that nothing has come.
    let mut reader = server.resp();
    reader.wire.send(&encoded(&["GET", "{a}key"]));
    assert_eq!(resp.ask("GET other").to_string(), "\"old\"");
    assert!(refused(&resp.ask("SET {a}key newer")));
    for waiting in [&mut writer, &mut reader] {
        waiting.wire.sender().set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        assert!(waiting.wire.try_line().is_err(), "an answer came that the log does not hold");
        waiting.wire.sender().set_read_timeout(Some(crate::process::DEADLINE)).unwrap();
    }

    limit_files(&server, None);
    assert_eq!(writer.read().to_string(), "+OK");
    assert_eq!(reader.read().to_string(), "\"new\"");
    assert!(taken_again(&server, &mut resp), "{}", server.log.tail());
    server.kill9();
    server.restart(shards);
    assert_eq!(server.resp().ask("MGET {a}key other again").to_string(), "[\"new\", \"old\", \"1\"]");
}

#[test]
fn what_could_not_be_written_is_answered_when_it_is() {
    a_write_fails(1, "everysec");
    a_write_fails(3, "no");
    a_write_fails(2, "always");
}

/// Whether `INFO`, `HEALTH` and `STATS` all say that the last snapshots were written, or all that one was not.
fn snapshots_show_as(server: &Server, written: bool) -> bool {
    let info = server.resp().ask("INFO persistence").to_string();
    let status = if written { "ok" } else { "err" };
    let fields = ["rdb_last_bgsave_status", "aof_last_bgrewrite_status"];
    let health = health(server);
    fields.iter().all(|field| info.contains(&format!("{field}:{status}\\r\\n")))
        && health.contains(&format!("\"snapshot_healthy\":{written}"))
        && health.contains("\"status\":\"healthy\"") == written
        && health.contains("\"snapshot_error\":\"shard 1: cannot create ") != written
        && server.text().ask_one("STATS").contains(&format!("snapshot_healthy={written}"))
}

/// No snapshot of the second of two shards can be written while this directory is in its way; then one can.
fn without_snapshots(server: &Server, test: impl FnOnce()) {
    let in_the_way = server.data().join("layout-1/shard-1/snapshot.tmp");
    fs::create_dir(&in_the_way).unwrap();
    test();
    fs::remove_dir(&in_the_way).unwrap();
}

#[test]
fn a_snapshot_that_was_not_written_shows_until_the_next_one_is() {
    for command in ["BGSAVE", "BGREWRITEAOF", "SAVE", "COMPACT"] {
        let server = start(2, "everysec");
        let mut resp = server.resp();
        assert_eq!(resp.ask("MSET a 1 b 2 c 3 d 4").to_string(), "+OK");
        assert!(snapshots_show_as(&server, true));
        without_snapshots(&server, || {
            resp.ask(command);
            assert!(
                within_deadline(|| snapshots_show_as(&server, false)),
                "{command}\n{}",
                server.log.tail()
            );
            let log = server.log.text();
            let told = log.lines().filter(|line| line.contains("no snapshot was written"));
            assert!(told.map(|line| line.contains("shard=1")).eq([true]), "{log}");
            assert_eq!(resp.ask("SET e 5").to_string(), "+OK", "writes are taken");
        });
        assert!(snapshots_show_as(&server, false), "{command}: until the next one");
        // Shard 0 may not be done with the one that failed.
        assert!(within_deadline(|| !resp.ask(command).to_string().contains("already in progress")));
        assert!(within_deadline(|| snapshots_show_as(&server, true)), "{command}\n{}", server.log.tail());
    }
}

#[test]
fn a_compaction_that_no_client_asked_for_and_that_failed_shows_too() {
    let server = Server::start(2, &["--max-wal-entries", "10", "--compact-interval", "10ms"]);
    let mut resp = server.resp();
    without_snapshots(&server, || {
        for key in 0..100 {
            resp.ask(&format!("SET key:{key} v"));
        }
        assert!(within_deadline(|| snapshots_show_as(&server, false)), "{}", server.log.tail());
    });
    assert!(within_deadline(|| snapshots_show_as(&server, true)), "{}", server.log.tail());
}

/// What lies in the directory of the only shard.
fn names(server: &Server) -> Vec<String> {
    let entries = fs::read_dir(server.data().join("layout-1/shard-0")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn nothing_is_left_of_a_snapshot_that_failed() {
    let server = start(1, "everysec");
    let mut resp = server.resp();
    for key in 0..400 {
        assert_eq!(resp.ask(&format!("SET key:{key} {}", value(key))).to_string(), "+OK");
    }
    // Segments of their size can be made, a snapshot of all keys cannot.
    limit_files(&server, Some(2 * SEGMENT_BYTES));
    assert!(resp.ask("SAVE").to_string().starts_with("-ERR no snapshot could be written"));
    assert!(within_deadline(|| !names(&server).contains(&"snapshot.tmp".to_owned())), "{:?}", names(&server));
    assert!(resp.ask("SAVE").to_string().starts_with("-ERR no snapshot could be written"));
    limit_files(&server, None);
    assert_eq!(resp.ask("SAVE").to_string(), "+OK");
    assert_eq!(resp.ask("DBSIZE").integer(), 400);
}

#[test]
fn nothing_is_left_of_a_value_whose_client_went_while_it_was_written() {
    let server = start(1, "everysec");
    let value = "x".repeat(48 << 20);
    let is_there = || names(&server).contains(&"staged".to_owned());
    let mut other = server.resp();
    let mut keys = 0;
    for _ in 0..4 {
        let mut resp = server.resp();
        resp.wire.send(&encoded(&["SET", &format!("key:{keys}"), &value]));
        // On a fast disk the value may be written before its client has gone.
        assert!(within_deadline(|| is_there() || other.ask("DBSIZE").integer() > keys));
        // Its connection is reset: it does not wait for the reply either.
        set_socket_linger(resp.wire.sender(), Some(std::time::Duration::ZERO)).unwrap();
        drop(resp);
        assert!(within_deadline(|| !is_there()), "{:?}", names(&server));
        keys = other.ask("DBSIZE").integer();
    }
}

/// The next line, with its end.
fn whole_line(wire: &mut Wire) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.extend(wire.try_exactly(1).unwrap_or_else(|error| wire.fail(&format!("read a line: {error}"))));
    }
    String::from_utf8(line).unwrap()
}

/// Where what was answered could not be written, each client is told so in its own protocol, and stays in step: a
/// value that another thread of the kernel had begun to write, and one that is answered from another shard.
#[test]
fn the_error_for_what_could_not_be_written_is_in_the_clients_own_protocol() {
    const LARGE_BYTES: usize = 5 << 20;
    for (shards, sync_mode) in [(1, "everysec"), (2, "everysec"), (2, "no"), (2, "always")] {
        let segment_bytes = SEGMENT_BYTES.to_string();
        let flags =
            ["--wal-segment-size", &segment_bytes, "--disk-timeout", "300ms", "--sync-mode", sync_mode];
        let server = Server::start(shards, &flags);
        let mut clients: Vec<Resp> = (0..12).map(|_| server.resp()).collect();
        let mut text = server.text();
        for client in clients.iter_mut().skip(6) {
            assert!(client.ask("HELLO 3").to_string().contains("\"proto\", 3"));
        }
        // Writes are refused once one has failed: this is sent before any has.
        limit_files(&server, Some(0));
        for (number, client) in clients.iter_mut().enumerate() {
            let value = if number % 6 == 0 { "x".repeat(LARGE_BYTES) } else { number.to_string() };
            client.wire.send(&encoded(&["SET", &format!("key:{number}"), &value]));
        }
        text.wire.send(format!("SET key {}\n", "x".repeat(60_000)).as_bytes());
        for client in &mut clients {
            let line = whole_line(&mut client.wire);
            assert!(line.starts_with("-MISCONF ") && line.ends_with("\r\n"), "{line:?}");
            // One whose own shard could not write is disconnected behind the error.
            client.wire.try_send(&encoded(&["ECHO", "in step"])).ok();
            match client.try_read() {
                Ok(reply) => assert_eq!(reply.to_string(), "\"in step\""),
                Err(error) => assert!(is_closed(&error), "{error}"),
            }
        }
        let line = whole_line(&mut text.wire);
        assert!(line.starts_with("-ERR ") && line.ends_with('\n') && !line.contains('\r'), "{line:?}");
    }
}

#[test]
fn an_answer_of_another_shard_is_not_taken_for_that_to_an_earlier_write() {
    for job in ["GET {b}", "MGET {a} {b} {c} {d}"] {
        let server = Server::start(2, &["--sync-mode", "everysec", "--disk-timeout", "300ms"]);
        let keys = ["{a}", "{b}", "{c}", "{d}"];
        let mut clients: Vec<Resp> = keys.iter().map(|_| server.resp()).collect();
        limit_files(&server, Some(0));
        for (client, key) in clients.iter_mut().zip(keys) {
            let set = |field: &str| encoded(&["SET", &format!("{key}{field}"), "1"]);
            let job = encoded(&job.split(' ').collect::<Vec<_>>());
            client.wire.send(&[set("1"), set("2"), job].concat());
        }
        for client in &mut clients {
            for answered in 0..2 {
                match client.try_read() {
                    Ok(reply) => assert!(reply.to_string().starts_with("-MISCONF "), "{answered}: {reply}"),
                    Err(error) => assert!(answered == 1 && is_closed(&error), "{error}"),
                }
            }
        }
    }
}

#[test]
fn what_could_not_be_written_is_not_there_after_a_crash() {
    let mut server = start(2, "everysec");
    let mut resp = server.resp();
    assert_eq!(resp.ask("MSET a 1 b 1 c 1 d 1").to_string(), "+OK");
    limit_files(&server, Some(0));
    resp.wire.send(&encoded(&["MSET", "a", "2", "b", "2", "c", "2", "d", "2"]));
    assert!(within_deadline(|| health(&server).contains("degraded")), "{}", health(&server));
    server.kill9();
    server.restart(2);
    assert_eq!(server.resp().ask("MGET a b c d").to_string(), "[\"1\", \"1\", \"1\", \"1\"]");
}

#[test]
fn a_server_whose_log_cannot_be_written_stops_with_an_error() {
    let mut server = start(1, "everysec");
    limit_files(&server, Some(0));
    let mut resp = server.resp();
    resp.wire.send(&encoded(&["SET", "a", "1"]));
    assert!(within_deadline(|| health(&server).contains("degraded")), "{}", health(&server));
    assert_eq!(server.terminate().code(), Some(1), "{}", server.log.tail());
    server.restart(1);
    assert_eq!(server.resp().ask("EXISTS a").integer(), 0);
}

/// Puts files of the names that this server uses at the place of its data directory, as another server would.
fn put_another(data: &Path) -> impl Fn() -> bool {
    let shard = data.join("layout-1/shard-0");
    fs::create_dir_all(&shard).unwrap();
    let of_shard =
        ["00000000000000000001.log", "00000000000000000002.log", "spare", "snapshot.tmp", "synced"];
    let paths = of_shard.map(|name| shard.join(name)).into_iter().chain([data.join("LOCK")]);
    let paths: Vec<_> = paths.collect();
    paths.iter().for_each(|path| fs::write(path, "another's").unwrap());
    move || {
        let count = fs::read_dir(&shard).unwrap().count();
        count == of_shard.len() && paths.iter().all(|path| fs::read_to_string(path).unwrap() == "another's")
    }
}

#[test]
fn a_server_whose_data_directory_was_moved_refuses_writes_and_leaves_what_is_in_its_place_alone() {
    for sync_mode in ["always", "everysec"] {
        let mut server = start(1, sync_mode);
        let mut resp = server.resp();
        assert_eq!(resp.ask("SET a 1").to_string(), "+OK");
        let (data, moved) = (server.data(), server.data().with_extension("moved"));
        fs::rename(&data, &moved).unwrap();
        let is_untouched = put_another(&data);
        assert!(within_deadline(|| refused(&resp.ask("SET b 2"))), "{}", server.log.tail());
        let reply = resp.ask("SET b 3").to_string();
        assert!(reply.contains("/LOCK is not the file that this server has locked: "), "{reply}");
        assert!(reply.ends_with("put it back at its place, and they are taken again, or stop this server"));
        assert_degraded(&server);
        assert_eq!(resp.ask("GET a").to_string(), "\"1\"");
        assert!(resp.ask("KVLITE.SYNC").to_string().starts_with("-MISCONF the outcome is unknown: "));
        assert!(resp.ask("SAVE").to_string().starts_with("-ERR no snapshot could be written"));
        let log = server.log.text();
        let told = log.lines().filter(|line| line.contains("ERROR") && line.contains("writes are refused"));
        assert_eq!(told.count(), 1, "{log}");
        assert!(is_untouched());

        let put_back = || {
            fs::remove_dir_all(&data).unwrap();
            fs::rename(&moved, &data).unwrap();
        };
        put_back();
        assert!(within_deadline(|| !refused(&resp.ask("SET again 1"))), "{}", server.log.tail());
        assert_eq!(resp.ask("SAVE").to_string(), "+OK");
        assert_healthy(&server);
        // At the end it is looked once more.
        fs::rename(&data, &moved).unwrap();
        let is_untouched = put_another(&data);
        assert_eq!(server.terminate().code(), Some(1), "{}", server.log.tail());
        assert!(is_untouched());
        put_back();
        server.restart(1);
        assert_eq!(server.resp().ask("MGET a again").to_string(), "[\"1\", \"1\"]");
    }
}

#[test]
fn a_server_that_lost_its_data_directory_does_not_end_as_if_all_were_on_disk() {
    let losses: [fn(&Path); 2] =
        [|data| fs::remove_dir_all(data).unwrap(), |data| fs::remove_file(data.join("LOCK")).unwrap()];
    for (shards, lose) in [1, 2].into_iter().zip(losses) {
        let mut server = start(shards, "everysec");
        assert_eq!(server.resp().ask("MSET a 1 b 2 c 3 d 4").to_string(), "+OK");
        lose(&server.data());
        assert_eq!(server.terminate().code(), Some(1), "{}", server.log.tail());
        let log = server.log.text();
        assert!(!log.contains("everything acknowledged is on disk"), "{log}");
        let last = log.lines().last().unwrap();
        assert!(
            last.contains("ERROR") && last.contains("/LOCK is not the file that this server has"),
            "{log}"
        );
    }
}

/// A small file system of its own.
struct Mount(TempDir);

impl Mount {
    fn new(bytes: u64) -> Option<Mount> {
        let directory = TempDir::with_prefix("kvlite-disk-").unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(directory.path());
        let mounted = mount.output().is_ok_and(|ended| ended.status.success());
        if !mounted {
            eprintln!("skipped: no file system can be mounted here, which takes root");
        }
        mounted.then_some(Mount(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The server may still be ending. What stays mounted lazily ends with it.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let Some(disk) = Mount::new(24 << 20) else { return };
    let data = disk.path().join("data");
    let segment_bytes = SEGMENT_BYTES.to_string();
    let flags = ["--wal-path", data.to_str().unwrap(), "--wal-segment-size", &segment_bytes];
    let mut server = Server::start(2, &flags);
    let mut resp = server.resp();
    let ballast = disk.path().join("ballast");
    rustix::fs::fallocate(File::create(&ballast).unwrap(), rustix::fs::FallocateFlags::empty(), 0, 8 << 20)
        .unwrap();
    let end = fill(&mut resp, 0);
    assert_degraded(&server);
    assert!(health(&server).contains("No space left on device"), "{}", health(&server));
    let reply = resp.ask(&format!("SET key:{end} v")).to_string();
    assert!(reply.contains("free space on the disk"), "{reply}");
    assert_filled(&mut resp, end);

    fs::remove_file(&ballast).unwrap();
    assert!(taken_again(&server, &mut resp), "{}", server.log.tail());
    let end_of_all = fill(&mut resp, end);
    assert!(end_of_all > end + 100, "8 MiB hold more than the values {end} to {end_of_all}");
    server.kill9();
    server.restart(2);
    assert_filled(&mut server.resp(), end_of_all);
}
