//! `kvlite import` as a user calls it: files of the real Redis, where it is installed, and of the Go kvlite.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::client::{Resp, Value};
use crate::process::{Ended, Log, Server, command, free_port, run_to_end, within_deadline};

fn import(arguments: &[&str]) -> Ended {
    let mut command = command();
    command.arg("import").args(arguments);
    run_to_end(command)
}

/// Imports a file into a server, and returns what it says. `status`: what it has to end with.
fn imported(server: &Server, file: &Path, more: &[&str], status: i32) -> String {
    let port = server.resp_port.to_string();
    let arguments = [file.to_str().unwrap(), "--host", "127.0.0.1", "--resp-port", &port];
    let ended = import(&[&arguments, more].concat());
    assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    ended.output
}

/// A Redis with a data directory of its own.
struct Redis {
    child: Child,
    directory: TempDir,
    port: u16,
    client: Resp,
}

impl Redis {
    /// `None`, said on standard error, where it is not installed.
    fn start(options: &[&str]) -> Option<Redis> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let program =
            std::env::split_paths(&paths).map(|path| path.join("redis-server")).find(|path| path.is_file());
        let Some(program) = program else {
            eprintln!("SKIPPED: redis-server is not installed, so no file of it is imported");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = Command::new(program)
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"])
            .arg(directory.path())
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert!(within_deadline(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()));
        let client = Resp::connect(([127, 0, 0, 1], port).into(), &Log::elsewhere());
        Some(Redis { child, directory, port, client })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let reply = self.client.ask(line);
            assert!(!matches!(reply, Value::Error(_)), "{line}: {reply}");
        }
    }

    /// Its strings of the database that is selected, and whether they expire.
    fn strings(&mut self) -> BTreeMap<Vec<u8>, (Vec<u8>, bool)> {
        let keys = self.client.ask("KEYS *");
        let keys = keys.items().iter().map(|key| key.bytes().to_vec());
        let strings = keys.filter_map(|key| match self.client.ask_bytes(&[b"GET", &key[..]]) {
            Value::Bulk(value) => {
                let expires = self.client.ask_bytes(&[b"PTTL", &key[..]]).integer() > 0;
                Some((key, (value, expires)))
            }
            _ => None,
        });
        strings.collect()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All keys of a server are these strings, with TTLs where they are said to have one.
fn assert_holds(server: &Server, strings: &BTreeMap<Vec<u8>, (Vec<u8>, bool)>) {
    let mut client = server.resp();
    assert_eq!(client.ask("DBSIZE").integer(), strings.len() as i64);
    for (key, (value, expires)) in strings {
        let shown = key.escape_ascii();
        assert_eq!(client.ask_bytes(&[b"GET", &key[..]]), Value::bulk(value), "{shown}");
        assert_eq!(client.ask_bytes(&[b"PTTL", &key[..]]).integer() > 0, *expires, "{shown}");
    }
}

/// Strings in every encoding, some that expire, and every type of Redis 7, small and large.
const EVERYTHING: &str = r##"
    MSET int8 -5 int16 1000 int32 -2000000000 int64 9000000000000000000 text hello empty ""
    SET "binary \x00\xff\r\n" "\x00\xff\r\n"
    SETRANGE zeros 100000 x
    SETEX with-ttl 5000 x
    SET with-ttl-ms y PX 5000000
    HSET small-hash f v
    RPUSH small-list a b 3
    SADD small-set a b
    SADD integers 1 2 300000
    ZADD small-zset 1.5 a -inf b
    XADD stream 1-1 f v
    XGROUP CREATE stream readers 0
    XREADGROUP GROUP readers alice COUNT 1 STREAMS stream >
    CONFIG SET hash-max-listpack-entries 0
    CONFIG SET set-max-intset-entries 0
    CONFIG SET zset-max-listpack-entries 0
    CONFIG SET list-max-listpack-size 1
    HSET large-hash f v
    RPUSH large-list a b c
    SADD large-set 1 a
    ZADD large-zset 1.5 a 2 b
    EVAL "for i = 1, 5000 do redis.call('SET', 'many:' .. i, string.rep('value ' .. i, 20)) end" 0
    FUNCTION LOAD "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
    SELECT 3
    SET elsewhere x
    SELECT 0
    SAVE
"##;

#[test]
fn an_rdb_file_of_redis_gives_its_strings_and_counts_all_else() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    redis.run(EVERYTHING);
    redis.client.wire.send(b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$900000\r\n");
    redis.client.wire.send(&b"0123456789abcdefgh".repeat(50_000));
    redis.client.wire.send(b"\r\n");
    assert_eq!(redis.client.read(), Value::Simple("OK".to_owned()));
    redis.run("SAVE");
    let (strings, file) = (redis.strings(), redis.path("dump.rdb"));
    assert_eq!(strings.len(), 5011);
    let not_taken = "not taken: 2 hashes, 2 lists, 3 sets, 2 sorted sets, 1 stream, 1 function library";
    let said = format!("5,012 keys (2 with a TTL), 0 expired, {not_taken}");

    let server = Server::start(2, &[]);
    assert_eq!(imported(&server, &file, &["--dry-run"], 1).trim(), format!("would import {said}"));
    assert_eq!(server.resp().ask("DBSIZE").integer(), 0);
    assert_eq!(imported(&server, &file, &[], 1).trim(), format!("imported {said}"));
    assert_holds(&server, &strings);
    let elsewhere = |server: &Server| {
        let mut resp = server.resp();
        resp.ask("SELECT 3");
        (resp.ask("DBSIZE").integer(), resp.ask("GET elsewhere"))
    };
    assert_eq!(elsewhere(&server), (1, Value::bulk("x")));
    // Again: what is there stays, unless it is to be replaced.
    server.resp().ask("SET text mine");
    let again = imported(&server, &file, &["--list"], 1);
    assert!(again.contains("5,012 keys that exist (--replace takes them)"), "{again}");
    assert!(again.contains("not taken: 1 stream: stream\n") && again.contains(": int16\n"), "{again}");
    assert_eq!(server.resp().ask("GET text"), Value::bulk("mine"));
    imported(&server, &file, &["--replace"], 1);
    assert_holds(&server, &strings);
    assert!(imported(&server, &file, &["--db", "3"], 1).contains("imported 1 key (0 with a TTL)"));

    // Without a server.
    let directory = tempfile::tempdir().unwrap();
    let new = directory.path().join("new");
    let ended = import(&[file.to_str().unwrap(), "--to", new.to_str().unwrap()]);
    assert_eq!((ended.status.code(), ended.output.trim()), (Some(1), &*format!("imported {said}")));
    let mut check = command();
    check.arg("check").arg(&new);
    let checked = run_to_end(check);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let mut server = Server::stopped(Some(&new), &[]);
    server.restart(3);
    assert_holds(&server, &strings);
    let refused = import(&[file.to_str().unwrap(), "--to", new.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(refused.output.contains("is not empty"), "{refused:?}");

    // A file that is cut, or changed, anywhere.
    let whole = fs::read(&file).unwrap();
    let damaged = directory.path().join("damaged.rdb");
    for part in 1..10 {
        let at = whole.len() * part / 10;
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        for bytes in [&whole[..at], &flipped] {
            fs::write(&damaged, bytes).unwrap();
            let ended = import(&[damaged.to_str().unwrap(), "--dry-run"]);
            assert_eq!(ended.status.code(), Some(3), "{at}: {ended:?}");
            assert!(ended.output.contains("is damaged at byte"), "{at}: {ended:?}");
            let ended = import(&[damaged.to_str().unwrap(), "--dry-run", "--salvage"]);
            assert_eq!(ended.status.code(), Some(1), "{at}: {ended:?}");
        }
    }
}

#[test]
fn keys_that_have_expired_since_are_counted() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    redis.run("SET short x PX 400\nSET long x");
    redis.run("SAVE");
    let file = redis.path("dump.rdb");
    let mut output = String::new();
    assert!(within_deadline(|| {
        let ended = import(&[file.to_str().unwrap(), "--dry-run"]);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        output = ended.output;
        output.contains("would import 1 key (0 with a TTL), 1 expired")
    }));
    // A server has the key from before, without a TTL: where its keys are replaced it goes.
    let server = Server::start(1, &[]);
    let mut client = server.resp();
    client.ask("SET short before");
    imported(&server, &file, &[], 0);
    assert_eq!(client.ask("GET short"), Value::bulk(b"before"));
    let said = imported(&server, &file, &["--replace"], 0);
    assert!(said.contains("imported 1 key (0 with a TTL), 1 expired"), "{said}");
    assert_eq!(client.ask("EXISTS short"), Value::Integer(0));
}

/// Changes of all kinds, as they come behind a rewrite; their order matters.
const CHANGES: &str = r#"
    INCR counter
    INCRBYFLOAT float 1.5
    APPEND text " more"
    MULTI
    SET in-transaction 1
    INCR in-transaction
    EXEC
    SET expiring x
    EXPIRE expiring 5000
    SETEX cached 5000 x
    GETEX cached PERSIST
    SET persisted x EX 5000
    PERSIST persisted
    SET gone x
    UNLINK gone
    MSETNX first 1 second 2
    GETSET first one
    SET kept 1 EX 4000
    SET kept 2 KEEPTTL
    GETDEL second
    EVAL "redis.call('SET', 'by-script', 'x'); redis.call('INCR', 'counter')" 0
    SELECT 2
    SET elsewhere x
    SET moved x EX 4000
    MOVE moved 0
    SET swapped x
    SELECT 0
    SET renamed 1 EX 4000
    RENAME renamed renamed-twice
    RENAMENX renamed-twice name
    COPY name copied
    SET overwritten 1
    COPY name overwritten REPLACE
    SET away x
    MOVE away 2
    SWAPDB 0 2
    SWAPDB 0 2
    SELECT 2
    DEL away swapped
    SELECT 0
"#;

#[test]
fn append_only_files_are_run_in_their_order() {
    for preamble in ["yes", "no"] {
        let Some(mut redis) = Redis::start(&["--appendonly", "yes", "--aof-use-rdb-preamble", preamble])
        else {
            return;
        };
        redis.run("SET before x\nFLUSHALL\nSET text some\nSET counter 7\nSETEX old-ttl 5000 x\nHSET h f v");
        redis.run("BGREWRITEAOF");
        assert!(within_deadline(|| {
            let info = redis.client.ask("INFO persistence");
            let info = String::from_utf8_lossy(info.bytes()).into_owned();
            info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
        }));
        redis.run(CHANGES);
        redis.run("HSET h g w\nBITOP NOT bits text\nPFADD counted a b\nPFMERGE merged counted");
        let strings = redis.strings();
        let directory = redis.path("appendonlydir");
        let part = directory.join("appendonly.aof.2.incr.aof");
        let ended = import(&[part.to_str().unwrap(), "--dry-run"]);
        assert_eq!(ended.status.code(), Some(3), "{ended:?}");
        assert!(ended.output.contains("appendonly.aof.2.incr.aof holds a part of the keys"), "{ended:?}");
        let server = Server::start(2, &[]);
        let said = imported(&server, &directory, &[], 1);
        let not_taken = if preamble == "yes" { "1 hash" } else { "1 HMSET" };
        assert!(said.contains(&format!("0 expired, not taken: {not_taken}\n")), "{said}");
        let mut resp = server.resp();
        resp.ask("SELECT 2");
        assert_eq!((resp.ask("DBSIZE").integer(), resp.ask("GET elsewhere")), (1, Value::bulk("x")));
        assert_holds(&server, &strings);

        // Redis' data directory, and the form of all in one file of versions before 7.
        let manifest = directory.join("appendonly.aof.manifest");
        let files = fs::read_to_string(&manifest).unwrap();
        let names = files.lines().filter(|line| !line.ends_with("type h"));
        let names: Vec<&str> = names.map(|line| line.split(' ').nth(1).unwrap()).collect();
        let old = redis.path("appendonly.aof");
        let bytes: Vec<u8> = names.iter().flat_map(|name| fs::read(directory.join(name)).unwrap()).collect();
        fs::write(&old, &bytes).unwrap();
        let dump = redis.path("dump.rdb");
        fs::write(&dump, b"REDIS0011").unwrap();
        let ended = import(&[redis.directory.path().to_str().unwrap(), "--dry-run"]);
        assert_eq!(ended.status.code(), Some(3), "{ended:?}");
        assert!(ended.output.contains("which may be newer; name the one that is to be taken"), "{ended:?}");
        fs::remove_file(&dump).unwrap();
        for path in [redis.directory.path(), &manifest, &old] {
            let server = Server::start(1, &[]);
            assert_eq!(imported(&server, path, &[], 1), said, "{}", path.display());
            assert_holds(&server, &strings);
        }
        // A crash may cut the last command.
        fs::write(&old, &bytes[..bytes.len() - 3]).unwrap();
        let ended = import(&[old.to_str().unwrap(), "--dry-run"]);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.output.contains("the file ends in the middle"), "{ended:?}");
    }
}

/// What the Go kvlite has written: a snapshot of version 1, and a log of both versions.
fn go_data(directory: &Path) {
    let snapshot = r#"{
  "timestamp": 1700000000000000000,
  "version": 1,
  "key_count": 3,
  "data": {
    "from snapshot": "a \u003cb\u003e",
    "removed": "x",
    "changed": "old"
  }
}
"#;
    let log = "1700000000000000001|DELETE|removed||1377832501\n\
        1700000000000000002|SET|changed|new\\|er\\\\\\nline|3350163146\n\
        1700000000000000003|SET|expired|x|1700000000000000004|2285143472\n\
        1700000000000000004|SET|expiring|x|9000000000000000000|4123806841\n";
    fs::write(directory.join("kvlite.snapshot"), snapshot).unwrap();
    fs::write(directory.join("kvlite.wal"), log).unwrap();
}

