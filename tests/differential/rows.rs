//! What is sent: of every command the forms of its arguments, and how its replies are compared.
//!
//! A form is words between blanks. `(a|b)` is one of several, `[a b]` is there or not, `a+` is there once or more often.
//! Words in capitals stand for themselves, in any case; the others are classes of the generator.

use crate::compare::Check::{self, Exact, Ignored, Near, Shape, Sorted};

/// One form of a command.
pub struct Row {
    /// The command, with its subcommand.
    pub name: &'static str,
    /// Its arguments.
    pub form: &'static str,
    /// How its replies are compared.
    pub check: Check,
    /// How often it is sent beside the others.
    pub weight: u32,
    /// Which connections send it.
    pub by: By,
}

/// Who sends a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Those that never subscribe.
    Any,
    /// The one that does.
    Subscriber,
    /// Both.
    All,
}

const fn row(name: &'static str, form: &'static str) -> Row {
    Row { name, form, check: Exact, weight: 4, by: By::Any }
}

impl Row {
    const fn check(mut self, check: Check) -> Row {
        self.check = check;
        self
    }

    const fn weight(mut self, weight: u32) -> Row {
        self.weight = weight;
        self
    }

    const fn by(mut self, by: By) -> Row {
        self.by = by;
        self
    }
}

