//! Scripts: over several shards as on one, long ones that are ended or run to their end, and libraries that outlive the
//! process, a change of the number of shards and a backup.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::client::Value;
use crate::process::{Server, within_deadline};

/// A library with a function that counts.
const LIBRARY: &str = "#!lua name=shop\nredis.register_function('visit', function(keys) return redis.call('INCR', keys[1]) end)";

/// A script that does not end, and catches what would end it wherever it can.
const CATCHES_ITS_END: &str = "while true do xpcall(function() while true do pcall(error) end end, function() while true do end end) end";

/// Scripts move amounts between keys of several shards while others read them: the sum is always the same, and a script
/// sees what those before it have left.
#[test]
fn scripts_over_several_shards_are_seen_whole_or_not_at_all() {
    const KEYS: [&str; 4] = ["a", "b", "c", "d"];
    const MOVE: &str = "if tonumber(redis.call('GET', KEYS[1])) < 7 then return 0 end
        redis.call('DECRBY', KEYS[1], 7)
        return redis.call('INCRBY', KEYS[2], 7) - redis.call('GET', KEYS[2])";
    let server = Server::start(4, &[]);
    let mut resp = server.resp();
    resp.ask("MSET a 1000 b 1000 c 1000 d 1000");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for first in 0..KEYS.len() {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut resp = server.resp();
                for turn in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (from, to) = (KEYS[first], KEYS[(first + turn) % KEYS.len()]);
                    let reply = resp.ask_bytes(&["EVAL", MOVE, "2", from, to]);
                    assert_eq!(reply.integer(), 0, "{reply}");
                }
            });
        }
        for _ in 0..500 {
            let values = resp.ask("MGET a b c d");
            let number = |value: &Value| String::from_utf8_lossy(value.bytes()).parse::<i64>().unwrap();
            assert_eq!(values.items().iter().map(number).sum::<i64>(), 4000, "{values}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// A script is known everywhere once its first call is answered, whichever connections and shards ask for it.
#[test]
fn a_script_that_one_client_has_sent_runs_by_its_name_for_all_others() {
    let server = Server::start(4, &[]);
    let mut clients: Vec<_> = (0..8).map(|_| server.resp()).collect();
    for round in 0..100 {
        let script = format!("return redis.call('INCR', KEYS[1]) + {round}000");
        let named = clients[0].ask_bytes(&["EVAL", "return redis.sha1hex(ARGV[1])", "0", &script]);
        let name = String::from_utf8(named.bytes().to_vec()).unwrap();
        let (sender, asker) = (round % 8, (round + round / 8 + 1) % 8);
        clients[sender].ask_bytes(&["EVAL", &script, "1", "first"]);
        let reply = clients[asker].ask_bytes(&["EVALSHA", &name, "1", &format!("key:{round}")]);
        assert_eq!(reply.integer(), round as i64 * 1000 + 1, "{reply}");
    }
    let unknown = clients[1].ask("EVALSHA 0000000000000000000000000000000000000000 1 k").to_string();
    assert_eq!(unknown, "-NOSCRIPT No matching script. Please use EVAL.");
}

#[test]
fn a_script_reaches_the_keys_that_it_names_and_fails_with_what_it_did() {
    let server = Server::start(4, &[]);
    let mut resp = server.resp();
    resp.ask("MSET a 1 b 2 c 3");
    let eval = |resp: &mut crate::client::Resp, script: &str, keys: &[&str]| {
        let count = keys.len().to_string();
        let mut words = vec!["EVAL", script, &count];
        words.extend(keys);
        resp.ask_bytes(&words).to_string()
    };
    let all =
        "redis.call('DEL', KEYS[1]) redis.call('PEXPIRE', KEYS[2], 90000) redis.call('SET', KEYS[3], 'x')
        return redis.call('PTTL', KEYS[2])";
    assert_eq!(eval(&mut resp, all, &["a", "b", "c"]), "90000");
    assert_eq!(resp.ask("MGET a b c").to_string(), "[nil, \"2\", \"x\"]");
    assert!((80000..=90000).contains(&resp.ask("PTTL b").integer()));
    let failed = eval(&mut resp, "redis.call('INCR', KEYS[2]) error('enough')", &["a", "b", "b"]);
    assert!(failed.contains("ERR user_script:1: enough script: "), "{failed}");
    assert_eq!(resp.ask("GET b").to_string(), "\"3\"", "as in Redis, what it did before stays");
    let undeclared = eval(&mut resp, "return redis.call('GET', 'other')", &["a", "b", "c"]);
    assert!(undeclared.contains("name it among the keys"), "{undeclared}");
    for queued in
        ["MULTI", "INCR b", "EVAL \"return redis.call('INCR', KEYS[1])\" 1 b", "EVAL \"return #KEYS\" 2 a b"]
    {
        resp.ask(queued);
    }
    assert_eq!(resp.ask("EXEC").to_string(), "[4, 5, 2]");
}

/// Each of these took more handles or more stack than there is, and the process ended.
#[test]
fn scripts_that_ask_for_much_get_it_or_an_error() {
    let server = Server::start(1, &[]);
    let mut resp = server.resp();
    for (script, reply) in [
        ("return #(('a'):rep(17000)):match(('a?'):rep(17000))", "17000"),
        ("return #(('a'):rep(50000)):match(('a-'):rep(50000) .. '$')", "50000"),
        (
            "return {pcall(string.rep('a', 200000).gsub, 'a', ('a?'):rep(100000), '')}",
            "user_script:1: pattern too complex",
        ),
        ("return ('x'):find(('ab'):rep(100000)) or 'none'", "none"),
        ("local all = {} for n = 1, 9000 do all[n] = 'x' .. n end return #cjson.encode(all)", "70894"),
        ("local all = {} for n = 1, 9000 do all['x' .. n] = 'y' end return #cjson.encode(all)", "106894"),
        (
            "cjson.encode_max_depth(100000) local all = {} for _ = 1, 9000 do all = {all} end
          local well, failure = pcall(cjson.encode, all) cjson.encode_max_depth(1000) return failure",
            "Cannot serialise, excessive nesting (3501)",
        ),
        (
            "cjson.decode_max_depth(100000) local well, failure = pcall(cjson.decode, ('['):rep(9000))
          cjson.decode_max_depth(1000) return failure",
            "Found too many nested data structures (7001) at character 7001",
        ),
        (
            "return {pcall(cmsgpack.unpack, ('\\161a'):rep(9000))}",
            "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)",
        ),
        (
            "return {pcall(struct.unpack, ('s'):rep(9000), ('a\\0'):rep(9000))}",
            "stack overflow (too many results)",
        ),
        (
            "local all = {} for n = 1, 7500 do all[n] = 'x' .. n end return redis.call('DEL', unpack(all))",
            "0",
        ),
        (
            "local all = {} for n = 1, 7999 do all[n] = 'x' .. n end return redis.call('DEL', unpack(all))",
            "too many results to unpack",
        ),
        ("return unpack(1)", "bad argument #1 to 'unpack' (table expected, got number)"),
        ("return string.gsub('x')", "bad argument #2 to 'gsub' (string expected, got no value)"),
    ] {
        let replied = resp.ask_bytes(&["EVAL", script, "0"]).to_string();
        assert!(replied.contains(reply), "{script}: {replied}");
    }
}

#[test]
fn a_script_that_takes_long_is_ended_unless_it_has_changed_keys() {
    for shards in [1, 3] {
        let server = Server::start(shards, &["--busy-reply-threshold", "50ms"]);
        let (mut one, mut other) = (server.resp(), server.resp());
        assert_eq!(one.ask("SCRIPT KILL").to_string(), "-NOTBUSY No scripts in execution right now.");
        thread::scope(|scope| {
            let mut runs = server.resp();
            let endless =
                scope.spawn(move || runs.ask_bytes(&["EVAL", CATCHES_ITS_END, "1", "k"]).to_string());
            assert!(within_deadline(|| one.ask("GET k").to_string().starts_with("-BUSY ")));
            let refused = one.ask("FUNCTION KILL").to_string();
            assert!(refused.starts_with("-BUSY "), "{refused}");
            assert_eq!(other.ask("SCRIPT KILL").to_string(), "+OK");
            let ended = endless.join().unwrap();
            assert!(ended.contains("Script killed by user with SCRIPT KILL..."), "{ended}");
        });
        assert_eq!(one.ask("SET k 1").to_string(), "+OK");
        thread::scope(|scope| {
            let mut runs = server.resp();
            let script =
                "redis.call('SET', KEYS[1], 'begun') while redis.call('TIME')[1] + 0 < ARGV[1] + 0 do end
                redis.call('SET', KEYS[2], 'done') return 'well'";
            let until = (std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 2).to_string();
            let words = ["EVAL", script, "2", "{k}", "{k}2", &until].map(str::to_owned);
            let writing = scope.spawn(move || runs.ask_bytes(&words).to_string());
            assert!(within_deadline(|| one.ask("SCRIPT KILL").to_string().starts_with("-UNKILLABLE ")));
            for shutdown in ["SHUTDOWN", "SHUTDOWN NOW", "SHUTDOWN SAVE"] {
                assert!(one.ask(shutdown).to_string().starts_with("-BUSY "), "{shutdown}");
            }
            assert_eq!(writing.join().unwrap(), "\"well\"");
        });
        assert_eq!(one.ask("MGET {k} {k}2").to_string(), "[\"begun\", \"done\"]");
    }
}

/// What it copies is shared between its keys and the log.
#[test]
fn a_long_script_that_copies_a_large_value_goes_to_the_log() {
    let mut server = Server::start(1, &["--busy-reply-threshold", "50ms", "--sync-mode", "always"]);
    let (mut resp, mut runs) = (server.resp(), server.resp());
    let value = "v".repeat(1 << 20);
    assert_eq!(resp.ask_bytes(&["SET", "k", &value]).to_string(), "+OK");
    thread::scope(|scope| {
        let script = "redis.call('COPY', KEYS[1], KEYS[2])
            local until_s = redis.call('TIME')[1] + 2
            while redis.call('TIME')[1] + 0 < until_s do end return 'well'";
        let long = scope.spawn(move || runs.ask_bytes(&["EVAL", script, "2", "k", "copy"]).to_string());
        assert!(within_deadline(|| resp.ask("GET k").to_string().starts_with("-BUSY ")));
        assert_eq!(long.join().unwrap(), "\"well\"");
    });
    drop(resp);
    server.kill9();
    server.restart(1);
    assert_eq!(server.resp().ask("STRLEN copy").integer(), 1 << 20);
}

/// What a script makes beside Lua's memory is bounded too.
#[test]
fn a_script_makes_no_text_that_its_memory_would_not_hold() {
    let server = Server::start(1, &[]);
    let mut resp = server.resp();
    let long = "local t = {} local s = string.rep('x', 20000000) for i = 1, 100 do t[i] = s end ";
    let refused = "-ERR not enough memory";
    for (ends, begin) in [
        ("cjson.encode_sparse_array(true, 0) return cjson.encode({[1e15] = 1})", refused),
        ("return cmsgpack.pack(t)", refused),
        ("return t", "-ERR the reply "),
        ("return {cmsgpack.unpack(s)}", "-ERR stack overflow (too many return values at once"),
    ] {
        let reply = resp.ask_bytes(&["EVAL", &format!("{long}{ends}"), "0"]).to_string();
        assert!(reply.contains(begin.trim_start_matches("-ERR ")), "{ends}: {reply:.200}");
    }
    assert_eq!(resp.ask("PING").to_string(), "+PONG");
}

#[test]
fn a_library_that_does_not_end_is_not_loaded() {
    let server = Server::start(1, &[]);
    let mut resp = server.resp();
    let refused = resp.ask_bytes(&["FUNCTION", "LOAD", "#!lua name=endless\nwhile true do end"]);
    assert_eq!(refused.to_string(), "-ERR Error registering functions: ERR FUNCTION LOAD timeout");
    assert_eq!(resp.ask_bytes(&["FUNCTION", "LOAD", LIBRARY]).to_string(), "\"shop\"");
}

/// What a script has found out is what is: a key that it makes lasting is not limited again.
#[test]
fn a_script_over_several_shards_can_have_a_key_last() {
    let server = Server::start(3, &["--auto-ttl", "s:* 1h"]);
    let mut resp = server.resp();
    let script = "for _, key in ipairs(KEYS) do redis.call('SET', key, 'x') end
        redis.call('PERSIST', KEYS[1]) return 'done'";
    assert_eq!(resp.ask_bytes(&["EVAL", script, "3", "s:a", "s:b", "s:c"]).to_string(), "\"done\"");
    assert_eq!(resp.ask("TTL s:a").integer(), -1);
    assert!(resp.ask("TTL s:b").integer() > 0);
}

/// What needs all shards is refused while one of them runs a script, on whichever shard its client is.
#[test]
fn commands_over_all_shards_are_told_of_a_long_script() {
    let server = Server::start(3, &["--busy-reply-threshold", "50ms"]);
    // So many that each shard has some of them.
    let mut clients: Vec<_> = (0..9).map(|_| server.resp()).collect();
    let mut queued = server.resp();
    for command in ["MULTI", "SET k 1", "SET a 1", "SET b 1", "SET c 1"] {
        queued.ask(command);
    }
    thread::scope(|scope| {
        let mut runs = server.resp();
        let endless = scope.spawn(move || runs.ask("EVAL \"while true do end\" 1 k").to_string());
        assert!(within_deadline(|| clients[0].ask("GET k").to_string().starts_with("-BUSY ")));
        for client in &mut clients {
            for command in [
                "INFO",
                "DBSIZE",
                "KEYS *",
                "SCAN 0",
                "RANDOMKEY",
                "MGET k a b c",
                "FLUSHALL",
                "CLIENT LIST",
                "CLIENT PAUSE 90000",
                "SLOWLOG GET",
                "STATS",
                "HEALTH",
                "MEMORY STATS",
                "BGSAVE",
                "MONITOR",
                "SCRIPT LOAD \"return 7\"",
                "FUNCTION FLUSH",
            ] {
                let refused = client.ask(command).to_string();
                assert!(refused.starts_with("-BUSY "), "{command}: {refused}");
            }
        }
        let aborted = queued.ask("EXEC").to_string();
        assert!(aborted.starts_with("-EXECABORT Transaction discarded because of: BUSY "), "{aborted}");
        assert_eq!(clients[0].ask("SCRIPT KILL").to_string(), "+OK");
        endless.join().unwrap();
    });
    assert_eq!(clients[0].ask("MGET k a b c").to_string(), "[nil, nil, nil, nil]");
    let told = clients[0].ask("INFO replication").to_string();
    assert!(told.contains("role:master"), "{told}");
}

#[test]
fn libraries_outlive_the_process_another_number_of_shards_and_a_backup() {
    let backups = TempDir::with_prefix("kvlite-backups-").unwrap();
    let mut server = Server::start(2, &["--backup-dir", backups.path().to_str().unwrap()]);
    let mut resp = server.resp();
    assert_eq!(resp.ask_bytes(&["FUNCTION", "LOAD", LIBRARY]).to_string(), "\"shop\"");
    assert_eq!(resp.ask("FCALL visit 1 hits").integer(), 1);
    let backup = resp.ask("BACKUP one");
    assert_eq!(backup.items().len(), 6, "{backup}");
    drop(resp);
    server.kill9();
    server.restart(3);
    let mut resp = server.resp();
    assert_eq!(resp.ask("FCALL visit 1 hits").integer(), 2);
    assert_eq!(resp.ask("FUNCTION FLUSH").to_string(), "+OK");
    drop(resp);
    server.kill9();
    server.restart(3);
    assert_eq!(server.resp().ask("FCALL visit 1 hits").to_string(), "-ERR Function not found");
    let mut restored = Server::stopped(Some(&backups.path().join("one")), &[]);
    restored.restart(2);
    assert_eq!(restored.resp().ask("FCALL visit 1 hits").integer(), 2);
    let file = server.data().join("functions");
    server.terminate();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[11] ^= 0xff;
    std::fs::write(&file, bytes).unwrap();
    assert!(server.try_restart(3).is_err());
    let told = server.log.text();
    assert!(told.contains("the libraries of functions are damaged"), "{}", server.log.tail());
}