#[test]
fn the_data_directory_of_the_go_kvlite_is_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    go_data(directory.path());
    let socket = directory.path().join("socket");
    let socket = socket.to_str().unwrap();
    let server = Server::start(1, &["--unix-socket", socket]);
    let ended = import(&[directory.path().to_str().unwrap(), "--resp-port", "0", "--unix-socket", socket]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.output, "imported 3 keys (1 with a TTL), 1 expired\n");
    let strings =
        [("from snapshot", "a <b>", false), ("changed", "new|er\\\nline", false), ("expiring", "x", true)];
    let strings = strings.map(|(key, value, expires)| (key.into(), (value.into(), expires)));
    assert_holds(&server, &strings.into());
    // The log alone removes what only the snapshot has.
    let log = directory.path().join("kvlite.wal");
    let said = imported(&server, &log, &["--dry-run", "--list"], 1);
    assert!(said.contains("1 removal of a key that the file does not hold"), "{said}");
}

#[test]
fn a_server_does_not_start_without_the_keys_of_the_go_kvlite() {
    let directory = tempfile::tempdir().unwrap();
    go_data(directory.path());
    let mut server = Server::stopped(Some(directory.path()), &[]);
    let refused = server.try_restart(1);
    assert!(refused.is_err(), "{refused:?}");
    assert!(server.log.text().contains("makes a data directory of it"), "{}", server.log.text());
    // What it told helps, and beside data of this kvlite the old files are nobody's business.
    let new = tempfile::tempdir().unwrap();
    let ended = import(&[directory.path().to_str().unwrap(), "--to", new.path().to_str().unwrap()]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    go_data(new.path());
    let mut server = Server::stopped(Some(new.path()), &[]);
    server.restart(1);
    assert_eq!(server.resp().ask("DBSIZE").integer(), 3);
}

/// `redis-cli` sends what `kvlite dump` prints.
#[test]
fn a_dump_is_taken_by_redis() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let mut server = Server::start(2, &[]);
    let mut client = server.resp();
    client.ask_bytes(&["SET".as_bytes(), b"\xff\0 \"'\r\n", b"\r\n\xfe \"\\"]);
    client.ask_bytes(&["SET".as_bytes(), b"large", &b"\0a".repeat(200_000)]);
    client.ask("SETEX expiring 5000 x");
    drop(client);
    assert!(server.terminate().success());
    let mut dump = command();
    dump.arg("dump").arg(server.data());
    let records = run_to_end(dump).output;
    let file = redis.path("records.txt");
    fs::write(&file, records).unwrap();
    let sent = Command::new("redis-cli")
        .args(["-p", &redis.port.to_string()])
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let strings = redis.strings();
    server.restart(2);
    assert_eq!(strings.len(), 3);
    assert_holds(&server, &strings);
}