/// All of them.
pub const ROWS: &[Row] = &[
    // Strings and counters
    row("SET", "key value").weight(30),
    row("SET", "key value [(NX|XX)] [GET] [(EX seconds|PX ms|EXAT at|PXAT atms|KEEPTTL)]").weight(12),
    row("GET", "key").weight(12),
    row("GETSET", "key value"),
    row("GETDEL", "key"),
    row("GETEX", "key [(EX seconds|PX ms|EXAT at|PXAT atms|PERSIST)]").weight(6),
    row("SETNX", "key value"),
    row("SETEX", "key seconds value"),
    row("PSETEX", "key ms value"),
    row("MSET", "pair+"),
    row("MSETNX", "pair+"),
    row("MGET", "key+"),
    row("APPEND", "key value"),
    row("STRLEN", "key"),
    row("SETRANGE", "key offset value"),
    row("GETRANGE", "key index index"),
    row("SUBSTR", "key index index"),
    row("INCR", "key"),
    row("DECR", "key"),
    row("INCRBY", "key integer"),
    row("DECRBY", "key integer"),
    row("INCRBYFLOAT", "key float").weight(6),
    row("LCS", "key key [(LEN|IDX)] [MINMATCHLEN small] [WITHMATCHLEN]"),
    // Bits
    row("SETBIT", "key offset bit").weight(6),
    row("GETBIT", "key offset"),
    row("BITCOUNT", "key [index index [(BIT|BYTE)]]").weight(6),
    row("BITPOS", "key bit [index [index [(BIT|BYTE)]]]").weight(6),
    row("BITOP", "(AND|OR|XOR|NOT) key key+"),
    row("BITOP", "NOT key key"),
    row("BITFIELD", "key bitfield+").weight(8),
    row("BITFIELD_RO", "key bitget+"),
    row("PFADD", "key value+"),
    row("PFADD", "hll value+").weight(8),
    row("PFCOUNT", "hll+"),
    row("PFMERGE", "hll hll+"),
    row("PFDEBUG", "(GETREG|DECODE|ENCODING|TODENSE) hll"),
    row("PFSELFTEST", "").weight(1),
    // Keys
    row("DEL", "key+"),
    row("UNLINK", "key+"),
    row("EXISTS", "key+"),
    row("TOUCH", "key+"),
    row("TYPE", "key"),
    row("RENAME", "key key"),
    row("RENAMENX", "key key"),
    row("COPY", "key key [REPLACE]"),
    row("COPY", "key key [DB db] [REPLACE]"),
    row("KEYS", "pattern").check(Sorted),
    row("DBSIZE", ""),
    row("RANDOMKEY", "").check(Shape),
    row("OBJECT", "(ENCODING|REFCOUNT) key"),
    row("OBJECT", "(FREQ|IDLETIME) key").check(Shape), // RESTORE may set them in Redis.
    row("OBJECT", "HELP").weight(1),
    row("DUMP", "key").check(Shape),
    row("RESTORE", "key ms dumped [REPLACE] [ABSTTL] [(IDLETIME integer|FREQ integer)]"),
    row("RESTORE", "key 0 dumped [REPLACE]"),
    row("SORT", "key").weight(1),
    // Deadlines
    row("EXPIRE", "key seconds [(NX|XX|GT|LT)]").weight(6),
    row("PEXPIRE", "key ms [(NX|XX|GT|LT)]"),
    row("EXPIREAT", "key at [(NX|XX|GT|LT)]"),
    row("PEXPIREAT", "key atms [(NX|XX|GT|LT)]"),
    row("EXPIRE", "key seconds (NX|XX|GT|LT) (NX|XX|GT|LT)").weight(2),
    row("TTL", "key").check(Near(2)),
    row("PTTL", "key").check(Near(3_000)),
    row("EXPIRETIME", "key").check(Near(2)),
    row("PEXPIRETIME", "key").check(Near(3_000)),
    row("PERSIST", "key"),
    // Databases
    row("SELECT", "db").weight(2),
    row("MOVE", "key db").weight(2),
    row("SWAPDB", "db db").weight(1),
    row("FLUSHDB", "[(SYNC|ASYNC)]").weight(1),
    row("FLUSHALL", "[(SYNC|ASYNC)]").weight(1),
    // Transactions: the generator opens and ends them too
    row("MULTI", "").weight(4),
    row("EXEC", "").weight(8),
    row("DISCARD", "").weight(2),
    row("WATCH", "key+").weight(4),
    row("UNWATCH", "").weight(2),
    // Scripts
    row("EVAL", "script2 2 key key value integer").weight(12),
    row("EVAL", "script0 0 value").weight(8),
    row("EVAL_RO", "script2 2 key key value integer").weight(3),
    row("EVALSHA", "sha2 2 key key value integer").weight(6),
    row("EVALSHA_RO", "sha2 2 key key value integer").weight(2),
    row("EVAL", "script0 small key value").weight(2),
    row("SCRIPT", "LOAD (script0|script2)").weight(3),
    row("SCRIPT", "EXISTS sha2+").weight(2),
    row("SCRIPT", "FLUSH [(SYNC|ASYNC)]").weight(1),
    row("SCRIPT", "(KILL|HELP)").weight(1),
    row("SCRIPT", "DEBUG NO").weight(1),
    row("FUNCTION", "LOAD [REPLACE] library").weight(4),
    row("FUNCTION", "DELETE (lib1|lib2|other)").weight(1),
    row("FUNCTION", "LIST [LIBRARYNAME (lib1|lib2|other)] [WITHCODE]").check(Sorted).weight(2),
    row("FUNCTION", "(HELP|FLUSH|KILL)").weight(1),
    row("FUNCTION", "STATS").weight(1),
    row("FCALL", "(set_it|bad_it|get_it|other) 1 key value").weight(4),
    row("FCALL_RO", "(set_it|bad_it|get_it|other) 1 key value").weight(3),
    // Messages
    row("PUBLISH", "channel value").weight(6),
    row("SPUBLISH", "channel value").weight(2),
    row("PUBSUB", "CHANNELS [pattern]").check(Sorted).by(By::All).weight(2),
    row("PUBSUB", "SHARDCHANNELS [pattern]").check(Sorted).by(By::All).weight(2),
    row("PUBSUB", "NUMSUB channel+").by(By::All).weight(2),
    row("PUBSUB", "SHARDNUMSUB channel+").by(By::All).weight(2),
    row("PUBSUB", "(NUMPAT|HELP)").by(By::All).weight(2),
    row("SUBSCRIBE", "channel+").by(By::Subscriber).weight(12),
    row("UNSUBSCRIBE", "[channel+]").by(By::Subscriber).weight(8),
    row("PSUBSCRIBE", "pattern+").by(By::Subscriber).weight(8),
    row("PUNSUBSCRIBE", "[pattern+]").by(By::Subscriber).weight(6),
    row("SSUBSCRIBE", "channel").by(By::Subscriber).weight(6),
    row("SUNSUBSCRIBE", "[channel]").by(By::Subscriber).weight(4),
    // The connection
    row("PING", "[value]").by(By::All),
    row("ECHO", "value").weight(2),
    row("HELLO", "[(2|3|4|odd)] [SETNAME name]").check(Ignored).by(By::All).weight(2),
    row("AUTH", "value [value]").weight(1),
    row("RESET", "").by(By::All).weight(1),
    row("CLIENT", "SETNAME name").weight(1),
    row("CLIENT", "GETNAME").weight(1),
    row("CLIENT", "ID").check(Shape).weight(1),
    row("CLIENT", "(LIST|INFO)").check(Shape).weight(1),
    row("CLIENT", "LIST (ID integer|TYPE (NORMAL|PUBSUB|MASTER|odd)|odd)").check(Shape).weight(1),
    row("CLIENT", "KILL (ID 9999999|ADDR 1.2.3.4:5|LADDR 1.2.3.4:5|TYPE odd|SKIPME (YES|NO|odd) ID 9999999|odd)").weight(1),
    row("CLIENT", "UNBLOCK 9999999 [(TIMEOUT|ERROR|odd)]").weight(1),
    row("CLIENT", "NO-EVICT (ON|OFF|odd)").weight(1),
    row("CLIENT", "(TRACKINGINFO|GETREDIR|HELP|UNPAUSE)").check(Sorted).weight(1),
    row("CLIENT", "CACHING (YES|NO|odd)").weight(1),
    row("CLIENT", "odd").weight(1),
    // The server
    row("COMMAND", "INFO command").check(Sorted).weight(4),
    row("COMMAND", "GETKEYS request").weight(4),
    row("COMMAND", "GETKEYSANDFLAGS request").weight(3),
    row("COMMAND", "(HELP|odd)").weight(1),
    row("CONFIG", "GET (maxmemory|maxmemory-policy|notify-keyspace-events|slowlog-max-len|proto-max-bulk-len|databases)").check(Sorted).weight(2),
    row("CONFIG", "SET notify-keyspace-events (KEA|Kx|Eg$|AKE|odd|none)").weight(2),
    row("CONFIG", "SET odd value").weight(1),
    row("CONFIG", "SET slowlog-max-len (integer|odd) maxmemory-policy (allkeys-lru|noeviction|odd)").weight(1),
    row("CONFIG", "(HELP|RESETSTAT|odd)").weight(1),
    row("SLOWLOG", "(HELP|RESET|odd|GET (-2|abc))").weight(1),
    row("LATENCY", "(HELP|RESET|LATEST|HISTORY odd|odd)").weight(1),
    row("MEMORY", "(HELP|PURGE|odd)").weight(1),
    row("MEMORY", "USAGE key [SAMPLES odd]").check(Shape).weight(1),
    row("TIME", "").check(Shape).weight(1),
    row("ROLE", "").weight(1),
    row("LASTSAVE", "").check(Shape).weight(1),
    row("WAIT", "0 (10|20|odd)").weight(1),
    row("REPLICAOF", "NO ONE").weight(1),
    row("DEBUG", "SET-ACTIVE-EXPIRE 0").weight(1),
    row("nonsense", "value+").weight(1),
];

