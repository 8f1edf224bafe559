//! Every command of the table, over both protocols, with 1, 2 and 5 shards.
//!
//! The RESP scripts claim to be what Redis answers; `KVLITE_TEST_RESP_ADDR` holds them against it.

use std::net::SocketAddr;

use shard::command::TABLE;

use crate::client::{Resp, Value, encoded};
use crate::process::{Log, Server, within_deadline};
use crate::transcript::{run_resp, run_text};

/// What one command answers on one protocol, on a connection of its own to an empty server.
struct Script {
    command: &'static str,
    lines: &'static str,
    /// Redis has no such command, or means another thing by it.
    kvlite_only: bool,
}

const fn script(command: &'static str, lines: &'static str) -> Script {
    Script { command, lines, kvlite_only: false }
}

const fn own(command: &'static str, lines: &'static str) -> Script {
    Script { command, lines, kvlite_only: true }
}

const RESP: &[Script] = &[
    script(
        "EVAL",
        r##"
        EVAL "return {KEYS[1], KEYS[2], ARGV[1], ARGV[2]}" 2 {a}1 {a}2 one 2 -> ["{a}1", "{a}2", "one", "2"]
        EVAL "return redis.call('SET', KEYS[1], ARGV[1])" 1 k v -> +OK
        EVAL "return redis.call('GET', KEYS[1])" 1 k -> "v"
        EVAL "return redis.call('GET', KEYS[1])" 1 nope -> nil
        EVAL "return {1, 2.9, 'x', true, false, {ok='fine'}, 7, nil, 8}" 0 -> [1, 2, "x", 1, nil, +fine, 7]
        EVAL "return redis.call('INCR', KEYS[1])" 1 k -> -"ERR value is not an integer or out of range script: 61636018f4e6b5817b89791bbed242f93fa089e3, on @user_script:1."
        EVAL "return redis.pcall('INCR', KEYS[1])" 1 k -> -ERR value is not an integer or out of range
        EVAL "return redis.pcall('INCR', KEYS[1]).err" 1 k -> "ERR value is not an integer or out of range"
        EVAL "return {err='My error'}" 0 -> -My error
        EVAL "return redis.error_reply('Oops now')" 0 -> -Oops now
        EVAL "return redis.status_reply('fine')" 0 -> +fine
        EVAL "return redis.sha1hex('')" 0 -> "da39a3ee5e6b4b0d3255bfef95601890afd80709"
        EVAL "local ok, e = pcall(redis.call, 'nope') return e" 0 -> "ERR Unknown Redis command called from script"
        EVAL "x = 1" 0 -> -"ERR user_script:1: Attempt to modify a readonly table script: 34bce5f775de97f557a34088509c8bfe1ea17e52, on @user_script:1."
        EVAL "return x" 0 -> -"ERR user_script:1: Script attempted to access nonexistent global variable 'x' script: 03c387736bb5cc009ff35151572cee04677aa374, on @user_script:1."
        EVAL "string.x = 1" 0 -> -"ERR user_script:1: Attempt to modify a readonly table script: c3eb0a2a15b3d4790b323c4104029c1ae425a769, on @user_script:1."
        EVAL "return redis.call('MULTI')" 0 -> -"ERR This Redis command is not allowed from script script: ba922d924f6e7808414359ed93c37767dd0532ce, on @user_script:1."
        EVAL "error('x')" 0 -> -"ERR user_script:1: x script: 9851144f39f03a0d597a980c5aa79c80cb696891, on @user_script:1."
        EVAL "syntax err" 0 -> -"ERR Error compiling script (new function): user_script:1: '=' expected near 'err'"
        EVAL "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 1)" 1 k -> -"ERR Write commands are not allowed from read-only scripts. script: cd3408738f776ceaef3ab0a08d7f6e4547e4ad4e, on @user_script:2."
        EVAL "#!lua flags=what\nreturn 1" 0 -> -ERR Unexpected flag in script shebang: what
        EVAL "return cjson.encode(cjson.decode('[1, {}, \"a\", null]'))" 0 -> "[1,{},\"a\",null]"
        EVAL "return cmsgpack.unpack(cmsgpack.pack({1, 'b'}))" 0 -> [1, "b"]
        EVAL "return struct.pack('>I2', 258)" 0 -> "\x01\x02"
        EVAL "return bit.band(12, 10)" 0 -> 8
        EVAL "return 1" -> -ERR wrong number of arguments for 'eval' command
        EVAL "return 1" x -> -ERR value is not an integer or out of range
        EVAL "return 1" -1 -> -ERR Number of keys can't be negative
        EVAL "return 1" 2 a -> -ERR Number of keys can't be greater than number of args
        HELLO 3 -> %[...]
        EVAL "redis.setresp(3) return {true, {map={a=1}}, {double=1.5}, {set={x=true}}}" 0 -> [*, %["a", 1], *, ~["x"]]
        "##,
    ),
    script(
        "EVALSHA",
        r#"
        EVALSHA 098e0f0d1448c0a81dafe820f66d460eb09263da 0 hello -> -NOSCRIPT No matching script. Please use EVAL.
        EVAL "return ARGV[1]" 0 hello -> "hello"
        EVALSHA 098E0F0D1448C0A81DAFE820F66D460EB09263DA 0 hello -> "hello"
        EVALSHA short 0 -> -NOSCRIPT No matching script. Please use EVAL.
        EVALSHA 098e0f0d1448c0a81dafe820f66d460eb09263da -1 -> -ERR Number of keys can't be negative
        "#,
    ),
    script(
        "EVAL_RO",
        r##"
        SET k v -> +OK
        EVAL_RO "return redis.call('GET', KEYS[1])" 1 k -> "v"
        EVAL_RO "return redis.pcall('SET', KEYS[1], 1)" 1 k -> -ERR Write commands are not allowed from read-only scripts.
        EVAL_RO "#!lua\nreturn 1" 0 -> -ERR Can not execute a script with write flag using *_ro command.
        "##,
    ),
    script(
        "EVALSHA_RO",
        r#"
        SCRIPT LOAD "return ARGV[1]" -> "098e0f0d1448c0a81dafe820f66d460eb09263da"
        EVALSHA_RO 098e0f0d1448c0a81dafe820f66d460eb09263da 0 hello -> "hello"
        EVALSHA_RO 0000000000000000000000000000000000000000 0 -> -NOSCRIPT No matching script. Please use EVAL.
        "#,
    ),
    script(
        "SCRIPT",
        r#"
        SCRIPT LOAD "return ARGV[1]" -> "098e0f0d1448c0a81dafe820f66d460eb09263da"
        SCRIPT EXISTS 098e0f0d1448c0a81dafe820f66d460eb09263da nope -> [1, 0]
        SCRIPT LOAD "return_1" -> -"ERR Error compiling script (new function): user_script:1: '=' expected near '<eof>'"
        SCRIPT FLUSH NOW -> -ERR SCRIPT FLUSH only support SYNC|ASYNC option
        SCRIPT FLUSH SYNC -> +OK
        SCRIPT EXISTS 098e0f0d1448c0a81dafe820f66d460eb09263da -> [0]
        SCRIPT KILL -> -NOTBUSY No scripts in execution right now.
        SCRIPT DEBUG NO -> +OK
        SCRIPT DEBUG MAYBE -> -ERR Use SCRIPT DEBUG YES/SYNC/NO
        SCRIPT NOPE -> -ERR unknown subcommand 'NOPE'. Try SCRIPT HELP.
        SCRIPT HELP -> [+"SCRIPT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", ...]
        "#,
    ),
    own(
        "SCRIPT",
        "SCRIPT DEBUG YES -> -ERR there is no debugger for scripts: redis.log writes into the log of the server",
    ),
    script(
        "FUNCTION",
        r##"
        FUNCTION FLUSH -> +OK
        FUNCTION LOAD "#!lua name=shop\nredis.register_function('visit', function(keys) return redis.call('INCR', keys[1]) end)" -> "shop"
        FUNCTION LOAD "#!lua name=shop\nredis.register_function('f', function() end)" -> -ERR Library 'shop' already exists
        FUNCTION LOAD "#!lua name=other\nredis.register_function('visit', function() end)" -> -ERR Function visit already exists
        FUNCTION LOAD "#!lua name=other\nreturn 1" -> -ERR No functions registered
        FUNCTION LOAD "#!lua name=other\nreturn x" -> -ERR Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'x'
        FUNCTION LOAD "return 1" -> -ERR Missing library metadata
        FUNCTION LOAD "#!lua name=a-b\n" -> -ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long
        FUNCTION LIST -> [["library_name", "shop", "engine", "LUA", "functions", [["name", "visit", "description", nil, "flags", []]]]]
        FUNCTION LIST LIBRARYNAME x* -> []
        FUNCTION STATS -> ["running_script", nil, "engines", ["LUA", ["libraries_count", 1, "functions_count", 1]]]
        FUNCTION LOAD REPLACE "#!lua name=shop\nredis.register_function('leave', function() return 1 end)" -> "shop"
        FCALL visit 1 hits -> -ERR Function not found
        FCALL leave 0 -> 1
        FUNCTION DELETE shop -> +OK
        FUNCTION DELETE shop -> -ERR Library not found
        FUNCTION KILL -> -NOTBUSY No scripts in execution right now.
        FUNCTION FLUSH NOW -> -ERR FUNCTION FLUSH only supports SYNC|ASYNC option
        FUNCTION HELP -> [+"FUNCTION <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", ...]
        "##,
    ),
    script(
        "FCALL",
        r##"
        FUNCTION FLUSH -> +OK
        FUNCTION LOAD "#!lua name=shop\nredis.register_function('visit', function(keys, args) return {redis.call('INCRBY', keys[1], args[1]), KEYS} end)" -> "shop"
        FCALL visit 1 hits 5 -> -"ERR user_function:2: Script attempted to access nonexistent global variable 'KEYS' script: visit, on @user_function:2."
        GET hits -> "5"
        FCALL nope 0 -> -ERR Function not found
        FCALL visit x -> -ERR Bad number of keys provided
        FCALL visit 5 -> -ERR Number of keys can't be greater than number of args
        FUNCTION FLUSH -> +OK
        "##,
    ),
    script(
        "FCALL_RO",
        r##"
        FUNCTION FLUSH -> +OK
        FUNCTION LOAD "#!lua name=shop\nredis.register_function('visit', function(keys) return 1 end) redis.register_function{function_name='last', callback=function(keys) return redis.call('SET', keys[1], 1) end, flags={'no-writes'}}" -> "shop"
        FCALL_RO visit 0 -> -ERR Can not execute a script with write flag using *_ro command.
        FCALL_RO last 1 seen -> -"ERR Write commands are not allowed from read-only scripts. script: last, on @user_function:2."
        FUNCTION FLUSH -> +OK
        "##,
    ),
    script(
        "SUBSCRIBE",
        r#"
        SUBSCRIBE news -> ["subscribe", "news", 1]
        SUBSCRIBE news -> ["subscribe", "news", 1]
        SUBSCRIBE "a b" -> ["subscribe", "a b", 2]
        PING -> ["pong", ""]
        PING hello -> ["pong", "hello"]
        GET a -> -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
        CONFIG GET port -> -ERR Can't execute 'config|get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
        GET -> -ERR wrong number of arguments for 'get' command
        RESET -> +RESET
        PING -> +PONG
        PUBLISH news hello -> 0
        HELLO 3 -> %[...]
        SUBSCRIBE news -> >["subscribe", "news", 1]
        SET a 1 -> +OK
        PING -> +PONG
        SUBSCRIBE -> -ERR wrong number of arguments for 'subscribe' command
        "#,
    ),
    script(
        "UNSUBSCRIBE",
        r#"
        UNSUBSCRIBE -> ["unsubscribe", nil, 0]
        UNSUBSCRIBE nope -> ["unsubscribe", "nope", 0]
        SUBSCRIBE a -> ["subscribe", "a", 1]
        PSUBSCRIBE a* -> ["psubscribe", "a*", 2]
        UNSUBSCRIBE nope -> ["unsubscribe", "nope", 2]
        UNSUBSCRIBE -> ["unsubscribe", "a", 1]
        UNSUBSCRIBE -> ["unsubscribe", nil, 1]
        PUNSUBSCRIBE -> ["punsubscribe", "a*", 0]
        GET a -> nil
        "#,
    ),
    script(
        "PSUBSCRIBE",
        r#"
        PSUBSCRIBE n?ws.* -> ["psubscribe", "n?ws.*", 1]
        QUIT -> +OK
        (closed)
        "#,
    ),
    script(
        "PUNSUBSCRIBE",
        r#"
        HELLO 3 -> %[...]
        PUNSUBSCRIBE -> >["punsubscribe", null, 0]
        PSUBSCRIBE * -> >["psubscribe", "*", 1]
        PUNSUBSCRIBE * -> >["punsubscribe", "*", 0]
        PUBLISH a b -> 0
        "#,
    ),
    script(
        "SSUBSCRIBE",
        r#"
        SSUBSCRIBE s -> ["ssubscribe", "s", 1]
        SUBSCRIBE s -> ["subscribe", "s", 1]
        GET a -> -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
        UNSUBSCRIBE s -> ["unsubscribe", "s", 0]
        SUNSUBSCRIBE s -> ["sunsubscribe", "s", 0]
        GET a -> nil
        "#,
    ),
    script(
        "SUNSUBSCRIBE",
        "SUNSUBSCRIBE -> [\"sunsubscribe\", nil, 0]\n SUNSUBSCRIBE a -> [\"sunsubscribe\", \"a\", 0]",
    ),
    script(
        "PUBLISH",
        r#"
        PUBLISH nobody hello -> 0
        HELLO 3 -> %[...]
        SUBSCRIBE me -> >["subscribe", "me", 1]
        PUBLISH nobody hello -> 0
        PUBLISH me "a\r\nb" -> >["message", "me", "a\r\nb"]
        # The count of the one before: a message to its own publisher comes first.
        PING -> 1
        PUBLISH a -> +PONG
        PING -> -ERR wrong number of arguments for 'publish' command
        "#,
    ),
    script(
        "SPUBLISH",
        "SPUBLISH nobody hello -> 0\n SPUBLISH a -> -ERR wrong number of arguments for 'spublish' command",
    ),
    script(
        "PUBSUB",
        r#"
        HELLO 3 -> %[...]
        PUBSUB NUMPAT -> 0
        PUBSUB CHANNELS -> []
        SUBSCRIBE news -> >["subscribe", "news", 1]
        PSUBSCRIBE n* -> >["psubscribe", "n*", 2]
        SSUBSCRIBE shard -> >["ssubscribe", "shard", 1]
        PUBSUB CHANNELS -> ["news"]
        PUBSUB CHANNELS n?ws -> ["news"]
        PUBSUB CHANNELS x* -> []
        PUBSUB NUMSUB -> []
        PUBSUB NUMSUB news shard nope -> ["news", 1, "shard", 0, "nope", 0]
        PUBSUB NUMPAT -> 1
        PUBSUB SHARDCHANNELS -> ["shard"]
        PUBSUB SHARDNUMSUB shard news -> ["shard", 1, "news", 0]
        PUBSUB NUMPAT x -> -ERR wrong number of arguments for 'pubsub|numpat' command
        PUBSUB NOPE -> -ERR unknown subcommand 'NOPE'. Try PUBSUB HELP.
        PUBSUB HELP -> [+"PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", ...]
        "#,
    ),
    own(
        "ANALYTICS",
        r#"
        ANALYTICS STATUS -> ["memory_bytes", 1..16777216, "watched_seconds", *, "classes", *, "series", *, "series_ready", *]
        SET a 1 -> +OK
        HOTKEYS -> [["key", "a", ...]]
        ANALYTICS RESET -> +OK
        HOTKEYS -> []
        ANALYZE a -> ["reads", 0, "writes", 1, ...]
        ANALYTICS NOPE -> -ERR unknown subcommand 'NOPE'. Try ANALYTICS HELP.
        ANALYTICS HELP -> [+"ANALYTICS <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", +"RESET", *, +"STATUS", *, +"HELP", +"    Prints this help."]
        "#,
    ),
    own(
        "ANALYZE",
        r#"
        ANALYZE nope -> nil
        SET a Hello -> +OK
        GET a -> "Hello"
        EXISTS a a -> 2
        APPEND a ! -> 6
        ANALYZE a -> ["reads", 3, "writes", 2, "last_access", ~"T", "created", ~"Z", "size", 6, "ttl", -1, "idle", 0..9, "rate", *, "interval_p50_ms", *, "interval_p99_ms", *, "learnt_from", *, "class", *]
        SET a 1 EX 100 -> +OK
        ANALYZE a -> ["reads", 3, "writes", 3, "last_access", *, "created", *, "size", 1, "ttl", 99..100, ...]
        DEL a -> 1
        ANALYZE a -> nil
        SET a 1 -> +OK
        ANALYZE a -> ["reads", 0, "writes", 1, ...]
        HELLO 3 -> %[...]
        ANALYZE a -> %["reads", 0, "writes", 1, ...]
        "#,
    ),
    own(
        "ANOMALIES",
        "ANOMALIES -> [...]\n ANOMALIES now -> -ERR wrong number of arguments for 'anomalies' command",
    ),
    own(
        "CACHE-ADVICE",
        r#"
        SET a 1 -> +OK
        CACHE-ADVICE -> [["memory", "now", "bytes", 1..9999999, "hit_ratio", *], ["memory", "1/4", ...], ["memory", "1/2", ...], ["memory", "1", ...], ["memory", "2", ...], ["memory", "4", "bytes", 4..9999999, "hit_ratio", *]]
        "#,
    ),
    own(
        "COLDKEYS",
        r#"
        MSET small 1 large 123456789 middle 12345 -> +OK
        COLDKEYS 0 2 -> [["key", "large", "bytes", 14, "idle", 0..9], ["key", "middle", "bytes", 11, ...]]
        COLDKEYS 100000 -> []
        COLDKEYS x -> -ERR value is not an integer or out of range
        COLDKEYS -1 -> -ERR invalid number of seconds
        COLDKEYS 0 0 -> -ERR invalid count
        "#,
    ),
    own(
        "HOTKEYS",
        r#"
        HOTKEYS -> []
        MSET a 1 b 2 c 3 d 4 -> +OK
        MGET a a a b b nope -> ["1", "1", "1", "2", "2", nil]
        EXISTS nope nope nope nope nope -> 0
        SET d 123456789 -> +OK
        HOTKEYS 2 -> [["key", "nope", "reads", 0, "writes", 0, "recent_reads", 0, "recent_writes", 0, "recent_misses", 6, "recent_bytes", 0, "error", 0, "missing", 1], ["key", "a", "reads", 3, "writes", 1, "recent_reads", 3, "recent_writes", 1, "recent_misses", 0, "recent_bytes", 4, "error", 0, "missing", 0]]
        HOTKEYS 2 TOTAL -> [["key", "a", "reads", 3, "writes", 1], ["key", "b", "reads", 2, "writes", 1]]
        HOTKEYS 1 BY reads -> [["key", "a", ...]]
        HOTKEYS 1 by WRITES -> [["key", "d", ...]]
        HOTKEYS 1 BY bytes -> [["key", "d", ...]]
        HOTKEYS 1 TOTAL BY writes -> [["key", "d", "reads", 0, "writes", 2]]
        HOTKEYS 1 EXPLAIN -> [["key", "nope", ...]]
        DEL a -> 1
        HOTKEYS 2 BY reads -> [["key", "b", ...]]
        HOTKEYS 0 -> -ERR invalid count
        HOTKEYS START -> -ERR invalid count
        HOTKEYS 1 2 -> -ERR syntax error
        HOTKEYS BY -> -ERR syntax error
        HOTKEYS BY age -> -ERR syntax error
        HOTKEYS BY bytes TOTAL -> -ERR syntax error
        HELLO 3 -> %[...]
        HOTKEYS 1 -> [%["key", "nope", ...]]
        CLEAR -> +OK
        HOTKEYS -> []
        "#,
    ),
    own(
        "PREFIXES",
        r#"
        PREFIXES -> []
        MSET user:1 ab user:2 cd -> +OK
        MGET user:1 user:2 user:3 user:4 -> ["ab", "cd", nil, nil]
        PREFIXES 1 -> [["class", *, "keys", 1..2, "bytes", 8..16, "reads", 1..4, "writes", 1..2, ...]]
        PREFIXES 0 -> -ERR invalid count
        "#,
    ),
    own(
        "SUGGEST-TTL",
        r#"
        SUGGEST-TTL nope -> nil
        SUGGEST-TTL nope EXPLAIN -> ["ttl", nil, "reason", ~"are needed", "class", *]
        SUGGEST-TTL CLASS nope:* EXPLAIN -> ["ttl", nil, "reason", ~"0 re-accesses", "class", nil]
        SUGGEST-TTL a TARGET 0.5 -> nil
        SUGGEST-TTL a TARGET 1 -> -ERR the target is a share above 0 and below 1, such as 0.99
        SUGGEST-TTL a TARGET -> -ERR syntax error
        SUGGEST-TTL a b -> -ERR syntax error
        SUGGEST-TTL a APPLY -> -ERR syntax error
        SUGGEST-TTL CLASS session:* APPLY -> nil
        SUGGEST-TTL CLASS other APPLY -> -ERR CONFIG SET failed (possibly related to argument 'auto-ttl') - the keys of the class have no name in common
        CONFIG GET auto-ttl -> ["auto-ttl", ""]
        "#,
    ),
    script(
        "APPEND",
        r#"
        APPEND a Hello -> 5
        APPEND a ", World" -> 12
        GET a -> "Hello, World"
        APPEND a "" -> 12
        APPEND empty "" -> 0
        EXISTS empty -> 1
        SET t ab EX 100 -> +OK
        APPEND t "\x00\xff" -> 4
        GET t -> "ab\x00\xff"
        TTL t -> 99..100
        SET n 10 -> +OK
        APPEND n 5 -> 3
        INCR n -> 106
        APPEND a -> -ERR wrong number of arguments for 'append' command
        "#,
    ),
    own(
        "BACKUP",
        r#"
        BACKUP -> -ERR wrong number of arguments for 'backup' command
        BACKUP a -> -ERR no directory for backups: start the server with --backup-dir DIR (KVLITE_BACKUP_DIR)
        "#,
    ),
    script(
        "BGREWRITEAOF",
        r#"
        SET a 1 -> +OK
        BGREWRITEAOF -> +Background append only file rewriting started
        eventually INFO persistence -> ~"aof_rewrite_in_progress:0"
        GET a -> "1"
        "#,
    ),
    script(
        "BGSAVE",
        r#"
        SET a 1 -> +OK
        BGSAVE NOPE -> -ERR syntax error
        BGSAVE -> +Background saving started
        eventually INFO persistence -> ~"rdb_bgsave_in_progress:0"
        BGSAVE SCHEDULE -> +Background saving started
        eventually INFO persistence -> ~"rdb_bgsave_in_progress:0"
        GET a -> "1"
        "#,
    ),
    own("CLEAR", "MSET a 1 b 2 c 3 d 4 -> +OK\n CLEAR -> +OK\n DBSIZE -> 0\n GET a -> nil\n CLEAR -> +OK"),
    script(
        "CLIENT",
        r#"
        CLIENT GETNAME -> nil
        CLIENT SETNAME reporter -> +OK
        CLIENT GETNAME -> "reporter"
        CLIENT INFO -> ~"name=reporter"
        CLIENT INFO -> ~"id="
        CLIENT LIST -> ~"name=reporter age=0 idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf="
        CLIENT LIST -> ~" omem=0 tot-mem="
        CLIENT LIST -> ~" events=r cmd=client|list user=default redir=-1 resp=2"
        CLIENT LIST TYPE normal -> ~"name=reporter"
        CLIENT LIST TYPE master -> ""
        CLIENT LIST TYPE dancer -> -ERR Unknown client type 'dancer'
        CLIENT LIST TYPE -> -ERR syntax error
        CLIENT LIST ID 999999 -> ""
        CLIENT LIST ID 0 -> ""
        CLIENT LIST ID x -> -ERR Invalid client ID
        CLIENT LIST AGE 1 -> -ERR syntax error
        CLIENT KILL 1.2.3.4:5 -> -ERR No such client
        CLIENT KILL ID 999999 TYPE normal ADDR 1.2.3.4:5 LADDR 1.2.3.4:5 USER default SKIPME no -> 0
        CLIENT KILL ID 0 -> -ERR client-id should be greater than 0
        CLIENT KILL USER ada -> -ERR No such user 'ada'
        CLIENT KILL TYPE dancer -> -ERR Unknown client type 'dancer'
        CLIENT KILL SKIPME perhaps -> -ERR syntax error
        CLIENT KILL ID 1 TYPE -> -ERR syntax error
        CLIENT PAUSE soon -> -ERR timeout is not an integer or out of range
        CLIENT PAUSE -1 -> -ERR timeout is negative
        CLIENT PAUSE 1 READ -> -ERR CLIENT PAUSE mode must be WRITE or ALL
        CLIENT PAUSE 1 WRITE now -> -ERR unknown subcommand or wrong number of arguments for 'pause'. Try CLIENT HELP.
        CLIENT PAUSE 10 -> +OK
        CLIENT PAUSE 60000 WRITE -> +OK
        GET a -> nil
        CLIENT UNPAUSE -> +OK
        SET a 1 -> +OK
        CLIENT REPLY perhaps -> -ERR syntax error
        CLIENT REPLY ON -> +OK
        CLIENT UNBLOCK 999999 -> 0
        CLIENT UNBLOCK 999999 ERROR -> 0
        CLIENT UNBLOCK me -> -ERR value is not an integer or out of range
        CLIENT UNBLOCK 999999 NOW -> -ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR
        CLIENT UNBLOCK 9 ERROR now -> -ERR unknown subcommand or wrong number of arguments for 'unblock'. Try CLIENT HELP.
        CLIENT NO-EVICT on -> +OK
        CLIENT INFO -> ~"flags=e"
        CLIENT NO-EVICT off -> +OK
        CLIENT NO-EVICT perhaps -> -ERR syntax error
        CLIENT ID -> 1..9223372036854775807
        CLIENT SETNAME "a b" -> -ERR Client names cannot contain spaces, newlines or special characters.
        CLIENT SETNAME "a\nb" -> -ERR Client names cannot contain spaces, newlines or special characters.
        CLIENT GETNAME -> "reporter"
        CLIENT SETNAME "" -> +OK
        CLIENT GETNAME -> nil
        client setname lower -> +OK
        CLIENT getname -> "lower"
        CLIENT SETNAME -> -ERR wrong number of arguments for 'client|setname' command
        CLIENT ID now -> -ERR wrong number of arguments for 'client|id' command
        CLIENT NOPE -> -ERR unknown subcommand 'NOPE'. Try CLIENT HELP.
        CLIENT HELP -> [+"CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", ...]
        "#,
    ),
    script(
        "AUTH",
        r#"
        AUTH secret -> -ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?
        AUTH default secret -> +OK
        AUTH ada secret -> -WRONGPASS invalid username-password pair or user is disabled.
        AUTH a b c -> -ERR syntax error
        AUTH -> -ERR wrong number of arguments for 'auth' command
        "#,
    ),
    script(
        "DEBUG",
        r#"
        DEBUG SLEEP 0 -> -ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.
        DEBUG HELP -> [+"DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", ...]
        DEBUG -> -ERR wrong number of arguments for 'debug' command
        "#,
    ),
    script(
        "LATENCY",
        r#"
        LATENCY LATEST -> []
        LATENCY HISTORY command -> []
        LATENCY RESET -> 0
        LATENCY RESET command nope -> 0
        LATENCY DOCTOR -> ~"latency-monitor-threshold"
        PING -> +PONG
        LATENCY HISTOGRAM ping -> ["ping", ["calls", 1..1000, "histogram_usec", [1..10000000, 1..1000, ...]]]
        LATENCY HISTOGRAM nope -> []
        CLIENT ID -> *
        LATENCY HISTOGRAM client|id -> ["client|id", ["calls", 1..1000, "histogram_usec", [...]]]
        LATENCY HISTOGRAM client -> [*, ["calls", 1..1000, "histogram_usec", [...]], ...]
        HELLO 3 -> %[...]
        LATENCY HISTOGRAM ping -> %["ping", %["calls", 1..1000, "histogram_usec", %[1..10000000, 1..1000, ...]]]
        LATENCY HISTORY -> -ERR wrong number of arguments for 'latency|history' command
        LATENCY NOPE -> -ERR unknown subcommand 'NOPE'. Try LATENCY HELP.
        "#,
    ),
    script(
        "MONITOR",
        r#"
        MONITOR now -> -ERR wrong number of arguments for 'monitor' command
        MONITOR -> +OK
        GET a -> -ERR Replica can't interact with the keyspace
        SET a 1 -> -ERR Replica can't interact with the keyspace
        RESET -> +RESET
        GET a -> nil
        "#,
    ),
    script(
        "REPLICAOF",
        "REPLICAOF NO ONE -> +OK\n REPLICAOF no -> -ERR wrong number of arguments for 'replicaof' command",
    ),
    own(
        "REPLICAOF",
        "REPLICAOF 127.0.0.1 7 -> -ERR there is no replication yet: BACKUP copies the data, KVLITE.SYNC and WAITAOF bring it to disk",
    ),
    script("SLAVEOF", "SLAVEOF no one -> +OK"),
    script(
        "ROLE",
        "ROLE -> [\"master\", 0, []]\n ROLE x -> -ERR wrong number of arguments for 'role' command",
    ),
    script(
        "SHUTDOWN",
        r#"
        SHUTDOWN ABORT -> -ERR No shutdown in progress.
        SHUTDOWN ABORT NOW -> -ERR syntax error
        SHUTDOWN SAVE NOSAVE -> -ERR syntax error
        SHUTDOWN please -> -ERR syntax error
        PING -> +PONG
        "#,
    ),
    script(
        "SLOWLOG",
        r#"
        SLOWLOG RESET -> +OK
        SLOWLOG LEN -> 0
        SLOWLOG GET -> []
        SLOWLOG GET -1 -> []
        SLOWLOG GET -2 -> -ERR count should be greater than or equal to -1
        SLOWLOG GET few -> -ERR count should be greater than or equal to -1
        SLOWLOG HELP -> [+"SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", ...]
        SLOWLOG GET 1 2 -> -ERR unknown subcommand or wrong number of arguments for 'get'. Try SLOWLOG HELP.
        SLOWLOG NOPE -> -ERR unknown subcommand 'NOPE'. Try SLOWLOG HELP.
        "#,
    ),
    script(
        "WAIT",
        r#"
        SET a 1 -> +OK
        WAIT 0 0 -> 0
        WAIT -1 0 -> 0
        WAIT 1 10 -> 0
        WAIT few 0 -> -ERR value is not an integer or out of range
        WAIT few long -> -ERR value is not an integer or out of range
        WAIT 1 -1 -> -ERR timeout is negative
        WAIT 1 1.5 -> -ERR timeout is not an integer or out of range
        "#,
    ),
    script(
        "CLIENT",
        r#"
        CLIENT GETREDIR -> -1
        CLIENT TRACKINGINFO -> ["flags", ["off"], "redirect", -1, "prefixes", []]
        CLIENT CACHING YES -> -ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled
        CLIENT TRACKING MAYBE -> -ERR syntax error
        CLIENT TRACKING ON REDIRECT 9223372036854775807 -> -ERR The client ID you want redirect to does not exist
        CLIENT TRACKING ON REDIRECT me -> -ERR value is not an integer or out of range
        CLIENT TRACKING ON REDIRECT 1 REDIRECT 1 -> -ERR A client can only redirect to a single other client
        CLIENT TRACKING ON PREFIX a -> -ERR PREFIX option requires BCAST mode to be enabled
        CLIENT TRACKING ON BCAST OPTIN -> -ERR OPTIN and OPTOUT are not compatible with BCAST
        CLIENT TRACKING ON OPTIN OPTOUT -> -ERR You can't specify both OPTIN mode and OPTOUT mode
        CLIENT TRACKING ON BCAST PREFIX ab PREFIX abc -> -ERR Prefix 'ab' overlaps with another provided prefix 'abc'. Prefixes for a single client must not overlap.
        CLIENT TRACKING ON BCAST PREFIX foo PREFIX bar -> +OK
        CLIENT TRACKING ON BCAST PREFIX fo -> -ERR Prefix 'fo' overlaps with an existing prefix 'foo'. Prefixes for a single client must not overlap.
        CLIENT TRACKING ON -> -ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.
        CLIENT TRACKINGINFO -> ["flags", ["on", "bcast"], "redirect", 0, "prefixes", ["bar", "foo"]]
        CLIENT GETREDIR -> 0
        CLIENT TRACKING OFF -> +OK
        CLIENT TRACKING ON OPTIN NOLOOP -> +OK
        CLIENT CACHING NO -> -ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.
        CLIENT CACHING MAYBE -> -ERR syntax error
        CLIENT CACHING YES -> +OK
        CLIENT TRACKINGINFO -> ["flags", ["on", "optin", "caching-yes", "noloop"], "redirect", 0, "prefixes", []]
        GET a -> nil
        CLIENT TRACKINGINFO -> ["flags", ["on", "optin", "noloop"], ...]
        CLIENT TRACKING ON OPTOUT -> -ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.
        RESET -> +RESET
        CLIENT TRACKINGINFO -> ["flags", ["off"], ...]
        CLIENT TRACKING ON OPTOUT -> +OK
        CLIENT CACHING YES -> -ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.
        "#,
    ),
    // Redis has it since 7.2, and client libraries send it when they connect.
    own(
        "CLIENT",
        r#"
        CLIENT SETINFO LIB-NAME redis-py -> +OK
        CLIENT SETINFO lib-ver 5.0.1 -> +OK
        CLIENT INFO -> ~"lib-name=redis-py"
        CLIENT SETINFO LIB-AGE 3 -> -ERR Unrecognized option 'LIB-AGE'
        "#,
    ),
    script(
        "COMMAND",
        r#"
        COMMAND COUNT -> 30..1000
        COMMAND COUNT x -> -ERR wrong number of arguments for 'command|count' command
        COMMAND LIST x -> -ERR syntax error
        COMMAND INFO get -> [["get", 2, *, 1, 1, 1, ...]]
        COMMAND INFO SET nope mset -> [["set", -3, *, 1, 1, 1, ...], nil, ["mset", -3, *, 1, -1, 2, ...]]
        COMMAND INFO config|get Config|GET get|x -> [["config|get", -3, [+admin, +noscript, +loading, +stale], 0, 0, 0, ...], ["config|get", ...], nil]
        COMMAND INFO memory|usage -> [["memory|usage", -3, [+readonly], 2, 2, 1, ...]]
        COMMAND INFO client -> [["client", -2, [], 0, 0, 0, *, *, *, [[~"client|", ...], ...]]]
        COMMAND INFO mget -> [["mget", -2, *, 1, -1, 1, {+@read, +@string, +@fast}, ["request_policy:multi_shard"], [["flags", {+RO, +access}, "begin_search", ["type", "index", "spec", ["index", 1]], "find_keys", ["type", "range", "spec", ["lastkey", -1, "keystep", 1, "limit", 0]]]], []]]
        COMMAND LIST -> [*, ...]
        COMMAND LIST FILTERBY PATTERN Config|G* -> ["config|get"]
        COMMAND LIST FILTERBY ACLCAT nope -> []
        COMMAND LIST FILTERBY MODULE nope -> []
        COMMAND LIST FILTERBY PATTERN -> -ERR syntax error
        COMMAND LIST FILTERBY nope nope -> -ERR syntax error
        COMMAND GETKEYS mset a 1 b 2 -> ["a", "b"]
        COMMAND GETKEYS memory usage a -> ["a"]
        COMMAND GETKEYS get a b -> -ERR Invalid number of arguments specified for command
        COMMAND GETKEYS ping a -> -ERR The command has no key arguments
        COMMAND GETKEYS nope a -> -ERR Invalid command specified
        COMMAND GETKEYS get -> -ERR wrong number of arguments for 'command|getkeys' command
        COMMAND GETKEYSANDFLAGS set a b -> [["a", {+OW, +update}]]
        COMMAND GETKEYSANDFLAGS set a b get -> [["a", {+RW, +access, +update}]]
        COMMAND GETKEYSANDFLAGS del a b -> [["a", {+RM, +delete}], ["b", {+RM, +delete}]]
        COMMAND GETKEYSANDFLAGS ping x -> -ERR The command has no key arguments
        COMMAND DOCS get -> ["get", ["summary", *, "since", *, "group", "string", ...]]
        COMMAND DOCS del echo -> ["del", [*, *, *, *, "group", "generic", ...], "echo", [*, *, *, *, "group", "connection", ...]]
        COMMAND DOCS flushall info -> ["flushall", [*, *, *, *, "group", "server", ...], "info", [*, *, *, *, "group", "server", ...]]
        COMMAND DOCS nope -> []
        COMMAND DOCS config|get -> ["config|get", ["summary", *, "since", *, "group", "server", ...]]
        COMMAND NOPE -> -ERR unknown subcommand 'NOPE'. Try COMMAND HELP.
        COMMAND HELP -> [+"COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", ...]
        "#,
    ),
    own(
        "COMPACT",
        r#"
        SET a 1 -> +OK
        COMPACT -> +OK
        GET a -> "1"
        SET a 2 -> +OK
        COMPACT -> +OK
        GET a -> "2"
        COMPACT WHEN -> ["reason", "short-log", "log_percent", 0, "load", *, "forecast", nil, "lowest", nil, "hour", nil, "hours_known", 0]
        COMPACT NOW -> -ERR unknown subcommand 'NOW'. Try COMPACT HELP.
        COMPACT help -> [+"COMPACT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", +"WHEN", *, +"HELP", *]
        "#,
    ),
    script(
        "CONFIG",
        r#"
        CONFIG GET port -> ["port", *]
        CONFIG GET no-such-option -> []
        CONFIG GET -> -ERR wrong number of arguments for 'config|get' command
        CONFIG NOPE -> -ERR unknown subcommand 'NOPE'. Try CONFIG HELP.
        CONFIG HELP -> [+"CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", ...]
        CONFIG SET MaxClients 90 timeout 7 -> +OK
        CONFIG GET MaxClients -> ["MaxClients", "90"]
        CONFIG GET maxcl?ents timeout nope -> {"maxclients", "90", "timeout", "7"}
        CONFIG SET timeout 8 maxclients x -> -ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument couldn't be parsed into an integer
        CONFIG SET timeout 8 databases 3 -> -ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config
        CONFIG SET timeout 8 nope 3 -> -ERR Unknown option or number of arguments for CONFIG SET - 'nope'
        CONFIG SET timeout 8 timeout 9 -> -ERR CONFIG SET failed (possibly related to argument 'timeout') - duplicate parameter
        CONFIG SET timeout 8 maxclients -> -ERR syntax error
        CONFIG GET timeout -> ["timeout", "7"]
        CONFIG SET timeout -1 -> -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument must be between 0 and 2147483647 inclusive
        CONFIG SET appendonly maybe -> -ERR CONFIG SET failed (possibly related to argument 'appendonly') - argument must be 'yes' or 'no'
        CONFIG SET maxmemory 1gx -> -ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value
        CONFIG SET loglevel foo -> -ERR CONFIG SET failed (possibly related to argument 'loglevel') - argument(s) must be one of the following: debug, verbose, notice, warning
        CONFIG SET loglevel verbose maxmemory 0 maxmemory-policy noeviction save "" -> +OK
        CONFIG GET loglevel -> ["loglevel", "verbose"]
        CONFIG SET hash-max-ziplist-value 9 -> +OK
        CONFIG GET hash-max-*-value -> {"hash-max-listpack-value", "9", "hash-max-ziplist-value", "9"}
        CONFIG SET protected-mode no requirepass "" min-replicas-to-write 0 -> +OK
        CONFIG GET protected-mode requirepass min-*-to-write -> {"protected-mode", "no", "requirepass", "", "min-replicas-to-write", "0", "min-slaves-to-write", "0"}
        CONFIG SET replica-read-only yes repl-backlog-size 1mb -> +OK
        CONFIG GET replica-read-only slave-read-only repl-backlog-size min-replicas-max-lag -> {"replica-read-only", "yes", "slave-read-only", "yes", "repl-backlog-size", "1048576", "min-replicas-max-lag", "10"}
        CONFIG SET timeout 0 maxclients 100 loglevel notice -> +OK
        CONFIG REWRITE -> -ERR The server is running without a config file
        CONFIG RESETSTAT -> +OK
        GET a -> nil
        INFO commandstats -> ~"cmdstat_get:calls=1,"
        INFO stats -> ~"keyspace_misses:1"
        "#,
    ),
    own(
        "CONFIG",
        r#"
        CONFIG GET auto-ttl -> ["auto-ttl", ""]
        CONFIG SET auto-ttl "session:* 1h cache:* 5m" -> +OK
        CONFIG GET auto_ttl -> ["auto-ttl", "session:* 3600s cache:* 300s"]
        MSET session:1 a session:2 a session:3 a cache:1 a cache:2 a user:1 a -> +OK
        TTL session:1 -> 3599..3600
        TTL session:2 -> 3599..3600
        TTL session:3 -> 3599..3600
        TTL cache:1 -> 299..300
        TTL cache:2 -> 299..300
        TTL user:1 -> -1
        CONFIG SET auto-ttl "session:*" -> -ERR CONFIG SET failed (possibly related to argument 'auto-ttl') - write pairs such as 'session:* 1h cache:* 5m'
        CONFIG SET auto-ttl "session:* soon" -> -ERR CONFIG SET failed (possibly related to argument 'auto-ttl') - give 'session:*' a duration such as 90s or 1h30m, from 1s to 315360000s
        CONFIG GET auto-ttl -> ["auto-ttl", "session:* 3600s cache:* 300s"]
        CONFIG SET port 1 -> -ERR CONFIG SET failed (possibly related to argument 'port') - can't set immutable config
        CONFIG SET nope 1 -> -ERR Unknown option or number of arguments for CONFIG SET - 'nope'
        CONFIG SET auto-ttl -> -ERR wrong number of arguments for 'config|set' command
        CONFIG SET auto-ttl "" -> +OK
        SET session:1 a -> +OK
        TTL session:1 -> -1
        "#,
    ),
    script(
        "DBSIZE",
        r#"
        DBSIZE -> 0
        MSET a 1 b 2 c 3 d 4 e 5 f 6 g 7 -> +OK
        DBSIZE -> 7
        DEL a b nope -> 2
        DBSIZE -> 5
        SET a 1 -> +OK
        SET a 2 -> +OK
        DBSIZE -> 6
        DBSIZE now -> -ERR wrong number of arguments for 'dbsize' command
        "#,
    ),
    script(
        "DECR",
        r#"
        DECR a -> -1
        DECR a -> -2
        SET low -9223372036854775807 -> +OK
        DECR low -> -9223372036854775808
        DECR low -> -ERR increment or decrement would overflow
        GET low -> "-9223372036854775808"
        SET text ten -> +OK
        DECR text -> -ERR value is not an integer or out of range
        "#,
    ),
    script(
        "DECRBY",
        r#"
        DECRBY a 5 -> -5
        DECRBY a -7 -> 2
        DECRBY a 0 -> 2
        DECRBY a 9223372036854775807 -> -9223372036854775805
        DECRBY a 4 -> -ERR increment or decrement would overflow
        DECRBY a -9223372036854775808 -> -ERR decrement would overflow
        DECRBY a 1.5 -> -ERR value is not an integer or out of range
        GET a -> "-9223372036854775805"
        "#,
    ),
    script(
        "DEL",
        r#"
        SET a 1 -> +OK
        DEL a -> 1
        DEL a -> 0
        GET a -> nil
        MSET a 1 b 2 c 3 d 4 e 5 -> +OK
        DEL a b c nope d e e -> 5
        DBSIZE -> 0
        DEL -> -ERR wrong number of arguments for 'del' command
        "#,
    ),
    own("DELETE", "MSET a 1 b 2 c 3 -> +OK\n DELETE a -> 1\n DELETE a b c nope -> 2\n DBSIZE -> 0"),
    script(
        "DISCARD",
        r#"
        DISCARD -> -ERR DISCARD without MULTI
        SET n 1 -> +OK
        WATCH n -> +OK
        MULTI -> +OK
        INCR n -> +QUEUED
        DISCARD n -> -ERR wrong number of arguments for 'discard' command
        DISCARD -> +OK
        GET n -> "1"
        EXEC -> -ERR EXEC without MULTI
        "#,
    ),
    script(
        "EXEC",
        r#"
        EXEC -> -ERR EXEC without MULTI
        MULTI -> +OK
        EXEC -> []
        MULTI -> +OK
        SET a 1 -> +QUEUED
        SET b x -> +QUEUED
        INCR a -> +QUEUED
        INCR b -> +QUEUED
        MGET a b nope -> +QUEUED
        MSET c 1 d 2 e 3 -> +QUEUED
        RENAME c f -> +QUEUED
        BITOP OR g a d -> +QUEUED
        MSETNX f 1 h 2 -> +QUEUED
        DEL a d nope -> +QUEUED
        DBSIZE -> +QUEUED
        PING -> +QUEUED
        ECHO hi -> +QUEUED
        GET nope -> +QUEUED
        UNWATCH -> +QUEUED
        KEYS g -> +QUEUED
        EXEC -> [+OK, +OK, 2, -ERR value is not an integer or out of range, ["2", "x", nil], +OK, +OK, 1, 0, 2, 4, +PONG, "hi", nil, +OK, ["g"]]
        GET f -> "1"
        MULTI -> +OK
        FLUSHALL -> +QUEUED
        SET a 1 -> +QUEUED
        DBSIZE -> +QUEUED
        EXEC -> [+OK, +OK, 1]
        # What is refused is told at once, and then nothing runs.
        MULTI -> +OK
        SET a 2 -> +QUEUED
        GET -> -ERR wrong number of arguments for 'get' command
        SET a 3 -> +QUEUED
        EXEC -> -EXECABORT Transaction discarded because of previous errors.
        MULTI -> +OK
        SET a 2 -> +QUEUED
        NOPE -> -"ERR unknown command 'NOPE', with args beginning with: "
        EXEC -> -EXECABORT Transaction discarded because of previous errors.
        MULTI -> +OK
        CONFIG NOPE -> -ERR unknown subcommand 'NOPE'. Try CONFIG HELP.
        EXEC -> -EXECABORT Transaction discarded because of previous errors.
        MULTI -> +OK
        SAVE -> -ERR Command not allowed inside a transaction
        EXEC -> -EXECABORT Transaction discarded because of previous errors.
        MULTI -> +OK
        SET a 2 -> +QUEUED
        EXEC now -> -EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command
        EXEC -> -ERR EXEC without MULTI
        GET a -> "1"
        # Commands of the client's connection run in their place.
        MULTI -> +OK
        CLIENT SETNAME inside -> +QUEUED
        CLIENT GETNAME -> +QUEUED
        CLIENT HELP -> +QUEUED
        SELECT 99 -> +QUEUED
        SELECT 1 -> +QUEUED
        SET a one -> +QUEUED
        SELECT 0 -> +QUEUED
        GET a -> +QUEUED
        HELLO 3 -> +QUEUED
        GET nope -> +QUEUED
        EXEC -> [+OK, "inside", [...], -ERR DB index is out of range, +OK, +OK, +OK, "1", %[...], null]
        SELECT 1 -> +OK
        GET a -> "one"
        "#,
    ),
    script(
        "ECHO",
        r#"
        ECHO hello -> "hello"
        ECHO "" -> ""
        ECHO "a\r\nb\x00\xff" -> "a\r\nb\x00\xff"
        ECHO -> -ERR wrong number of arguments for 'echo' command
        ECHO a b -> -ERR wrong number of arguments for 'echo' command
        "#,
    ),
    script(
        "EXISTS",
        r#"
        EXISTS a -> 0
        MSET a 1 b 2 c 3 -> +OK
        EXISTS a -> 1
        EXISTS a b c nope -> 3
        EXISTS a a a -> 3
        EXISTS -> -ERR wrong number of arguments for 'exists' command
        "#,
    ),
    script(
        "EXPIRE",
        r#"
        EXPIRE nope 10 -> 0
        SET a 1 -> +OK
        EXPIRE a 100 XX -> 0
        EXPIRE a 100 GT -> 0
        TTL a -> -1
        EXPIRE a 100 NX -> 1
        TTL a -> 99..100
        EXPIRE a 200 NX -> 0
        EXPIRE a 50 GT -> 0
        EXPIRE a 200 GT -> 1
        TTL a -> 199..200
        EXPIRE a 300 LT -> 0
        EXPIRE a 150 LT -> 1
        TTL a -> 149..150
        EXPIRE a 120 xx -> 1
        TTL a -> 119..120
        EXPIRE a 10 NX XX -> -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE a 10 GT LT -> -ERR GT and LT options at the same time are not compatible
        EXPIRE a 10 NOPE -> -ERR Unsupported option NOPE
        EXPIRE a ten -> -ERR value is not an integer or out of range
        EXPIRE a 9223372036854775807 -> -ERR invalid expire time in 'expire' command
        EXPIRE a -9223372036854775808 -> -ERR invalid expire time in 'expire' command
        TTL a -> 119..120
        EXPIRE a -1 -> 1
        EXISTS a -> 0
        SET b 1 -> +OK
        EXPIRE b 0 -> 1
        GET b -> nil
        SET c 1 -> +OK
        EXPIRE c 5 LT -> 1
        TTL c -> 4..5
        "#,
    ),
    script(
        "FLUSHALL",
        r#"
        MSET a 1 b 2 c 3 d 4 e 5 -> +OK
        FLUSHALL -> +OK
        DBSIZE -> 0
        SET a 1 -> +OK
        FLUSHALL ASYNC -> +OK
        GET a -> nil
        SET a 1 -> +OK
        FLUSHALL sync -> +OK
        GET a -> nil
        SET a 1 -> +OK
        FLUSHALL NOPE -> -ERR syntax error
        FLUSHALL ASYNC SYNC -> -ERR syntax error
        GET a -> "1"
        "#,
    ),
    script(
        "FLUSHDB",
        r#"
        MSET a 1 b 2 c 3 d 4 e 5 -> +OK
        FLUSHDB -> +OK
        DBSIZE -> 0
        FLUSHDB ASYNC -> +OK
        FLUSHDB SYNC -> +OK
        FLUSHDB NOPE -> -ERR syntax error
        SET a 0 -> +OK
        SELECT 1 -> +OK
        MSET a 1 b 1 -> +OK
        DBSIZE -> 2
        FLUSHDB -> +OK
        DBSIZE -> 0
        KEYS * -> []
        SELECT 0 -> +OK
        GET a -> "0"
        FLUSHDB -> +OK
        DBSIZE -> 0
        "#,
    ),
    script(
        "GET",
        r#"
        GET nope -> nil
        SET a "" -> +OK
        GET a -> ""
        SET "with \"blanks\" \x00\xff\r\n" "value\r\n\x00\xff" -> +OK
        GET "with \"blanks\" \x00\xff\r\n" -> "value\r\n\x00\xff"
        SET "" empty -> +OK
        GET "" -> "empty"
        get a -> ""
        GET -> -ERR wrong number of arguments for 'get' command
        GET a b -> -ERR wrong number of arguments for 'get' command
        GETT a -> -"ERR unknown command 'GETT', with args beginning with: 'a' "
        FOO -> -"ERR unknown command 'FOO', with args beginning with: "
        FOO a b -> -"ERR unknown command 'FOO', with args beginning with: 'a' 'b' "
        "#,
    ),
    own("HEALTH", "HEALTH -> ~\"\\\"status\\\":\\\"healthy\\\"\"\n HEALTH -> ~\"\\\"wal_healthy\\\":true\""),
    script(
        "GETDEL",
        r#"
        SET a 1 -> +OK
        GETDEL a -> "1"
        GETDEL a -> nil
        EXISTS a -> 0
        GETDEL a b -> -ERR wrong number of arguments for 'getdel' command
        "#,
    ),
    script(
        "GETEX",
        r#"
        SET a 1 -> +OK
        GETEX a EX 100 -> "1"
        TTL a -> 99..100
        GETEX a -> "1"
        TTL a -> 99..100
        GETEX a PERSIST -> "1"
        TTL a -> -1
        GETEX a EXAT 33000000000 -> "1"
        TTL a -> 1..33000000000
        GETEX a PX 20 -> "1"
        eventually GETEX a -> nil
        GETEX a EX 0 -> nil
        SET a 2 -> +OK
        GETEX a EX 0 -> -ERR invalid expire time in 'getex' command
        GETEX a EX x -> -ERR value is not an integer or out of range
        GETEX a EX 1 PX 1 -> -ERR syntax error
        GETEX a PERSIST EX 1 -> -ERR syntax error
        GETEX a KEEPTTL -> -ERR syntax error
        GETEX a PXAT 1 -> "2"
        EXISTS a -> 0
        GETEX -> -ERR wrong number of arguments for 'getex' command
        "#,
    ),
    script(
        "GETRANGE",
        r#"
        SET a Hello -> +OK
        GETRANGE a 0 -1 -> "Hello"
        GETRANGE a 1 3 -> "ell"
        GETRANGE a -3 -2 -> "ll"
        GETRANGE a -9 0 -> "H"
        GETRANGE a 5 9 -> ""
        GETRANGE a -1 -2 -> ""
        GETRANGE nope 0 -1 -> ""
        GETRANGE a x 1 -> -ERR value is not an integer or out of range
        GETRANGE a 0 -> -ERR wrong number of arguments for 'getrange' command
        "#,
    ),
    script(
        "HELLO",
        r#"
        HELLO -> ["server", *, "version", *, "proto", 2, "id", *, "mode", *, "role", "master", "modules", []]
        HELLO 3 -> %["server", *, "version", *, "proto", 3, "id", *, "mode", *, "role", *, "modules", []]
        GET nope -> null
        SET a 1 -> +OK
        MGET a nope -> ["1", null]
        CLIENT GETNAME -> null
        CONFIG GET port -> %["port", *]
        EXISTS a -> 1
        INFO server -> ~"process_id:"
        HELLO 2 SETNAME tester -> [*, ...]
        CLIENT GETNAME -> "tester"
        GET nope -> nil
        HELLO 99 -> -NOPROTO unsupported protocol version
        HELLO 1 -> -NOPROTO unsupported protocol version
        HELLO abc -> -ERR Protocol version is not an integer or out of range
        HELLO 3 NOPE -> -ERR Syntax error in HELLO option 'NOPE'
        GET nope -> nil
        "#,
    ),
    script(
        "INCR",
        r#"
        INCR a -> 1
        INCR a -> 2
        SET a 41 EX 100 -> +OK
        INCR a -> 42
        TTL a -> 99..100
        GET a -> "42"
        SET text ten -> +OK
        INCR text -> -ERR value is not an integer or out of range
        SET blank " 1" -> +OK
        INCR blank -> -ERR value is not an integer or out of range
        SET zero 01 -> +OK
        INCR zero -> -ERR value is not an integer or out of range
        SET plus +1 -> +OK
        INCR plus -> -ERR value is not an integer or out of range
        SET empty "" -> +OK
        INCR empty -> -ERR value is not an integer or out of range
        SET high 9223372036854775806 -> +OK
        INCR high -> 9223372036854775807
        INCR high -> -ERR increment or decrement would overflow
        GET high -> "9223372036854775807"
        SET higher 9223372036854775808 -> +OK
        INCR higher -> -ERR value is not an integer or out of range
        "#,
    ),
    script(
        "INCRBY",
        r#"
        INCRBY a 5 -> 5
        INCRBY a -7 -> -2
        INCRBY a 9223372036854775807 -> 9223372036854775805
        INCRBY a 3 -> -ERR increment or decrement would overflow
        INCRBY a ten -> -ERR value is not an integer or out of range
        INCRBY a "" -> -ERR value is not an integer or out of range
        INCRBY a 9223372036854775808 -> -ERR value is not an integer or out of range
        GET a -> "9223372036854775805"
        "#,
    ),
    script(
        "INCRBYFLOAT",
        r#"
        INCRBYFLOAT a 10.50 -> "10.5"
        INCRBYFLOAT a 0.1 -> "10.6"
        INCRBYFLOAT a -5 -> "5.6"
        SET a 5.0e3 -> +OK
        INCRBYFLOAT a 2.0e2 -> "5200"
        INCRBYFLOAT a 0x1p-2 -> "5200.25"
        INCRBYFLOAT a 1x -> -ERR value is not a valid float
        INCRBYFLOAT a inf -> -ERR increment would produce NaN or Infinity
        GET a -> "5200.25"
        SET b one -> +OK
        INCRBYFLOAT b 1 -> -ERR value is not a valid float
        INCRBYFLOAT a -> -ERR wrong number of arguments for 'incrbyfloat' command
        "#,
    ),
    own("HELP", "HELP get -> [+\"GET key\", ...]\n HELP nope -> -ERR Invalid command specified"),
    script(
        "INFO",
        r##"
        INFO -> ~"# Server"
        INFO -> ~"redis_version:"
        INFO server -> ~"tcp_port:"
        INFO clients -> ~"connected_clients:"
        SET a 1 -> +OK
        INFO keyspace -> ~"db0:keys=1,expires=0"
        INFO server clients -> ~"# Clients"
        INFO replication -> ~"role:master"
        INFO everything -> ~"# Modules"
        INFO all -> ~"cmdstat_set:calls="
        INFO nope cluster -> ~"cluster_enabled:0"
        INFO memory -> ~"maxmemory_policy:noeviction"
        INFO no-such-section -> ""
        "##,
    ),
    script(
        "KEYS",
        r#"
        KEYS * -> []
        MSET hello 1 hallo 2 hxllo 3 heello 4 h*llo 5 other 6 "h\x00llo" 7 -> +OK
        KEYS h?llo -> {"hello", "hallo", "hxllo", "h*llo", "h\x00llo"}
        KEYS h*llo -> {"hello", "hallo", "hxllo", "heello", "h*llo", "h\x00llo"}
        KEYS h[ae]llo -> {"hello", "hallo"}
        KEYS h[^e]llo -> {"hallo", "hxllo", "h*llo", "h\x00llo"}
        KEYS h[a-b]llo -> {"hallo"}
        KEYS "h\\*llo" -> {"h*llo"}
        KEYS nope* -> []
        KEYS * -> {"hello", "hallo", "hxllo", "heello", "h*llo", "other", "h\x00llo"}
        KEYS hello -> ["hello"]
        KEYS HELLO -> []
        KEYS -> -ERR wrong number of arguments for 'keys' command
        "#,
    ),
    own(
        "MDEL",
        "MSET a 1 b 2 c 3 d 4 e 5 -> +OK\n MDEL a b nope -> 2\n MDEL c d e -> 3\n MDEL a -> 0\n DBSIZE -> 0",
    ),
    own(
        "MEMORY",
        r#"
        MEMORY USAGE a -> nil
        SET a 0123456789012345678901234567890123456789 -> +OK
        MEMORY USAGE a -> 55..90
        MEMORY USAGE a SAMPLES 5 -> 55..90
        APPEND a 0123456789 -> 50
        memory usage a samples 0 -> 65..100
        MEMORY STATS -> ["peak.allocated", 1000..99999999, "total.allocated", 1000..99999999, "startup.allocated", 0, "replication.backlog", 0, "clients.slaves", 0, "clients.normal", 0..99999, "cluster.links", 0, "overhead.total", 1000..99999999, "keys.count", 1, "keys.bytes-per-key", 100..99999999, "dataset.bytes", 100..99999999, "dataset.percentage", *, "peak.percentage", *, "analytics.bytes", 1000..99999999, "resident.bytes", 100000..9999999999, "fragmentation", *, "fragmentation.bytes", *]
        DEL a -> 1
        MEMORY USAGE a -> nil
        MEMORY USAGE a SAMPLES -> -ERR syntax error
        MEMORY USAGE a SAMPLES -1 -> -ERR syntax error
        MEMORY USAGE a SAMPLES x -> -ERR value is not an integer or out of range
        MEMORY USAGE a COUNT 1 -> -ERR syntax error
        MEMORY USAGE -> -ERR wrong number of arguments for 'memory|usage' command
        MEMORY STATS a -> -ERR wrong number of arguments for 'memory|stats' command
        MEMORY DOCTOR -> "There is too little data to tell anything by it."
        MEMORY PURGE -> +OK
        MEMORY MALLOC-STATS -> "Stats not supported for the current allocator"
        MEMORY HELP -> [+"MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", +"DOCTOR", *, +"MALLOC-STATS", *, +"PURGE", *, +"STATS", *, +"USAGE key [SAMPLES count]", *, +"HELP", *]
        "#,
    ),
    script(
        "MGET",
        r#"
        MGET a -> [nil]
        MSET a 1 b 2 c "" -> +OK
        MGET a b c nope a -> ["1", "2", "", nil, "1"]
        MGET c b a -> ["", "2", "1"]
        MGET -> -ERR wrong number of arguments for 'mget' command
        "#,
    ),
    script(
        "COPY",
        r#"
        SET a 1 PX 100000 -> +OK
        COPY a b DB 3 -> 1
        COPY a a DB 3 -> 1
        COPY a c DB 3 -> 1
        COPY a d DB 3 -> 1
        COPY a d DB 3 -> 0
        SET a 2 -> +OK
        COPY a d DB 3 REPLACE -> 1
        COPY a a DB 0 -> -ERR source and destination objects are the same
        COPY a b DB 16 -> -ERR DB index is out of range
        COPY a b DB x -> -ERR value is not an integer or out of range
        COPY a b DB -> -ERR syntax error
        DBSIZE -> 1
        SELECT 3 -> +OK
        MGET a b c d -> ["1", "1", "1", "2"]
        TTL b -> 99..100
        TTL d -> -1
        COPY b e DB 0 -> 1
        COPY b f DB 0 REPLACE DB 3 -> 1
        MULTI -> +OK
        COPY a g DB 0 -> +QUEUED
        COPY a h DB 0 -> +QUEUED
        COPY a g DB 0 -> +QUEUED
        EXEC -> [1, 1, 0]
        DBSIZE -> 5
        SELECT 0 -> +OK
        MGET a e f g h -> ["2", "1", nil, "1", "1"]
        "#,
    ),
    script(
        "MOVE",
        r#"
        SET a 1 PX 100000 -> +OK
        MOVE a 3 -> 1
        MOVE a 3 -> 0
        GET a -> nil
        SET a 2 -> +OK
        MOVE a 3 -> 0
        SELECT 3 -> +OK
        GET a -> "1"
        TTL a -> 99..100
        MOVE a 3 -> -ERR source and destination objects are the same
        MOVE nope 3 -> -ERR source and destination objects are the same
        MOVE nope 0 -> 0
        MOVE a 16 -> -ERR DB index is out of range
        MOVE a -1 -> -ERR DB index is out of range
        MOVE a x -> -ERR value is not an integer or out of range
        MOVE a 2147483648 -> -ERR value is out of range, value must between -2147483648 and 2147483647
        MOVE a -> -ERR wrong number of arguments for 'move' command
        "#,
    ),
    script(
        "MULTI",
        r#"
        MULTI now -> -ERR wrong number of arguments for 'multi' command
        MULTI -> +OK
        MULTI -> -ERR MULTI calls can not be nested
        SET a 1 -> +QUEUED
        EXEC -> [+OK]
        MULTI -> +OK
        INCR a -> +QUEUED
        RESET -> +RESET
        EXEC -> -ERR EXEC without MULTI
        GET a -> "1"
        MULTI -> +OK
        INCR a -> +QUEUED
        QUIT -> +OK
        (closed)
        "#,
    ),
    script(
        "MSET",
        r#"
        MSET a 1 -> +OK
        MSET a 2 b 3 c "x y" d "" a 4 -> +OK
        MGET a b c d -> ["4", "3", "x y", ""]
        SET t 1 EX 100 -> +OK
        MSET t 2 u 3 -> +OK
        TTL t -> -1
        MSET z -> -ERR wrong number of arguments for 'mset' command
        MSET a 9 z -> -ERR wrong number of arguments for 'mset' command
        MGET a z -> ["4", nil]
        "#,
    ),
    script(
        "PERSIST",
        r#"
        PERSIST nope -> 0
        SET a 1 -> +OK
        PERSIST a -> 0
        EXPIRE a 100 -> 1
        PERSIST a -> 1
        TTL a -> -1
        PERSIST a -> 0
        GET a -> "1"
        "#,
    ),
    script(
        "PING",
        r#"
        PING -> +PONG
        PING hello -> "hello"
        PING "" -> ""
        ping -> +PONG
        PING a b -> -ERR wrong number of arguments for 'ping' command
        "#,
    ),
    script(
        "PSETEX",
        r#"
        PSETEX a 100000 v -> +OK
        GET a -> "v"
        PTTL a -> 90000..100000
        PSETEX a 0 w -> -ERR invalid expire time in 'psetex' command
        PSETEX a 9223372036854775807 w -> -ERR invalid expire time in 'psetex' command
        PSETEX a ten w -> -ERR value is not an integer or out of range
        PSETEX a 20 w -> +OK
        eventually GET a -> nil
        PSETEX a 10 -> -ERR wrong number of arguments for 'psetex' command
        "#,
    ),
    script(
        "PTTL",
        r#"
        PTTL nope -> -2
        SET a 1 -> +OK
        PTTL a -> -1
        SET a 1 PX 100000 -> +OK
        PTTL a -> 90000..100000
        SET b 1 PX 20 -> +OK
        eventually PTTL b -> -2
        "#,
    ),
    own("KVLITE.SYNC", "SET a 1 -> +OK\n KVLITE.SYNC -> +OK\n GET a -> \"1\""),
    own(
        "PSYNC",
        "PSYNC ? -1 -> -ERR there is no replication yet: BACKUP copies the data, KVLITE.SYNC and WAITAOF bring it to disk\n PING -> +PONG",
    ),
    own(
        "REPLCONF",
        "REPLCONF capa eof capa psync2 -> -ERR there is no replication yet: BACKUP copies the data, KVLITE.SYNC and WAITAOF bring it to disk\n PING -> +PONG",
    ),
    own(
        "RESET",
        "RESET -> +RESET\n CLIENT SETNAME n -> +OK\n HELLO 3 -> %[...]\n RESET -> +RESET\n CLIENT GETNAME -> nil\n GET a -> nil",
    ),
    // Redis has it from 7.2 on.
    own(
        "WAITAOF",
        r#"
        WAITAOF 1 0 0 -> [1, 0]
        SET a 1 -> +OK
        WAITAOF 1 0 100000 -> [1, 0]
        WAITAOF 1 3 0 -> [1, 0]
        WAITAOF 0 0 0 -> [0, 0]
        WAITAOF 2 0 0 -> -ERR value is out of range, value must between 0 and 1
        WAITAOF one 0 0 -> -ERR value is not an integer or out of range
        WAITAOF 1 -1 0 -> -ERR value is out of range, must be positive
        WAITAOF 1 0 soon -> -ERR timeout is not an integer or out of range
        WAITAOF 1 0 -1 -> -ERR timeout is negative
        "#,
    ),
    script("QUIT", "QUIT -> +OK\n (closed)"),
    script(
        "SCAN",
        r#"
        SCAN 0 -> ["0", []]
        SCAN 0 MATCH * COUNT 100 -> ["0", []]
        MSET a 1 b 2 c 3 d 4 -> +OK
        SCAN 0 COUNT 1000 -> [*, [...]]
        SCAN 0 TYPE string COUNT 10 match a* -> [*, [...]]
        SCAN 0 TYPE hash COUNT 1000 -> [*, []]
        SCAN 0 TYPE hash MATCH * COUNT 1000 -> [*, []]
        SCAN 0 MATCH nope* COUNT 1000 -> [*, []]
        SCAN abc -> -ERR invalid cursor
        SCAN 0 COUNT 0 -> -ERR syntax error
        SCAN 0 COUNT -5 -> -ERR syntax error
        SCAN 0 COUNT ten -> -ERR value is not an integer or out of range
        SCAN 0 COUNT -> -ERR syntax error
        SCAN 0 NOPE 1 -> -ERR syntax error
        "#,
    ),
    script("LASTSAVE", "LASTSAVE -> 1600000000..9999999999\n INFO persistence -> ~\"rdb_last_save_time:\""),
    script(
        "SAVE",
        "SET a 1 -> +OK\n SAVE -> +OK\n GET a -> \"1\"\n SAVE -> +OK\n LASTSAVE -> 1600000000..9999999999",
    ),
    // Redis takes a negative cursor for a very large one.
    own("SCAN", "SCAN -1 -> -ERR invalid cursor"),
    script(
        "SELECT",
        r#"
        SET a 1 -> +OK
        SELECT 0 -> +OK
        GET a -> "1"
        SELECT 99 -> -ERR DB index is out of range
        SELECT 16 -> -ERR DB index is out of range
        SELECT -1 -> -ERR DB index is out of range
        SELECT abc -> -ERR value is not an integer or out of range
        SELECT 01 -> -ERR value is not an integer or out of range
        SELECT 2147483648 -> -ERR value is out of range, value must between -2147483648 and 2147483647
        SELECT 9223372036854775808 -> -ERR value is not an integer or out of range
        GET a -> "1"
        SELECT 15 -> +OK
        GET a -> nil
        MSET a 15 b 15 c 15 d 15 -> +OK
        CLIENT INFO -> ~" db=15 "
        SCAN 0 MATCH a COUNT 100 -> ["0", ["a"]]
        KEYS b -> ["b"]
        DBSIZE -> 4
        EXISTS a b nope -> 2
        INFO keyspace -> ~"db0:keys=1,expires=0,avg_ttl=0\r\ndb15:keys=4,expires=0,avg_ttl=0\r\n"
        SELECT 0 -> +OK
        DEL a b -> 1
        SELECT 15 -> +OK
        MGET a b c -> ["15", "15", "15"]
        FLUSHALL -> +OK
        DBSIZE -> 0
        RESET -> +RESET
        CLIENT INFO -> ~" db=0 "
        "#,
    ),
    script(
        "SET",
        r#"
        SET a 1 -> +OK
        SET a 2 NX -> nil
        GET a -> "1"
        SET a 2 XX -> +OK
        SET b 1 XX -> nil
        EXISTS b -> 0
        SET b 1 nx -> +OK
        SET a 3 GET -> "2"
        SET new 1 GET -> nil
        SET a 4 NX GET -> "3"
        GET a -> "3"
        SET fresh 4 NX GET -> nil
        GET fresh -> "4"
        SET a 5 XX GET EX 100 -> "3"
        TTL a -> 99..100
        SET a 6 KEEPTTL -> +OK
        TTL a -> 99..100
        SET a 7 -> +OK
        TTL a -> -1
        SET a 8 PX 100000 -> +OK
        PTTL a -> 90000..100000
        SET a 9 EXAT 4102444800 -> +OK
        TTL a -> 1000000..4102444800
        SET a 10 PXAT 4102444800000 XX -> +OK
        PTTL a -> 1000000000..4102444800000
        SET a 11 PX 20 -> +OK
        eventually GET a -> nil
        SET old 1 -> +OK
        SET old 2 EXAT 1 -> +OK
        GET old -> nil
        SET b 1 EX 0 -> -ERR invalid expire time in 'set' command
        SET b 1 EX -1 -> -ERR invalid expire time in 'set' command
        SET b 1 PX 0 -> -ERR invalid expire time in 'set' command
        SET b 1 EXAT 0 -> -ERR invalid expire time in 'set' command
        SET b 1 EX 9223372036854775807 -> -ERR invalid expire time in 'set' command
        SET b 1 PX 9223372036854775807 -> -ERR invalid expire time in 'set' command
        SET b 1 EX ten -> -ERR value is not an integer or out of range
        SET b 1 EX -> -ERR syntax error
        SET b 1 NOPE -> -ERR syntax error
        SET b 1 NX XX -> -ERR syntax error
        SET b 1 EX 10 PX 10 -> -ERR syntax error
        SET b 1 EX 10 KEEPTTL -> -ERR syntax error
        GET b -> "1"
        SET b -> -ERR wrong number of arguments for 'set' command
        SET b "" -> +OK
        GET b -> ""
        "#,
    ),
    script(
        "SETEX",
        r#"
        SETEX a 100 v -> +OK
        GET a -> "v"
        TTL a -> 99..100
        SETEX a 0 w -> -ERR invalid expire time in 'setex' command
        SETEX a -5 w -> -ERR invalid expire time in 'setex' command
        SETEX a 9223372036854775807 w -> -ERR invalid expire time in 'setex' command
        SETEX a ten w -> -ERR value is not an integer or out of range
        GET a -> "v"
        SETEX a 10 -> -ERR wrong number of arguments for 'setex' command
        "#,
    ),
    script(
        "SETNX",
        r#"
        SETNX a 1 -> 1
        SETNX a 2 -> 0
        GET a -> "1"
        SET b 1 PX 20 -> +OK
        eventually SETNX b 2 -> 1
        TTL b -> -1
        "#,
    ),
    own(
        "STATS",
        "SET a 1 -> +OK\n GET a -> \"1\"\n STATS -> [\"keys\", 1, \"connections\", *, \"wal_size\", *, ...]",
    ),
    script(
        "SETRANGE",
        r#"
        SETRANGE a 0 Hello -> 5
        SETRANGE a 1 ipp -> 5
        GET a -> "Hippo"
        SETRANGE a 7 x -> 8
        GETRANGE a 5 6 -> "\x00\x00"
        SETRANGE a 9 "" -> 8
        SETRANGE nope 9 "" -> 0
        EXISTS nope -> 0
        SETRANGE a -1 x -> -ERR offset is out of range
        SETRANGE a x x -> -ERR value is not an integer or out of range
        SETRANGE a 536870912 x -> -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE a 1 -> -ERR wrong number of arguments for 'setrange' command
        "#,
    ),
    script(
        "STRLEN",
        r#"
        STRLEN nope -> 0
        EXISTS nope -> 0
        SET a "Hello" -> +OK
        STRLEN a -> 5
        SET a "\x00\xff\r\n" -> +OK
        STRLEN a -> 4
        SET a "" -> +OK
        STRLEN a -> 0
        SET n 12345 -> +OK
        STRLEN n -> 5
        "#,
    ),
    own(
        "SYNC",
        r#"
        SYNC -> -ERR there is no replication yet: BACKUP copies the data, KVLITE.SYNC and WAITAOF bring it to disk
        PING -> +PONG
        HELLO 3 -> %[...]
        SYNC -> -ERR there is no replication yet: BACKUP copies the data, KVLITE.SYNC and WAITAOF bring it to disk
        PING -> +PONG
        "#,
    ),
    script(
        "TTL",
        r#"
        TTL nope -> -2
        SET a 1 -> +OK
        TTL a -> -1
        SET a 1 EX 100 -> +OK
        TTL a -> 99..100
        SET a 1 PX 1600 -> +OK
        TTL a -> 1..2
        SET b 1 PX 20 -> +OK
        eventually TTL b -> -2
        EXISTS b -> 0
        "#,
    ),
    script(
        "GETSET",
        r#"
        GETSET a 1 -> nil
        SET a 2 EX 100 -> +OK
        GETSET a 3 -> "2"
        TTL a -> -1
        GET a -> "3"
        GETSET a -> -ERR wrong number of arguments for 'getset' command
        "#,
    ),
    script(
        "SWAPDB",
        r#"
        MSET a 0 b 0 c 0 d 0 -> +OK
        SELECT 1 -> +OK
        SET a 1 PX 100000 -> +OK
        SWAPDB 0 1 -> +OK
        MGET a b c d -> ["0", "0", "0", "0"]
        SELECT 0 -> +OK
        GET a -> "1"
        TTL a -> 99..100
        DBSIZE -> 1
        APPEND a + -> 2
        SWAPDB 5 0 -> +OK
        DBSIZE -> 0
        SWAPDB 1 5 -> +OK
        SELECT 1 -> +OK
        GET a -> "1+"
        SWAPDB 1 1 -> +OK
        GET a -> "1+"
        SELECT 5 -> +OK
        DBSIZE -> 4
        SWAPDB x 99 -> -ERR invalid first DB index
        SWAPDB 99 x -> -ERR invalid second DB index
        SWAPDB 2147483648 0 -> -ERR invalid first DB index
        SWAPDB 0 16 -> -ERR DB index is out of range
        SWAPDB -1 0 -> -ERR DB index is out of range
        SWAPDB 0 -> -ERR wrong number of arguments for 'swapdb' command
        "#,
    ),
    own(
        "SWAPDB",
        r#"
        MSET a 0 b 0 -> +OK
        HOTKEYS 1 -> [["key", ...]]
        SWAPDB 0 1 -> +OK
        HOTKEYS -> []
        SELECT 1 -> +OK
        HOTKEYS -> -ERR only how the keys of database 0 are used is known: SELECT 0 first
        ANALYZE a -> -ERR only how the keys of database 0 are used is known: SELECT 0 first
        GET a -> "0"
        OBJECT IDLETIME a -> 0
        SELECT 0 -> +OK
        HOTKEYS -> []
        PREFIXES -> []
        "#,
    ),
    script(
        "SUBSTR",
        r#"
        SET a Hello -> +OK
        SUBSTR a 1 -2 -> "ell"
        SUBSTR nope 0 -1 -> ""
        SUBSTR a 0 -> -ERR wrong number of arguments for 'substr' command
        "#,
    ),
    script(
        "PEXPIRE",
        r#"
        PEXPIRE nope 10 -> 0
        SET a 1 -> +OK
        PEXPIRE a 100000 XX -> 0
        PEXPIRE a 100000 -> 1
        PTTL a -> 90000..100000
        PEXPIRE a 50000 GT -> 0
        PEXPIRE a ten -> -ERR value is not an integer or out of range
        PEXPIRE a 9223372036854775807 -> -ERR invalid expire time in 'pexpire' command
        PEXPIRE a 10 NX GT -> -ERR NX and XX, GT or LT options at the same time are not compatible
        PEXPIRE a 20 -> 1
        eventually GET a -> nil
        SET b 1 -> +OK
        PEXPIRE b -1 -> 1
        EXISTS b -> 0
        PEXPIRE a -> -ERR wrong number of arguments for 'pexpire' command
        "#,
    ),
    script(
        "EXPIREAT",
        r#"
        EXPIREAT nope 33000000000 -> 0
        SET a 1 -> +OK
        EXPIREAT a 33000000000 GT -> 0
        EXPIREAT a 33000000000 NX -> 1
        EXPIRETIME a -> 33000000000
        EXPIREAT a 33000000001 LT -> 0
        EXPIREAT a 33000000001 GT -> 1
        PEXPIRETIME a -> 33000000001000
        GET a -> "1"
        EXPIREAT a soon -> -ERR value is not an integer or out of range
        EXPIREAT a 9223372036854775807 -> -ERR invalid expire time in 'expireat' command
        EXPIREAT a 33000000000 NOPE -> -ERR Unsupported option NOPE
        EXPIREAT a 1000000000 -> 1
        EXISTS a -> 0
        EXPIREAT a -> -ERR wrong number of arguments for 'expireat' command
        "#,
    ),
    script(
        "PEXPIREAT",
        r#"
        SET a 1 -> +OK
        PEXPIREAT a 33000000000499 -> 1
        EXPIRETIME a -> 33000000000
        PEXPIRETIME a -> 33000000000499
        PEXPIREAT a 9223372036854775807 -> 1
        PEXPIREAT a 33000000000500 LT -> 1
        EXPIRETIME a -> 33000000001
        PERSIST a -> 1
        PEXPIREAT a 0 XX -> 0
        PEXPIREAT a -5 -> 1
        EXISTS a -> 0
        PEXPIREAT a x -> -ERR value is not an integer or out of range
        "#,
    ),
    script(
        "EXPIRETIME",
        r#"
        EXPIRETIME nope -> -2
        SET a 1 -> +OK
        EXPIRETIME a -> -1
        SET a 1 EX 100 -> +OK
        EXPIRETIME a -> 1700000000..33000000000
        EXPIRETIME -> -ERR wrong number of arguments for 'expiretime' command
        "#,
    ),
    script(
        "PEXPIRETIME",
        r#"
        PEXPIRETIME nope -> -2
        SET a 1 -> +OK
        PEXPIRETIME a -> -1
        SET a 1 PXAT 33000000000123 -> +OK
        PEXPIRETIME a -> 33000000000123
        "#,
    ),
    script(
        "TYPE",
        r#"
        TYPE nope -> +none
        SET a 1 -> +OK
        TYPE a -> +string
        TYPE -> -ERR wrong number of arguments for 'type' command
        "#,
    ),
    script(
        "TOUCH",
        r#"
        MSET a 1 b 2 c 3 -> +OK
        TOUCH a -> 1
        TOUCH a b c a nope -> 4
        TOUCH -> -ERR wrong number of arguments for 'touch' command
        "#,
    ),
    script(
        "UNLINK",
        r#"
        MSET a 1 b 2 c 3 -> +OK
        UNLINK a b nope a -> 2
        UNLINK c -> 1
        UNLINK c -> 0
        DBSIZE -> 0
        UNLINK -> -ERR wrong number of arguments for 'unlink' command
        "#,
    ),
    script(
        "OBJECT",
        r#"
        OBJECT ENCODING nope -> nil
        OBJECT FREQ nope -> nil
        OBJECT IDLETIME nope -> nil
        OBJECT REFCOUNT nope -> nil
        SET n 1234567 -> +OK
        OBJECT ENCODING n -> "int"
        SET a 12345678901234567890123456789012345678901234 -> +OK
        OBJECT ENCODING a -> "embstr"
        SET a 123456789012345678901234567890123456789012345 -> +OK
        OBJECT ENCODING a -> "raw"
        SET a -0 -> +OK
        OBJECT ENCODING a -> "embstr"
        OBJECT REFCOUNT a -> 1
        OBJECT IDLETIME a -> 0..9
        OBJECT ENCODING -> -ERR wrong number of arguments for 'object|encoding' command
        OBJECT NOPE a -> -ERR unknown subcommand 'NOPE'. Try OBJECT HELP.
        OBJECT HELP -> [+"OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", ...]
        "#,
    ),
    // Valkey has them.
    own(
        "DELIFEQ",
        r#"
        DELIFEQ a 1 -> 0
        SET a 1 -> +OK
        DELIFEQ a 2 -> 0
        DELIFEQ a 1 -> 1
        EXISTS a -> 0
        DELIFEQ a -> -ERR wrong number of arguments for 'delifeq' command
        "#,
    ),
    own(
        "SET",
        r#"
        SET a 2 IFEQ 1 -> nil
        SET a 1 -> +OK
        SET a 2 IFEQ 3 -> nil
        SET a 2 IFEQ 1 EX 100 -> +OK
        TTL a -> 99..100
        SET a 3 GET IFEQ 2 -> "2"
        SET a 4 GET IFEQ 2 -> "3"
        SET a 4 IFEQ 3 NX -> -ERR syntax error
        SET a 4 IFEQ -> -ERR syntax error
        "#,
    ),
    own(
        "OBJECT",
        "SET a 1 -> +OK\n OBJECT FREQ a -> -ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
    ),
    script(
        "TIME",
        r#"
        TIME -> [*, *]
        TIME now -> -ERR wrong number of arguments for 'time' command
        "#,
    ),
    script(
        "SETBIT",
        r#"
        SETBIT a 7 1 -> 0
        SETBIT a 7 1 -> 1
        GET a -> "\x01"
        SETBIT a 7 0 -> 1
        SETBIT a 16 0 -> 0
        GET a -> "\x00\x00\x00"
        SET t a EX 100 -> +OK
        SETBIT t 6 1 -> 0
        GET t -> "c"
        TTL t -> 99..100
        SETBIT a x 1 -> -ERR bit offset is not an integer or out of range
        SETBIT a -1 1 -> -ERR bit offset is not an integer or out of range
        SETBIT a 4294967296 1 -> -ERR bit offset is not an integer or out of range
        SETBIT a 1 2 -> -ERR bit is not an integer or out of range
        SETBIT a x x -> -ERR bit offset is not an integer or out of range
        SETBIT a 1 -> -ERR wrong number of arguments for 'setbit' command
        "#,
    ),
    script(
        "GETBIT",
        r#"
        GETBIT nope 0 -> 0
        SET a b -> +OK
        GETBIT a 0 -> 0
        GETBIT a 1 -> 1
        GETBIT a 6 -> 1
        GETBIT a 4294967295 -> 0
        GETBIT a 4294967296 -> -ERR bit offset is not an integer or out of range
        GETBIT a #1 -> -ERR bit offset is not an integer or out of range
        GETBIT a -> -ERR wrong number of arguments for 'getbit' command
        "#,
    ),
    script(
        "BITCOUNT",
        r#"
        BITCOUNT nope -> 0
        BITCOUNT nope 1 x NOPE -> 0
        SET a foobar -> +OK
        BITCOUNT a -> 26
        BITCOUNT a 0 0 -> 4
        BITCOUNT a 1 1 BYTE -> 6
        BITCOUNT a 5 30 BIT -> 17
        BITCOUNT a -9 -3 bit -> 4
        BITCOUNT a 3 2 -> 0
        BITCOUNT a -100 -50 -> 4
        BITCOUNT a -1 -2 NOPE -> 0
        BITCOUNT a 1 2 NOPE -> -ERR syntax error
        BITCOUNT a x 1 NOPE -> -ERR value is not an integer or out of range
        BITCOUNT a 1 -> -ERR syntax error
        BITCOUNT a 1 2 BIT 3 -> -ERR syntax error
        "#,
    ),
    script(
        "BITPOS",
        r#"
        BITPOS nope 1 -> -1
        BITPOS nope 0 x -> 0
        SET a "\xff\xf0\x00" -> +OK
        BITPOS a 0 -> 12
        BITPOS a 1 2 -> -1
        BITPOS a 0 2 -> 16
        BITPOS a 1 -2 -> 8
        BITPOS a 0 0 11 BIT -> -1
        BITPOS a 1 5 5 BIT -> 5
        SET full "\xff\xff" -> +OK
        BITPOS full 0 -> 16
        BITPOS full 0 1 -> 16
        BITPOS full 0 2 -> -1
        BITPOS full 0 0 -1 -> -1
        SET empty "" -> +OK
        BITPOS empty 0 -> -1
        BITPOS a 1 1 x NOPE -> -ERR syntax error
        BITPOS a 1 x -> -ERR value is not an integer or out of range
        BITPOS a 2 -> -ERR The bit argument must be 1 or 0.
        BITPOS nope 2 -> -ERR The bit argument must be 1 or 0.
        BITPOS a 1 1 2 BIT 4 -> -ERR syntax error
        BITPOS a -> -ERR wrong number of arguments for 'bitpos' command
        "#,
    ),
    script(
        "BITFIELD",
        r#"
        BITFIELD a -> []
        BITFIELD a INCRBY i5 100 1 GET u4 0 -> [1, 0]
        STRLEN a -> 14
        BITFIELD a SET i8 0 -1 GET u8 0 GET i8 0 GET u4 2 GET u8 #1 -> [0, 255, -1, 15, 0]
        BITFIELD a OVERFLOW SAT INCRBY u2 102 5 OVERFLOW FAIL INCRBY u2 102 1 OVERFLOW WRAP INCRBY u2 102 1 -> [3, nil, 0]
        BITFIELD a OVERFLOW SAT SET u8 0 -1 SET i8 0 200 GET i8 0 -> [255, -1, 127]
        BITFIELD a INCRBY i64 0 9223372036854775807 -> [-72057594037927937]
        BITFIELD b OVERFLOW FAIL INCRBY u8 0 300 -> [nil]
        STRLEN b -> 1
        BITFIELD a GET u64 0 -> -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        BITFIELD a GET x x -> -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        BITFIELD a SET u8 -1 x -> -ERR bit offset is not an integer or out of range
        BITFIELD a GET u8 #4294967295 -> -ERR bit offset is not an integer or out of range
        BITFIELD a SET u8 0 x -> -ERR value is not an integer or out of range
        BITFIELD a OVERFLOW never -> -ERR Invalid OVERFLOW type specified
        BITFIELD a OVERFLOW -> -ERR syntax error
        BITFIELD a GET u8 -> -ERR syntax error
        BITFIELD -> -ERR wrong number of arguments for 'bitfield' command
        "#,
    ),
    script(
        "BITFIELD_RO",
        r#"
        BITFIELD_RO a GET u8 0 -> [0]
        EXISTS a -> 0
        SET a "\xfe" -> +OK
        BITFIELD_RO a GET i8 0 GET u4 #1 -> [-2, 14]
        BITFIELD_RO a OVERFLOW SAT -> []
        BITFIELD_RO a SET u8 0 1 -> -ERR BITFIELD_RO only supports the GET subcommand
        BITFIELD_RO a SET u8 0 x -> -ERR value is not an integer or out of range
        "#,
    ),
    script(
        "UNWATCH",
        "UNWATCH -> +OK\n SET a 1 -> +OK\n WATCH a -> +OK\n SET a 2 -> +OK\n UNWATCH -> +OK\n MULTI -> +OK\n GET a -> +QUEUED\n EXEC -> [\"2\"]",
    ),
    script(
        "WATCH",
        r#"
        SET a 1 -> +OK
        WATCH a b -> +OK
        MULTI -> +OK
        WATCH a -> -ERR WATCH inside MULTI is not allowed
        INCR a -> +QUEUED
        EXEC -> [2]
        # What the client itself changes counts.
        WATCH a b c -> +OK
        WATCH a -> +OK
        SET b 1 -> +OK
        MULTI -> +OK
        INCR a -> +QUEUED
        EXEC -> nil-array
        GET a -> "2"
        # It holds for one EXEC.
        MULTI -> +OK
        INCR a -> +QUEUED
        EXEC -> [3]
        # What is not there does not change when something else is removed.
        WATCH c -> +OK
        DEL c a -> 1
        MULTI -> +OK
        PING -> +QUEUED
        EXEC -> [+PONG]
        # What is gone has changed, also if it is back, or came and went.
        SET a 1 -> +OK
        WATCH a -> +OK
        FLUSHALL -> +OK
        MULTI -> +OK
        PING -> +QUEUED
        EXEC -> nil-array
        WATCH a -> +OK
        SET a 1 -> +OK
        DEL a -> 1
        MULTI -> +OK
        EXEC -> nil-array
        # A key of another database is another key.
        WATCH a -> +OK
        SELECT 1 -> +OK
        SET a 1 -> +OK
        MULTI -> +OK
        GET a -> +QUEUED
        EXEC -> ["1"]
        HELLO 3 -> %[...]
        WATCH a -> +OK
        DEL a -> 1
        MULTI -> +OK
        PING -> +QUEUED
        EXEC -> null
        WATCH -> -ERR wrong number of arguments for 'watch' command
        "#,
    ),
    script(
        "BITOP",
        r#"
        MSET a abc b A -> +OK
        BITOP AND d a b -> 3
        GET d -> "A\x00\x00"
        BITOP or d a b -> 3
        GET d -> "abc"
        BITOP XOR d a a nope -> 3
        GET d -> "\x00\x00\x00"
        EXPIRE d 100 -> 1
        BITOP NOT d d -> 3
        GET d -> "\xff\xff\xff"
        TTL d -> -1
        BITOP OR d nope -> 0
        EXISTS d -> 0
        BITOP NOT d a b -> -ERR BITOP NOT must be called with a single source key.
        BITOP NAND d a -> -ERR syntax error
        BITOP AND d -> -ERR wrong number of arguments for 'bitop' command
        "#,
    ),
    script(
        "COPY",
        r#"
        COPY a b -> 0
        SET a 1 EX 100 -> +OK
        COPY a b -> 1
        GET b -> "1"
        TTL b -> 99..100
        SET a 2 -> +OK
        COPY a b -> 0
        COPY a b DB 0 replace -> 1
        GET b -> "2"
        TTL b -> -1
        COPY a a -> -ERR source and destination objects are the same
        COPY a b DB 999999 -> -ERR DB index is out of range
        COPY a b DB x -> -ERR value is not an integer or out of range
        COPY a b DB 4294967296 -> -ERR value is out of range, value must between -2147483648 and 2147483647
        COPY a b DB -> -ERR syntax error
        COPY a b NOW -> -ERR syntax error
        COPY a -> -ERR wrong number of arguments for 'copy' command
        "#,
    ),
    script(
        "DUMP",
        r#"
        DUMP nope -> nil
        SET a 10 -> +OK
        DUMP a -> "\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb"
        DUMP -> -ERR wrong number of arguments for 'dump' command
        "#,
    ),
    script(
        "LCS",
        r#"
        MSET a ohmytext b mynewtext -> +OK
        LCS a b -> "mytext"
        LCS a b LEN -> 6
        LCS a b IDX -> ["matches", [[[4, 7], [5, 8]], [[2, 3], [0, 1]]], "len", 6]
        LCS a b idx MINMATCHLEN 4 WITHMATCHLEN -> ["matches", [[[4, 7], [5, 8], 4]], "len", 6]
        LCS a nope -> ""
        LCS nope nope IDX -> ["matches", [], "len", 0]
        LCS a b LEN IDX -> -ERR If you want both the length and indexes, please just use IDX.
        LCS a b MINMATCHLEN x -> -ERR value is not an integer or out of range
        LCS a b MINMATCHLEN -> -ERR syntax error
        LCS a -> -ERR wrong number of arguments for 'lcs' command
        HELLO 3 -> %[...]
        LCS a b IDX -> %["matches", *, "len", 6]
        "#,
    ),
    script(
        "LOLWUT",
        r#"
        LOLWUT -> ~"Redis ver. "
        LOLWUT VERSION 5 1 1 1 -> ~"ver. "
        LOLWUT VERSION 9 x -> ~"ver. "
        LOLWUT 1 2 x -> ~"ver. "
        LOLWUT VERSION x -> -ERR value is not an integer or out of range
        LOLWUT VERSION 5 x -> -ERR value is not an integer or out of range
        "#,
    ),
    own(
        "MSETEX",
        r#"
        MSETEX 2 a 1 b 2 EX 100 -> 1
        MGET a b -> ["1", "2"]
        TTL b -> 99..100
        MSETEX 2 b 3 c 4 NX -> 0
        MSETEX 2 b 3 c 4 XX -> 0
        MSETEX 2 a 3 b 4 xx KEEPTTL -> 1
        MGET a b c -> ["3", "4", nil]
        TTL a -> 99..100
        MSETEX 1 a 5 PXAT 1 -> 1
        EXISTS a -> 0
        MSETEX 2 a 1 -> -ERR syntax error
        MSETEX 0 a 1 -> -ERR invalid numkeys value or out of range
        MSETEX x a 1 -> -ERR invalid numkeys value or out of range
        MSETEX 1 a 1 EX 0 -> -ERR invalid expire time in 'msetex' command
        MSETEX 1 a 1 EX x -> -ERR value is not an integer or out of range
        MSETEX 1 a 1 NX XX -> -ERR syntax error
        MSETEX 1 a 1 GET -> -ERR syntax error
        MSETEX 1 a 1 IFEQ 1 -> -ERR syntax error
        MSETEX 1 a 1 KEEPTTL EX 1 -> -ERR syntax error
        EXISTS a -> 0
        MSETEX 1 a -> -ERR wrong number of arguments for 'msetex' command
        "#,
    ),
    script(
        "MSETNX",
        r#"
        MSETNX a 1 b 2 c 3 -> 1
        MSETNX d 1 c 4 -> 0
        MGET a b c d -> ["1", "2", "3", nil]
        MSETNX d 1 d 2 -> 1
        GET d -> "2"
        MSETNX a 1 b -> -ERR wrong number of arguments for 'msetnx' command
        "#,
    ),
    script(
        "PFADD",
        r#"
        PFADD a -> 1
        PFADD a -> 0
        PFADD a x y z -> 1
        PFADD a y x -> 0
        GET a -> "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80a\x84\x80X\xcd\x88E\xa0\x84\x08"
        SET b x -> +OK
        PFADD b x -> -WRONGTYPE Key is not a valid HyperLogLog string value.
        SET b "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x7f" -> +OK
        PFADD b x -> -INVALIDOBJ Corrupted HLL object detected
        PFADD -> -ERR wrong number of arguments for 'pfadd' command
        "#,
    ),
    script(
        "PFCOUNT",
        r#"
        PFCOUNT nope -> 0
        PFADD a x y z -> 1
        PFADD b z zz -> 1
        PFCOUNT a -> 3
        PFCOUNT a -> 3
        PFCOUNT a b nope -> 4
        GETRANGE a 8 15 -> "\x03\x00\x00\x00\x00\x00\x00\x00"
        GETRANGE b 8 15 -> "\x00\x00\x00\x00\x00\x00\x00\x80"
        SET c x -> +OK
        PFCOUNT c -> -WRONGTYPE Key is not a valid HyperLogLog string value.
        PFCOUNT a c -> -WRONGTYPE Key is not a valid HyperLogLog string value.
        PFCOUNT -> -ERR wrong number of arguments for 'pfcount' command
        "#,
    ),
    script(
        "PFDEBUG",
        r#"
        PFADD a x y z -> 1
        PFDEBUG ENCODING a -> +sparse
        PFDEBUG DECODE a -> "Z:8581 v:1,1 Z:6350 v:3,1 Z:1441 v:2,1 z:9"
        PFDEBUG todense a -> 1
        PFDEBUG TODENSE a -> 0
        PFDEBUG ENCODING a -> +dense
        STRLEN a -> 12304
        PFCOUNT a -> 3
        PFDEBUG DECODE a -> -ERR HLL encoding is not sparse
        PFDEBUG GETREG a -> [0, 0, ...]
        PFDEBUG NOPE a -> -ERR Unknown PFDEBUG subcommand 'NOPE'
        PFDEBUG GETREG nope -> -ERR The specified key does not exist
        PFDEBUG GETREG -> -ERR wrong number of arguments for 'pfdebug' command
        "#,
    ),
    script(
        "PFMERGE",
        r#"
        PFADD a x y -> 1
        PFADD b y z -> 1
        PFMERGE c a b nope -> +OK
        PFCOUNT c -> 3
        EXPIRE c 100 -> 1
        PFDEBUG TODENSE a -> 1
        PFMERGE c a -> +OK
        PFDEBUG ENCODING c -> +dense
        TTL c -> 99..100
        PFMERGE d -> +OK
        PFCOUNT d -> 0
        SET e x -> +OK
        PFMERGE c e -> -WRONGTYPE Key is not a valid HyperLogLog string value.
        PFMERGE -> -ERR wrong number of arguments for 'pfmerge' command
        "#,
    ),
    own(
        "PFSELFTEST",
        "PFSELFTEST -> +OK\n PFSELFTEST x -> -ERR wrong number of arguments for 'pfselftest' command",
    ),
    script(
        "RANDOMKEY",
        r#"
        RANDOMKEY -> nil
        SET a 1 -> +OK
        RANDOMKEY -> "a"
        RANDOMKEY x -> -ERR wrong number of arguments for 'randomkey' command
        "#,
    ),
    script(
        "RENAME",
        r#"
        RENAME a b -> -ERR no such key
        RENAME a a -> -ERR no such key
        SET a 1 EX 100 -> +OK
        SET b 2 -> +OK
        RENAME a b -> +OK
        MGET a b -> [nil, "1"]
        TTL b -> 99..100
        RENAME b b -> +OK
        RENAME b -> -ERR wrong number of arguments for 'rename' command
        "#,
    ),
    script(
        "RENAMENX",
        r#"
        RENAMENX a b -> -ERR no such key
        MSET a 1 b 2 -> +OK
        RENAMENX a b -> 0
        RENAMENX a a -> 0
        RENAMENX a c -> 1
        MGET a b c -> [nil, "2", "1"]
        RENAMENX b -> -ERR wrong number of arguments for 'renamenx' command
        "#,
    ),
    script(
        "RESTORE",
        r#"
        RESTORE a 0 "\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb" -> +OK
        GET a -> "10"
        RESTORE a 0 "\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb" -> -BUSYKEY Target key name already exists.
        RESTORE a 100000 "\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb" REPLACE FREQ 5 -> +OK
        TTL a -> 99..100
        RESTORE a 1 "\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb" REPLACE ABSTTL IDLETIME 5 -> +OK
        EXISTS a -> 0
        RESTORE a 0 x -> -ERR DUMP payload version or checksum are wrong
        RESTORE a 0 "\x00\xc0\x0b\n\x00n\x9fWE\x0e\xaec\xbb" -> -ERR DUMP payload version or checksum are wrong
        RESTORE a -1 x -> -ERR Invalid TTL value, must be >= 0
        RESTORE a x x -> -ERR value is not an integer or out of range
        RESTORE a 0 x FREQ 256 -> -ERR Invalid FREQ value, must be >= 0 and <= 255
        RESTORE a 0 x IDLETIME -1 -> -ERR Invalid IDLETIME value, must be >= 0
        RESTORE a 0 x IDLETIME 1 FREQ 1 -> -ERR syntax error
        RESTORE a 0 x NOW -> -ERR syntax error
        RESTORE a 0 -> -ERR wrong number of arguments for 'restore' command
        "#,
    ),
];

