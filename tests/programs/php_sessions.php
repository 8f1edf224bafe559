<?php
// phpredis: sessions with locks, a transaction, a script, a scan.
[$host, $port] = [getenv("HOST"), (int) getenv("PORT")];
function check($what, $holds) { if (!$holds) { fwrite(STDERR, "php: $what\n"); exit(1); } }
ini_set("session.save_handler", "redis");
ini_set("session.save_path", "tcp://$host:$port?database=9&prefix=S:");
ini_set("redis.session.locking_enabled", "1");
ini_set("session.use_cookies", "0");
ini_set("session.cache_limiter", "");
session_id("abc");
check("start", session_start());
$_SESSION["user"] = 7;
check("write", session_write_close());
$_SESSION = [];
check("start again", session_start());
check("what was written", $_SESSION["user"] === 7);
session_write_close();
$redis = new Redis();
check("connect", $redis->connect($host, $port) && $redis->select(9));
check("session has a deadline", $redis->ttl("S:abc") > 0);
check("no lock is left", $redis->exists("S:abc_LOCK") === 0);
check("multi", $redis->multi()->set("a", 1)->incr("a")->get("a")->exec() === [true, 2, "2"]);
check("script", $redis->eval("return {KEYS[1], ARGV[1]}", ["k", "v"], 1) === ["k", "v"]);
check("set options", $redis->set("a", "x", ["nx", "ex" => 10]) === false);
$redis->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
$it = null; $found = [];
while ($keys = $redis->scan($it, "*")) { $found = array_merge($found, $keys); }
sort($found);
check("scan", $found === ["S:abc", "a"]);
check("session goes", session_start() && session_destroy() && $redis->exists("S:abc") === 0);