/// Commands that both servers have and that are not sent, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("acl", "users are the server's own affair"),
    ("bgrewriteaof", "its file is its own affair; the tests of snapshots run it"),
    ("bgsave", "its file is its own affair; the tests of snapshots run it"),
    ("client|kill", "it is sent in forms that hit no client"),
    ("client|no-touch", "Redis 7.0 has none"),
    ("client|pause", "it stops the comparison itself"),
    ("client|reply", "replies that do not come cannot be counted"),
    ("client|setinfo", "Redis 7.0 has none"),
    ("client|tracking", "invalidations are not replies; tests/integration has them"),
    ("command|count", "the servers have different commands"),
    ("command|docs", "the sentences are kvlite's own"),
    ("command|list", "the servers have different commands"),
    ("config|rewrite", "Redis runs without a file"),
    ("failover", "there are no replicas"),
    ("function|dump", "a dump of another server's libraries is its own affair"),
    ("function|restore", "a dump of another server's libraries is its own affair"),
    ("info", "its figures are the server's own"),
    ("latency|doctor", "the sentences are kvlite's own"),
    ("latency|graph", "it shows times"),
    ("latency|histogram", "it shows times"),
    ("lolwut", "a picture of its own"),
    ("memory|doctor", "the sentences are kvlite's own"),
    ("memory|malloc-stats", "its figures are the allocator's"),
    ("memory|stats", "its figures are the server's own"),
    ("monitor", "its replies have no end"),
    ("psync", "there are no replicas"),
    ("quit", "it ends the connection; tests/integration has it"),
    ("replconf", "there are no replicas"),
    ("save", "its file is its own affair; the tests of snapshots run it"),
    ("scan", "its cursors differ; walks are compared as a whole"),
    ("shutdown", "it ends the comparison"),
    ("slowlog|get", "it shows times"),
    ("slaveof", "it is REPLICAOF, which is sent"),
    ("slowlog|len", "it depends on times"),
    ("sync", "there are no replicas"),
];