const TEXT: &[Script] = &[
    own(
        "EVAL",
        r#"
        EVAL "return redis.call('INCRBY', KEYS[1], ARGV[1])" 1 hits 5 -> 5
        EVAL "return {1, 'two words', {ok='fine'}, false}" 0 -> 1 | two words | +fine | (nil)
        EVAL "return redis.call('INCR', 'hits', 1)" 1 hits -> -ERR Wrong number of args calling Redis command from script<..>
        EVAL "return 1" -> -ERR EVAL requires script and number of keys
        "#,
    ),
    own("EVALSHA", "EVAL \"return ARGV[1]\" 0 a -> a\n EVALSHA 098e0f0d1448c0a81dafe820f66d460eb09263da 0 b -> b"),
    own("EVALSHA_RO", "EVALSHA_RO 000 0 -> -NOSCRIPT No matching script. Please use EVAL."),
    own("EVAL_RO", "EVAL_RO \"return redis.call('GET', KEYS[1])\" 1 a -> -ERR key not found"),
    own("SCRIPT", "SCRIPT LOAD \"return ARGV[1]\" -> 098e0f0d1448c0a81dafe820f66d460eb09263da\n SCRIPT EXISTS a -> 0"),
    own(
        "FUNCTION",
        r##"
        FUNCTION LOAD "#!lua name=shop\nredis.register_function('visit', function(keys) return redis.call('INCR', keys[1]) end)" -> shop
        FUNCTION LIST -> <..>
        FCALL visit 1 hits -> 1
        FUNCTION FLUSH -> +OK
        "##,
    ),
    own("FCALL", "FCALL nope 0 -> -ERR Function not found"),
    own("FCALL_RO", "FCALL_RO nope 0 -> -ERR Function not found"),
    own("AUTH", "AUTH default secret -> +OK\n AUTH ada secret -> -WRONGPASS <..>\n AUTH -> -ERR AUTH requires <..>"),
    own("DEBUG", "DEBUG SLEEP 0 -> -ERR DEBUG command not allowed.<..>\n DEBUG HELP -> DEBUG <..> | <rest>"),
    own("LATENCY", "LATENCY LATEST -> (empty list)\n LATENCY RESET -> 0\n LATENCY DOCTOR -> Nothing is watched<..>"),
    own("MONITOR", "MONITOR -> +OK\n GET a -> <..>end-of-reply<..> | -ERR Replica can't interact with the keyspace"),
    own("REPLICAOF", "REPLICAOF no one -> +OK\n REPLICAOF here 1 -> -ERR there is no replication yet<..>"),
    own("SLAVEOF", "SLAVEOF no one -> +OK"),
    own("ROLE", "ROLE -> master | 0 | (empty list)"),
    own("SHUTDOWN", "SHUTDOWN ABORT -> -ERR No shutdown in progress.\n SHUTDOWN please -> -ERR syntax error"),
    own("SLOWLOG", "SLOWLOG RESET -> +OK\n SLOWLOG LEN -> 0\n SLOWLOG GET -> (empty list)"),
    own("WAIT", "WAIT 0 0 -> 0\n WAIT 1 10 -> 0\n WAIT 1 -1 -> -ERR timeout is negative"),
    own(
        "SUBSCRIBE",
        r#"
        SUBSCRIBE news "two words" -> subscribe news 1 | subscribe "two words" 2
        PING -> +PONG
        GET a -> -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
        RESET -> +RESET
        GET a -> -ERR key not found
        "#,
    ),
    own("UNSUBSCRIBE", "UNSUBSCRIBE -> unsubscribe (nil) 0\n SUBSCRIBE a -> subscribe a 1\n UNSUBSCRIBE a -> unsubscribe a 0"),
    own("PSUBSCRIBE", "PSUBSCRIBE n* -> psubscribe n* 1\n PUNSUBSCRIBE -> punsubscribe n* 0\n GET a -> -ERR key not found"),
    own("PUNSUBSCRIBE", "PUNSUBSCRIBE n* -> punsubscribe n* 0"),
    own("SSUBSCRIBE", "SSUBSCRIBE s -> ssubscribe s 1\n QUIT -> +OK goodbye\n (closed)"),
    own("SUNSUBSCRIBE", "SUNSUBSCRIBE s -> sunsubscribe s 0"),
    own("PUBLISH", "PUBLISH nobody two words -> 0\n PUBLISH a -> -ERR PUBLISH requires channel and message"),
    own("SPUBLISH", "SPUBLISH nobody two words -> 0"),
    own(
        "PUBSUB",
        r#"
        PUBSUB CHANNELS -> (empty list)
        PUBSUB NUMPAT -> 0
        PUBSUB NUMSUB a b -> a | 0 | b | 0
        PUBSUB SHARDCHANNELS s* -> (empty list)
        PUBSUB SHARDNUMSUB s -> s | 0
        "#,
    ),
    own("BITOP", "MSET a abc b A -> +OK\n BITOP OR d a b -> 3\n GET d -> abc\n BITOP NAND d a -> -ERR syntax error"),
    own("COPY", "SET a 1 -> +OK\n COPY a b -> 1\n COPY a b -> 0\n GET b -> 1"),
    own("DUMP", "DUMP nope -> -ERR key not found\n SET a 10 -> +OK\n DUMP a -> <..> | <rest>\n PING -> +PONG"),
    own("LCS", "MSET a ohmytext b mynewtext -> +OK\n LCS a b -> mytext\n LCS a b LEN -> 6"),
    own("LOLWUT", "LOLWUT VERSION 5 4 2 -> #### | # # | <empty> | kvlite ver. <..> Redis ver. <..>"),
    own("MSETEX", "MSETEX 2 a 1 b 2 EX 100 -> 1\n TTL b -> <99..100>\n MSETEX 1 a 1 NX -> 0\n MSETEX 0 a 1 -> -ERR <..>"),
    own("MSETNX", "MSETNX a 1 b 2 -> 1\n MSETNX b 3 c 4 -> 0\n MGET a b c -> 1 | 2 | (nil)"),
    own("PFADD", "PFADD a x y -> 1\n PFADD a x -> 0\n SET b 1 -> +OK\n PFADD b x -> -WRONGTYPE <..>"),
    own("PFCOUNT", "PFADD a x y -> 1\n PFADD b y z -> 1\n PFCOUNT a b -> 3\n PFCOUNT nope -> 0"),
    own("PFDEBUG", "PFADD a x -> 1\n PFDEBUG ENCODING a -> +sparse\n PFDEBUG TODENSE a -> 1\n PFDEBUG NOPE a -> -ERR <..>"),
    own("PFMERGE", "PFADD a x y -> 1\n PFMERGE b a -> +OK\n PFCOUNT b -> 2"),
    own("PFSELFTEST", "PFSELFTEST -> +OK"),
    own("RANDOMKEY", "RANDOMKEY -> -ERR key not found\n SET a 1 -> +OK\n RANDOMKEY -> a"),
    own("RENAME", "RENAME a b -> -ERR no such key\n SET a 1 -> +OK\n RENAME a b -> +OK\n GET b -> 1"),
    own("RENAMENX", "MSET a 1 b 2 -> +OK\n RENAMENX a b -> 0\n RENAMENX a c -> 1\n GET c -> 1"),
    own("RESTORE", "SET a 1 -> +OK\n RESTORE a 0 x -> -BUSYKEY <..>\n RESTORE b 0 x -> -ERR DUMP payload <..>"),
    own("GETSET", "GETSET a one -> -ERR key not found\n GETSET a two words -> one\n GET a -> two words"),
    own("SUBSTR", "SET a Hello -> +OK\n SUBSTR a 1 -2 -> ell"),
    own(
        "PEXPIRE",
        "SET a 1 -> +OK\n PEXPIRE a 100000 -> 1\n PTTL a -> <90000..100000>\n PEXPIRE a 0 -> -ERR invalid TTL\n GET a -> 1",
    ),
    own(
        "EXPIREAT",
        r#"
        SET a 1 -> +OK
        EXPIREAT a 33000000000 -> 1
        EXPIRETIME a -> 33000000000
        EXPIREAT a 0 -> -ERR invalid TTL
        EXPIREAT a soon -> -ERR invalid TTL
        EXPIREAT a 1000000000 -> 1
        GET a -> -ERR key not found
        "#,
    ),
    own(
        "PEXPIREAT",
        "SET a 1 -> +OK\n PEXPIREAT a 33000000000499 -> 1\n PEXPIRETIME a -> 33000000000499\n PEXPIREAT a -1 -> -ERR invalid TTL",
    ),
    own("EXPIRETIME", "EXPIRETIME a -> -2\n SET a 1 -> +OK\n EXPIRETIME a -> -1"),
    own("PEXPIRETIME", "PEXPIRETIME a -> -2\n SET a 1 -> +OK\n PEXPIRETIME a -> -1"),
    own("TYPE", "TYPE a -> +none\n SET a 1 -> +OK\n TYPE a -> +string"),
    own("TOUCH", "MSET a 1 b 2 c 3 -> +OK\n TOUCH a b c nope -> 3"),
    own("UNLINK", "MSET a 1 b 2 c 3 -> +OK\n UNLINK a b nope -> 2\n UNLINK c -> +OK\n UNLINK c -> -ERR key not found"),
    own(
        "OBJECT",
        "SET a 1 -> +OK\n OBJECT ENCODING a -> int\n OBJECT REFCOUNT a -> 1\n OBJECT IDLETIME nope -> -ERR key not found",
    ),
    own("DELIFEQ", "SET a one two -> +OK\n DELIFEQ a one -> 0\n DELIFEQ a one two -> 1\n GET a -> -ERR key not found"),
    own("TIME", "TIME -> <1700000000..> | <0..999999>"),
    own("SETBIT", "SETBIT a 6 1 -> 0\n SETBIT a 1 1 -> 0\n GET a -> B\n SETBIT a -1 1 -> -ERR bit offset is not an integer or out of range"),
    own("GETBIT", "SET a B -> +OK\n GETBIT a 1 -> 1\n GETBIT a 2 -> 0\n GETBIT nope 2 -> 0"),
    own("BITCOUNT", "SET a foobar -> +OK\n BITCOUNT a -> 26\n BITCOUNT a 5 30 BIT -> 17"),
    own("BITPOS", "SET a B -> +OK\n BITPOS a 1 -> 1\n BITPOS a 1 2 -1 BIT -> 6\n BITPOS nope 1 -> -1"),
    own("BITFIELD", "BITFIELD a SET u8 0 255 OVERFLOW FAIL INCRBY u8 0 1 GET i8 0 -> 0 | (nil) | -1\n BITFIELD a -> (empty list)"),
    own("BITFIELD_RO", "SET a B -> +OK\n BITFIELD_RO a GET u8 0 -> 66"),
    own("ANALYTICS", "ANALYTICS STATUS -> +OK memory_bytes=<1..16777216> <..>\n ANALYTICS RESET -> +OK"),
    own(
        "ANALYZE",
        r#"
        ANALYZE nope -> -ERR key not found
        SET a 1 -> +OK
        GET a -> 1
        GET a -> 1
        ANALYZE a -> +OK reads=2 writes=1 last_access=20<..>T<..>Z created=20<..>T<..>Z size=1 ttl=-1 <..>
        "#,
    ),
    own("ANOMALIES", "ANOMALIES -> <..>"),
    own(
        "CACHE-ADVICE",
        "CACHE-ADVICE -> now (bytes=<1..> hit_ratio=<..>) | 1/4 (<..>) | 1/2 (<..>) | 1 (<..>) | 2 (<..>) | 4 (<..>)",
    ),
    own(
        "COLDKEYS",
        r#"
        COLDKEYS 0 -> (empty list)
        MSET a 1 b 12 -> +OK
        COLDKEYS 0 -> b (bytes=3 idle=<0..>) | a (bytes=2 idle=<0..>)
        COLDKEYS ten -> -ERR value is not an integer
        "#,
    ),
    own(
        "HOTKEYS",
        r#"
        HOTKEYS -> (empty list)
        MSET a 1 "b c" 2 -> +OK
        MGET a a nope -> 1 | 1 | (nil)
        HOTKEYS 1 -> a (reads=2 writes=1)
        HOTKEYS 9 BY writes -> any order: a (reads=2 writes=1) | b c (reads=0 writes=1)
        HOTKEYS 9 -> a (reads=2 writes=1) | <..> | <..>
        HOTKEYS 1 EXPLAIN -> a (reads=2 writes=1 recent_reads=2 recent_writes=1 recent_misses=0 recent_bytes=3 error=0 missing=false)
        GET nope -> -ERR key not found
        GET nope -> -ERR key not found
        GET nope -> -ERR key not found
        HOTKEYS 1 -> nope (reads=0 writes=0 misses=4)
        HOTKEYS 0 -> -ERR invalid count
        HOTKEYS many -> -ERR invalid count
        "#,
    ),
    own("PREFIXES", "SET user:1 x -> +OK\n PREFIXES -> <..> (keys=1 bytes=7 reads=0 writes=1 <..>)"),
    own(
        "SUGGEST-TTL",
        r#"
        SUGGEST-TTL a -> -ERR analytics not enabled or insufficient data<..>
        SUGGEST-TTL a EXPLAIN -> (nil) (reason=<..> class=<..>)
        "#,
    ),
    own(
        "APPEND",
        r#"
        APPEND msg Hello -> 5
        APPEND msg " world" -> 11
        GET msg -> Hello world
        APPEND msg and  two  blanks -> 27
        GET msg -> Hello worldand  two  blanks
        "#,
    ),
    own(
        "CLEAR",
        "MSET a 1 b 2 c 3 -> +OK\n CLEAR -> +OK\n KEYS * -> (empty list)\n GET a -> -ERR key not found",
    ),
    own(
        "CLIENT",
        r#"
        CLIENT SETNAME reporter -> +OK
        CLIENT GETNAME -> reporter
        CLIENT ID -> <1..>
        CLIENT SETINFO LIB-NAME probe -> +OK
        CLIENT INFO -> <..>name=reporter<..>
        CLIENT NOPE -> -ERR <..>
        "#,
    ),
    own(
        "BACKUP",
        r#"
        BACKUP -> -ERR BACKUP requires path
        BACKUP a b -> -ERR no directory for backups: start the server with --backup-dir DIR (KVLITE_BACKUP_DIR)
        "#,
    ),
    own(
        "BGREWRITEAOF",
        r#"
        COMPACT -> +OK
        BGREWRITEAOF -> +Background append only file rewriting started
        COMPACT -> +OK
        "#,
    ),
    own(
        "BGSAVE",
        r#"
        BGSAVE NOPE -> -ERR syntax error
        COMPACT -> +OK
        BGSAVE -> +Background saving started
        COMPACT -> +OK
        BGSAVE schedule -> +Background saving started
        COMPACT -> +OK
        "#,
    ),
    own("LASTSAVE", "LASTSAVE -> <1600000000..9999999999>"),
    own("SAVE", "SET a 1 -> +OK\n SAVE -> +OK\n GET a -> 1"),
    own("COMMAND", "COMMAND COUNT -> <30..1000>\n COMMAND LIST -> <..> | <rest>\n COMMAND NOPE -> -ERR <..>"),
    own(
        "COMPACT",
        "SET a 1 -> +OK
         COMPACT -> +OK
         GET a -> 1
         compact when -> +OK reason=short-log log_percent=0 load=<0..> forecast=(nil) lowest=(nil) hour=(nil) hours_known=0
         COMPACT NOW -> -ERR <..>",
    ),
    own(
        "CONFIG",
        "CONFIG SET auto-ttl \"a:* 90s\" -> +OK\n CONFIG GET auto-ttl -> a:* 90s\n CONFIG SET auto-ttl \"\" -> +OK\n \
         CONFIG SET max-connections 90 timeout 0 -> +OK\n CONFIG GET maxclients -> 90\n CONFIG RESETSTAT -> +OK\n \
         CONFIG REWRITE -> -ERR The server is running without a config file\n CONFIG GET host -> 127.0.0.1\n CONFIG GET port -> <1..65535>\n CONFIG GET nope -> -ERR <..>",
    ),
    own("DBSIZE", "DBSIZE -> 0\n MSET a 1 b 2 c 3 -> +OK\n DBSIZE -> 3"),
    own("DECR", "DECR a -> -1\n DECR a -> -2\n SET b ten -> +OK\n DECR b -> -ERR value is not an integer"),
    own("DECRBY", "DECRBY a 5 -> -5\n DECRBY a -7 -> 2\n DECRBY a x -> -ERR <..>\n GET a -> 2"),
    own(
        "DEL",
        "SET a 1 -> +OK\n DEL a -> +OK\n DEL a -> -ERR key not found\n MSET a 1 b 2 -> +OK\n DEL a b c -> 2",
    ),
    own(
        "DELETE",
        "SET a 1 -> +OK\n DELETE a -> +OK\n DELETE a -> -ERR key not found\n GET a -> -ERR key not found",
    ),
    own(
        "ECHO",
        r#"
        ECHO hello -> hello
        ECHO two  words -> two  words
        ECHO "quoted \"word\"" -> quoted "word"
        "#,
    ),
    own("EXISTS", "EXISTS a -> 0\n SET a 1 -> +OK\n EXISTS a -> 1\n SET b 1 -> +OK\n EXISTS a b nope -> 2"),
    own(
        "EXPIRE",
        r#"
        EXPIRE nope 10 -> 0
        SET a 1 -> +OK
        EXPIRE a 100 -> 1
        TTL a -> <99..100>
        EXPIRE a 0 -> -ERR invalid TTL
        EXPIRE a -1 -> -ERR invalid TTL
        EXPIRE a ten -> -ERR <..>
        GET a -> 1
        "#,
    ),
    own("FLUSHALL", "MSET a 1 b 2 c 3 -> +OK\n FLUSHALL -> +OK\n DBSIZE -> 0"),
    own("FLUSHDB", "MSET a 1 b 2 c 3 -> +OK\n FLUSHDB -> +OK\n DBSIZE -> 0"),
    own("GET", "GET nope -> -ERR key not found\n SET a b -> +OK\n GET a -> b\n get a -> b\n GeT a -> b"),
    own("GETDEL", "SET a one two -> +OK\n GETDEL a -> one two\n GETDEL a -> -ERR key not found\n EXISTS a -> 0"),
    own("GETEX", "SET a one two -> +OK\n GETEX a EX 100 -> one two\n TTL a -> <99..100>\n GETEX nope -> -ERR key not found"),
    own("GETRANGE", "SET a Hello -> +OK\n GETRANGE a 1 -2 -> ell\n GETRANGE nope 0 -1 -> \"\""),
    own("HEALTH", "HEALTH -> {\"status\":\"healthy\",\"keys\":0,<..>\"wal_healthy\":true<..>}"),
    own("HELLO", "HELLO -> <..> | <rest>\n HELLO 99 -> -<..>\n PING -> +PONG"),
    own(
        "INCR",
        r#"
        INCR a -> 1
        INCR a -> 2
        SET text ten -> +OK
        INCR text -> -ERR value is not an integer
        SET high 9223372036854775807 -> +OK
        INCR high -> -ERR <..>
        GET high -> 9223372036854775807
        "#,
    ),
    own("INCRBY", "INCRBY a 5 -> 5\n INCRBY a -7 -> -2\n INCRBY a x -> -ERR <..>\n GET a -> -2"),
    own("INCRBYFLOAT", "INCRBYFLOAT a 10.5 -> 10.5\n INCRBYFLOAT a 0.1 -> 10.6\n INCRBYFLOAT a x -> -ERR value is not a valid float"),
    own(
        "HELP",
        r#"
        HELP -> bitmap: <..> | <rest>
        HELP get -> GET key | Returns the value of a key. | <rest>
        HELP config resetstat -> CONFIG RESETSTAT | Has INFO count from zero again. | Time: O(1) |   CONFIG RESETSTAT
        HELP nope -> -ERR Invalid command specified
        HELP a b c -> -ERR <..>
        "#,
    ),
    own("INFO", "MSET a 1 b 2 c 3 -> +OK\n INFO -> +OK keys=3 connections=<1..> wal_size=<1..>"),
    own(
        "KEYS",
        r#"
        KEYS * -> (empty list)
        MSET user:1 a user:2 b order:1 c -> +OK
        KEYS user:* -> any order: user:1 | user:2
        KEYS * -> any order: user:1 | user:2 | order:1
        KEYS *:1 -> any order: user:1 | order:1
        KEYS nope* -> (empty list)
        "#,
    ),
    own("MOVE", "SET a 1 -> +OK\n MOVE a 1 -> 1\n MOVE a 1 -> 0\n MOVE a -> -ERR MOVE requires key and database index"),
    own("SWAPDB", "SET a 1 -> +OK\n SWAPDB 0 1 -> +OK\n DBSIZE -> 0\n SWAPDB 0 1 -> +OK\n GET a -> 1"),
    own("MDEL", "MSET a 1 b 2 c 3 -> +OK\n MDEL a b nope -> 2\n MDEL c -> 1\n MDEL c -> 0"),
    own(
        "MEMORY",
        r#"
        SET a 0123456789012345678901234567890123456789 -> +OK
        MEMORY USAGE a -> <55..90>
        MEMORY STATS -> +OK peak.allocated=<1000..> total.allocated=<1000..> startup.allocated=0 replication.backlog=0 clients.slaves=0 clients.normal=<0..> cluster.links=0 overhead.total=<1000..> keys.count=1 keys.bytes-per-key=<100..> dataset.bytes=<100..> dataset.percentage=<..> peak.percentage=<..> analytics.bytes=<1000..> resident.bytes=<100000..> fragmentation=<..>
        MEMORY PURGE -> +OK
        MEMORY USAGE nope -> -ERR key not found
        MEMORY USAGE -> -ERR wrong number of arguments for 'memory|usage' command
        "#,
    ),
    own("MGET", "MSET a 1 b 2 -> +OK\n MGET a b nope a -> 1 | 2 | (nil) | 1\n MGET nope -> (nil)"),
    own(
        "MSET",
        r#"
        MSET a 1 b "two words" c 'it\'s' -> +OK
        MGET a b c -> 1 | two words | it's
        MSET a -> -ERR MSET requires key value pairs
        MSET a 9 z -> -ERR MSET requires key value pairs
        MGET a z -> 1 | (nil)
        "#,
    ),
    own("PERSIST", "SET a 1 -> +OK\n PERSIST a -> 0\n EXPIRE a 100 -> 1\n PERSIST a -> 1\n TTL a -> -1"),
    own("PSYNC", "PSYNC ? -1 -> -ERR there is no replication yet<..>\n PING -> +PONG"),
    own("REPLCONF", "REPLCONF capa eof -> -ERR there is no replication yet<..>\n PING -> +PONG"),
    own("KVLITE.SYNC", "SET a 1 -> +OK\n KVLITE.SYNC -> +OK"),
    own("RESET", "CLIENT SETNAME n -> +OK\n RESET -> +RESET\n CLIENT GETNAME -> -ERR key not found"),
    own("PING", "PING -> +PONG\n ping -> +PONG\n PING hello -> hello"),
    own("PSETEX", "PSETEX s 100000 two words -> +OK\n GET s -> two words\n PSETEX s 0 v -> -ERR invalid TTL"),
    own(
        "PTTL",
        "PTTL nope -> -2\n SET a 1 -> +OK\n PTTL a -> -1\n SETEX a 100 1 -> +OK\n PTTL a -> <90000..100000>",
    ),
    own("QUIT", "QUIT -> +OK goodbye\n (closed)"),
    own(
        "SCAN",
        r#"
        MSET a 1 b 2 c 3 -> +OK
        SCAN 0 MATCH a* COUNT 100 -> <0..> | <rest>
        SCAN abc -> -ERR <..>
        SCAN 0 COUNT 0 -> -ERR <..>
        "#,
    ),
    own(
        "SELECT",
        r#"
        SET a 0 -> +OK
        SELECT 1 -> +OK
        GET a -> -ERR key not found
        SET a 1 -> +OK
        KEYS * -> a
        SELECT 16 -> -ERR DB index is out of range
        SELECT abc -> -ERR database index is not an integer
        SELECT 0 -> +OK
        GET a -> 0
        SELECT 1 -> +OK
        CLEAR -> +OK
        SELECT 0 -> +OK
        DBSIZE -> 0
        "#,
    ),
    own(
        "SET",
        r#"
        SET a 1 -> +OK
        GET a -> 1
        SET greeting "Hello, World!" -> +OK
        GET greeting -> Hello, World!
        SET a x EX 10 -> +OK
        GET a -> x EX 10
        TTL a -> -1
        SET a {"a": "b  c"} -> +OK
        GET a -> {"a": "b  c"}
        SET a "" -> +OK
        STRLEN a -> 0
        SET "two words" v -> +OK
        GET "two words" -> v
        SET a 'single "quoted"' -> +OK
        GET a -> single "quoted"
        SET a "not closed -> +OK
        GET a -> "\"not closed"
        "#,
    ),
    own(
        "SETEX",
        r#"
        SETEX s 100 two words -> +OK
        GET s -> two words
        TTL s -> <99..100>
        SETEX s 0 v -> -ERR invalid TTL
        GET s -> two words
        "#,
    ),
    own("SETNX", "SETNX a one two -> 1\n SETNX a three -> 0\n GET a -> one two"),
    own("SETRANGE", "SETRANGE a 0 one two -> 7\n SETRANGE a 4 six -> 7\n GET a -> one six"),
    own(
        "STATS",
        "SET a 1 -> +OK\n GET a -> 1\n \
         STATS -> +OK keys=1 connections=<1..> wal_size=<1..> wal_entries=<0..> needs_compaction=false ttl_expired=<0..> ttl_checks=<0..> reads=<1..> writes=<1..><..>",
    ),
    own("STRLEN", "STRLEN nope -> 0\n EXISTS nope -> 0\n SET a Hello -> +OK\n STRLEN a -> 5"),
    own("SYNC", "SET a 1 -> +OK\n SYNC -> +OK"),
    own("WAITAOF", "SET a 1 -> +OK\n WAITAOF 1 0 0 -> 1 | 0\n WAITAOF 2 0 0 -> -ERR value is out of range<..>"),
    own("TTL", "TTL nope -> -2\n SET a 1 -> +OK\n TTL a -> -1\n SETEX a 100 v -> +OK\n TTL a -> <99..100>"),
    own(
        "EXEC",
        r#"
        EXEC -> -ERR EXEC without MULTI
        MULTI -> +OK
        EXEC -> (empty list)
        MULTI -> +OK
        SET a hello world -> +QUEUED
        GET a -> +QUEUED
        GET nope -> +QUEUED
        MGET a nope -> +QUEUED
        INCR a -> +QUEUED
        EXEC -> +OK | hello world | -ERR key not found | hello world | (nil) | -ERR value is not an integer
        MULTI -> +OK
        NOPE -> -ERR unknown command 'NOPE'
        EXEC -> -ERR transaction discarded because of previous errors
        MULTI -> +OK
        EXEC now -> -ERR transaction discarded because of: wrong number of arguments<..>
        "#,
    ),
    own("DISCARD", "DISCARD -> -ERR DISCARD without MULTI\n MULTI -> +OK\n SET a 1 -> +QUEUED\n DISCARD -> +OK\n EXISTS a -> 0"),
    own("MULTI", "MULTI -> +OK\n MULTI -> -ERR MULTI calls can not be nested\n SET a 1 -> +QUEUED\n COMPACT -> -ERR Command not allowed inside a transaction\n DISCARD -> +OK"),
    own("UNWATCH", "WATCH a -> +OK\n SET a 1 -> +OK\n UNWATCH -> +OK\n MULTI -> +OK\n EXEC -> (empty list)"),
    own("WATCH", "WATCH a -> +OK\n SET a 1 -> +OK\n MULTI -> +OK\n GET a -> +QUEUED\n EXEC -> (nil)\n WATCH -> -ERR WATCH requires key"),
];