#[test]
fn lines_that_cannot_be_read_are_named_and_the_others_taken() {
    let directory = tempfile::tempdir().unwrap();
    go_data(directory.path());
    let log = directory.path().join("kvlite.wal");
    let mut text = fs::read_to_string(&log).unwrap().replace("new", "gnu");
    text.push_str("1700000000000000005|SET|cu");
    fs::write(&log, text).unwrap();
    let server = Server::start(1, &[]);
    let said = imported(&server, directory.path(), &[], 1);
    for part in [
        "imported 3 keys (1 with a TTL), 1 expired, not taken: 2 lines\n",
        "not taken: line 2: the checksum is ",
        "not taken: line 5: no record: a record has 5 or 6 fields, the last one a number, and this has 3 (the file is cut",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(server.resp().ask("GET changed"), Value::bulk("old"));
}

#[test]
fn a_dump_in_json_moves_from_one_server_to_another() {
    let mut server = Server::start(2, &[]);
    server.resp().ask_bytes(&["SET".as_bytes(), b"\xff\0", b"\xfe"]);
    server.resp().ask("SETEX a 5000 b");
    assert!(server.terminate().success());
    let mut dump = command();
    dump.arg("dump").arg(server.data()).arg("--json");
    let dumped = run_to_end(dump).output;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dump.json");
    fs::write(&file, dumped).unwrap();
    let other = Server::start(1, &[]);
    assert_eq!(imported(&other, &file, &[], 0), "imported 2 keys (1 with a TTL), 0 expired\n");
    let strings = [(b"\xff\0".to_vec(), (b"\xfe".to_vec(), false)), (b"a".to_vec(), (b"b".to_vec(), true))];
    assert_holds(&other, &strings.into());
}

#[test]
fn what_goes_wrong_is_said_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    fs::write(&file, "{\"a\": \"b\"}").unwrap();
    let name = file.to_str().unwrap();
    let server = Server::start(1, &[]);
    let text_port = server.port.to_string();
    let free = free_port().to_string();
    for (arguments, status, said) in [
        (&[][..], 2, "<FILE>"),
        (&["/nonexistent", "--dry-run"], 3, "cannot open /nonexistent"),
        (&[directory.path().to_str().unwrap(), "--dry-run"], 3, "name the file, such as"),
        (&[name, "--host", "127.0.0.1", "--resp-port", &free], 3, "no server answers at 127.0.0.1:"),
        (&[name, "--resp-port", "0"], 3, "give one, or write a new data directory by --to"),
        (
            &[name, "--host", "127.0.0.1", "--resp-port", &text_port],
            3,
            "this port speaks the kvlite text protocol",
        ),
        (&[name, "--to", directory.path().to_str().unwrap()], 3, "is not empty"),
        (&[name, "--dry-run", "--format", "go-log"], 1, "not taken: line 1: no record"),
        (
            &[name, "--dry-run", "--format", "redis"],
            3,
            "at byte 0: the count of a command's words (*) is expected",
        ),
    ] {
        let ended = import(arguments);
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {ended:?}");
        assert!(ended.output.contains(said), "{arguments:?}: {ended:?}");
    }
    assert_eq!(imported(&server, &file, &[], 0), "imported 1 key (0 with a TTL), 0 expired\n");
}