/// Scripts that take two keys, a value and an integer.
pub const SCRIPTS_OF_KEYS: &[&str] = &[
    "return redis.call('GET', KEYS[1])",
    "return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}",
    "redis.call('SET', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[2]) return redis.call('MGET', KEYS[1], KEYS[2])",
    "local n = redis.call('INCR', KEYS[1]) if n == 1 then redis.call('EXPIRE', KEYS[1], 1000) end return n",
    "return redis.pcall('INCRBY', KEYS[1], ARGV[2])",
    "local r = redis.pcall('INCR', KEYS[1]) if type(r) == 'table' and r.err then return 'told: ' .. r.err end return r",
    "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end return redis.call('TYPE', KEYS[2])",
    "return redis.call('DEL', unpack(KEYS))",
    "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('NONSENSE')",
    "redis.call('SET', KEYS[1], ARGV[1]) error('stopped')",
    "return redis.call('GET')",
    "return redis.call('APPEND', KEYS[1], ARGV[1])",
    "return redis.call('SETRANGE', KEYS[1], ARGV[2], ARGV[1])",
    "return redis.call('BITCOUNT', KEYS[1])",
    "local v = redis.call('GET', KEYS[1]) if v then return #v else return v end",
    "return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'GET')",
    "redis.setresp(3) return redis.call('GET', KEYS[1])",
    "redis.setresp(3) return redis.call('INCRBYFLOAT', KEYS[1], 1.5)",
    "return redis.call('PTTL', KEYS[1]) == -1",
    "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], ARGV[1])",
    "#!lua flags=allow-stale\nreturn redis.call('SET', KEYS[1], ARGV[1])",
];