fn all_scripts_pass(shards: usize, flags: &[&str]) {
    if let Ok(address) = std::env::var("KVLITE_TEST_RESP_ADDR") {
        let address: SocketAddr = address.parse().expect("KVLITE_TEST_RESP_ADDR is HOST:PORT");
        return against(address, shards);
    }
    let server = Server::start(shards, flags);
    let mut sweeper = server.resp();
    let mut failures = String::new();
    for script in RESP {
        sweeper.ask("FLUSHALL");
        failures += &run_resp(script.command, script.lines, &mut server.resp());
    }
    for script in TEXT {
        sweeper.ask("FLUSHALL");
        failures += &run_text(script.command, script.lines, &mut server.text());
    }
    assert!(failures.is_empty(), "with {shards} shards\n{failures}{}", server.log.tail());
    arity_is_checked(&server);
}

/// Runs the scripts of Redis's own commands there, once.
fn against(address: SocketAddr, shards: usize) {
    if shards != 1 {
        return;
    }
    let log = Log::elsewhere();
    let mut failures = String::new();
    for script in RESP.iter().filter(|script| !script.kvlite_only) {
        Resp::connect(address, &log).ask("FLUSHALL");
        failures += &run_resp(script.command, script.lines, &mut Resp::connect(address, &log));
    }
    assert!(failures.is_empty(), "against {address}\n{failures}");
}