/// Listens, and answers whatever comes with these replies, one for each; what has come by the end.
fn answered_with(replies: &'static [&'static [u8]]) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let (mut asked, mut chunk) = (Vec::new(), [0; 4096]);
        for reply in replies {
            let count = client.read(&mut chunk).unwrap();
            asked.extend_from_slice(&chunk[..count]);
            client.write_all(reply).unwrap();
        }
        // Up to where the import hangs up, which may be by a reset.
        let _ = client.read_to_end(&mut asked);
        asked
    });
    (port, asked)
}

#[test]
fn another_server_gets_no_key_and_one_that_says_nothing_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    fs::write(&file, "{\"secret\": \"b\"}").unwrap();
    let redis: &[&[u8]] =
        &[b"+PONG\r\n", b"-ERR unknown command 'KVLITE.SYNC', with args beginning with: \r\n"];
    for (replies, said) in [
        (redis, "is no kvlite that speaks the Redis protocol, and got no key"),
        (&[b"HTTP/1.1 400 Bad Request\r\n"], "is no kvlite"),
        (
            &[b"-ERR max number of clients 'reached'\x1b[2J\r\n"],
            "answers: ERR max number of clients 'reached'\\u{1b}[2J\n",
        ),
        (&[b"+PONG\r\n", b"-LOADING is loading\r\n"], "answers: LOADING is loading\n"),
        (&[], "does not answer in time; look at its log"),
    ] {
        let (port, asked) = answered_with(replies);
        let ended =
            import(&[file.to_str().unwrap(), "--host", "127.0.0.1", "--resp-port", &port.to_string()]);
        assert_eq!(ended.status.code(), Some(3), "{ended:?}");
        assert!(ended.output.contains(said), "{ended:?}");
        let asked = asked.join().unwrap();
        assert!(!asked.windows(6).any(|part| part == b"secret"), "{}", asked.escape_ascii());
    }
}