/// Scripts without keys, and one value.
pub const SCRIPTS_ALONE: &[&str] = &[
    "return ARGV[1]",
    "return #ARGV[1]",
    "return {1, 2.9, 'three', true, false, nil, 4}",
    "return {map = {a = 1}}",
    "redis.setresp(3) return {map = {a = 1}}",
    "redis.setresp(3) return {double = 3.25}",
    "redis.setresp(3) return {set = {a = true}}",
    "redis.setresp(3) return true",
    "redis.setresp(3) return nil",
    "return redis.status_reply('FINE')",
    "return redis.error_reply('BAD thing')",
    "return redis.error_reply('bad')",
    "return {err = 'MY own'}",
    "return {ok = 'fine'}",
    "return redis.sha1hex(ARGV[1])",
    "return cjson.encode({1, 2, 'three', {a = true}})",
    "return cjson.decode('[1,2,{\"a\":null}]')[2]",
    "return cjson.decode(ARGV[1])",
    "return cmsgpack.pack({1, 2, 'three', {a = true}, 4.5})",
    "return cmsgpack.unpack(cmsgpack.pack({1, 2, 'three'}))",
    "return struct.pack('>I4s', 7, ARGV[1])",
    "return {struct.unpack('>I2', '\\1\\2')}",
    "return bit.bxor(12, 5)",
    "return bit.tohex(255, 4)",
    "return string.format('%5.2f|%d|%s', 3.14159, 42, ARGV[1])",
    "return {string.byte(ARGV[1], 1, 5)}",
    "return tostring(_G.nothing)",
    "nothing = 1 return 1",
    "return os.clock() >= 0",
    "return os.time()",
    "return io",
    "return print",
    "return loadstring('return 7')()",
    "return load",
    "return require('x')",
    "return {redis.REDIS_VERSION ~= nil, redis.LOG_WARNING}",
    "redis.log(redis.LOG_DEBUG, 'x') return redis.breakpoint and 1 or 0",
    "redis.log('x')",
    "redis.call()",
    "return redis.call('PING', ARGV[1])",
    "return redis.call('ECHO', {})",
    "return redis.call('SUBSCRIBE', 'a')",
    "return redis.call('MULTI')",
    "return redis.call('EVAL', 'return 1', 0)",
    "return redis.call('DBSIZE') >= 0",
    "return redis.call('PUBLISH', 'c1', ARGV[1])",
    "return redis.acl_check_cmd('GET', 'x')",
    "return redis.set_repl(redis.REPL_ALL)",
    "return redis.replicate_commands()",
    "return math.random and 1",
    "math.randomseed(7) return tostring(math.random(1000))",
    "return table.concat({1, 2, 3}, ARGV[1])",
    "return unpack({1, 2, 3})",
    "return 1 +",
    "return",
    "",
    "error('text')",
    "error({err = 'TABLE text'})",
    "return tonumber(ARGV[1])",
    "return 10 / 3",
    "return -1.9",
    "return 1e30",
    "return string.rep('x', 1000)",
    "return select('#', 1, nil, 3)",
    "return type(setmetatable({}, {__index = {}}))",
    "redis.x = 1 return 1",
    "string.x = 1 return 1",
    "setmetatable(_G, nil) return 1",
    "rawset(_G, 'x', 1) return 1",
    "local function f() return f() end return type(f)",
    "return pcall(function() error('x') end)",
    "return {pcall(redis.call, 'NONSENSE')}",
    "local ok, e = pcall(redis.call, 'NONSENSE') return type(e) == 'table' and e.err or e",
    "#!lua\nreturn 1",
    "#!lua flags=no-such\nreturn 1",
    "#!python\nreturn 1",
];

/// Libraries of functions.
pub const LIBRARIES: &[&str] = &[
    "#!lua name=lib1\nredis.register_function('set_it', function(keys, args) return redis.call('SET', keys[1], args[1]) end)",
    "#!lua name=lib2\nredis.register_function{function_name='get_it', callback=function(keys) return redis.call('GET', keys[1]) end, flags={'no-writes'}}\nredis.register_function('bad_it', function() return redis.call('NONSENSE') end)",
    "#!lua name=lib1\nreturn 1",
    "#!lua name=bad-name!\nreturn 1",
    "#!lua\nreturn 1",
    "#!lua name=lib3\nredis.call('SET', 'a', 'b')",
    "#!lua name=lib4\nredis.register_function('x', 1)",
    "#!lua name=lib5\nredis.register_function('set_it', function() end) redis.register_function('set_it', function() end)",
    "return 1",
];