fn arity_is_checked(server: &Server) {
    let (mut resp, mut text) = (server.resp(), server.text());
    for row in TABLE {
        let lower = row.name.to_lowercase();
        let mut resp_error = format!("-ERR wrong number of arguments for '{lower}' command");
        let mut text_error = format!("-ERR {} requires {}", row.name, row.needs);
        if row.name == "EXEC" {
            // It says so of itself whether there is a transaction or not, as in Redis.
            let reason = resp_error.trim_start_matches("-ERR ");
            resp_error = format!("-EXECABORT Transaction discarded because of: {reason}");
            text_error = text.ask_one("EXEC 1");
            assert!(text_error.starts_with("-ERR transaction discarded because of: "), "{text_error}");
        }
        if row.args_min > 0 {
            assert_eq!(resp.ask(row.name).to_string(), resp_error);
            assert_eq!(text.ask_one(row.name), text_error);
        }
        if row.args_min == row.args_max && row.rest_of_line.is_none() {
            let many = format!("{}{}", row.name, " 1".repeat(row.args_max + 1));
            assert_eq!(resp.ask(&many).to_string(), resp_error);
            assert_eq!(text.ask_one(&many), text_error);
        }
    }
    assert_eq!(resp.ask("PING").to_string(), "+PONG", "the connection is still good");
    assert_eq!(text.ask_one("PING"), "+PONG", "the connection is still good");
}

#[test]
fn scripts_pass_with_one_shard() {
    all_scripts_pass(1, &[]);
}

#[test]
fn scripts_pass_with_two_shards() {
    all_scripts_pass(2, &[]);
}

#[test]
fn scripts_pass_with_five_shards() {
    all_scripts_pass(5, &[]);
}

#[test]
fn scripts_pass_when_every_answer_waits_for_the_disk() {
    all_scripts_pass(2, &["--sync-mode", "always"]);
}

#[test]
fn a_suggested_time_to_live_is_applied_to_its_class() {
    let server = Server::start(2, &[]);
    let mut resp = server.resp();
    let keys = (0..50).map(|number| format!(" session:{number}")).collect::<String>();
    for key in keys.split_whitespace() {
        assert_eq!(resp.ask(&format!("SET {key} a")).to_string(), "+OK");
    }
    (0..40).for_each(|_| drop(resp.ask(&format!("MGET{keys}"))));
    // Uses follow each other at once; what is left to wait for is that this was watched for some seconds.
    let script = "eventually SUGGEST-TTL CLASS session:* APPLY -> 1..9\n SET session:1 b -> +OK\n SET session:2 b -> +OK\n \
                  SET session:3 b -> +OK\n TTL session:1 -> 0..9\n TTL session:2 -> 0..9\n TTL session:3 -> 0..9\n \
                  SET user:1 b -> +OK\n TTL user:1 -> -1\n CONFIG GET auto-ttl -> [*, ~\"session:* \"]";
    let failures = run_resp("SUGGEST-TTL", script, &mut resp);
    assert!(failures.is_empty(), "{failures}{}", server.log.tail());
}

#[test]
fn without_analytics_their_commands_say_so() {
    let server = Server::start(2, &["--enable-analytics=false"]);
    let off = "-ERR analytics not enabled; start the server with --enable-analytics";
    let (mut resp, mut text) = (server.resp(), server.text());
    resp.ask("SET a 1");
    for request in
        ["ANALYZE a", "ANALYZE nope", "HOTKEYS", "COLDKEYS 1", "PREFIXES", "CACHE-ADVICE", "ANOMALIES"]
            .into_iter()
            .chain(["SUGGEST-TTL a", "SUGGEST-TTL CLASS a:*", "ANALYTICS STATUS", "ANALYTICS RESET"])
    {
        assert_eq!(resp.ask(request).to_string(), off, "{request}");
        assert_eq!(text.ask_one(request), off, "{request}");
    }
    assert_eq!(resp.ask("GET a").to_string(), "\"1\"");
}

/// What another client does to a watched key, in whatever way, and that it goes by itself.
#[test]
fn what_is_watched_is_noticed_from_elsewhere() {
    for shards in [1, 3] {
        let server = Server::start(shards, &[]);
        let (mut watching, mut other) = (server.resp(), server.resp());
        let changes = [
            "SET w 2",
            "INCR w",
            "APPEND w x",
            "EXPIRE w 100",
            "MSET a 1 w 1 b 1 c 1",
            "DEL a w b c",
            "RENAME z w",
            "COPY z w REPLACE",
            "RENAME w other",
            "BITOP AND w z z",
            "FLUSHDB",
            "SWAPDB 0 1",
            "PEXPIRE w 1",
        ];
        for change in changes {
            watching.ask("FLUSHALL");
            other.ask("MSET w 1 z 1");
            assert_eq!(watching.ask("WATCH untouched:1 w untouched:2").to_string(), "+OK");
            let changed = other.ask(change);
            assert!(!matches!(changed, Value::Error(_)), "{change}: {changed}");
            let is_gone = |other: &mut Resp| other.ask("EXISTS w").integer() == 0;
            assert!(change != "PEXPIRE w 1" || within_deadline(|| is_gone(&mut other)));
            watching.ask("MULTI");
            watching.ask("SET untouched:1 1");
            assert_eq!(watching.ask("EXEC").to_string(), "nil-array", "{change}, {shards} shards");
            // Nothing stays watched.
            watching.ask("MULTI");
            assert_eq!(watching.ask("EXEC").to_string(), "[]");
        }
        for harmless in
            ["GET w", "MGET w z", "EXISTS w", "DEL nope", "PERSIST w", "MSETNX w 1 y 1", "TOUCH w"]
        {
            other.ask("SET w 1");
            watching.ask("WATCH w");
            other.ask(harmless);
            watching.ask("MULTI");
            assert_eq!(watching.ask("EXEC").to_string(), "[]", "{harmless}, {shards} shards");
        }
    }
}

/// A transaction has a bound, which is told at the command that exceeds it; what comes before costs no long turn.
#[test]
fn a_transaction_of_very_many_commands_is_run_or_refused_as_a_whole() {
    let server = Server::start(2, &[]);
    let mut resp = server.resp();
    let incr = encoded(&["INCR", "n"]);
    let mut run = |count: usize| {
        resp.ask("MULTI");
        let mut last = Value::Nil;
        for chunk in 0..count.div_ceil(4096) {
            let commands = 4096.min(count - chunk * 4096);
            resp.wire.send(&incr.repeat(commands));
            for _ in 0..commands {
                last = resp.read();
            }
        }
        (last.to_string(), resp.ask("EXEC"))
    };
    let (queued, replies) = run(5000);
    assert_eq!(queued, "+QUEUED");
    assert!(replies.items().iter().zip(1..=5000).all(|(reply, number)| reply.integer() == number));
    let (queued, replies) = run((256 << 10) + 1);
    assert_eq!(queued, "-ERR a transaction has 262144 commands and 256 MiB at most: EXEC will run nothing");
    assert!(replies.to_string().starts_with("-EXECABORT "), "{replies}");
    assert_eq!(resp.ask("GET n").to_string(), "\"5000\"");
}

#[test]
fn every_command_has_a_script_on_both_protocols() {
    for row in TABLE {
        assert!(RESP.iter().any(|script| script.command == row.name), "{} has no RESP script", row.name);
        assert!(TEXT.iter().any(|script| script.command == row.name), "{} has no text script", row.name);
    }
    for script in RESP.iter().chain(TEXT) {
        let name = script.command;
        assert!(TABLE.iter().any(|row| row.name == name), "a script is about {name}, which is no command");
        assert!(script.lines.to_uppercase().contains(name), "the script of {name} does not ask it");
    }
}
