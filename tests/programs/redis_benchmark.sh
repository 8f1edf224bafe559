# redis-benchmark: its own tests of what exists, with pipelines, random keys and commands of one's own.
bench() { timeout 100 redis-benchmark -h "$HOST" -p "$PORT" -q -n 2000 "$@" 2>&1; }
has() { grep -q -- "$2" <<<"$1" || { echo "redis-benchmark: no $2 in: $1" >&2; exit 1; }; }
output=$(bench -t ping_inline,ping_mbulk,set,get,incr,mset -r 1000 -P 4 --csv)
for test in PING_INLINE PING_MBULK SET GET INCR "MSET (10 keys)"; do has "$output" "\"$test\",\"[0-9]"; done
has "$(bench -r 100 eval "return redis.call('INCR', KEYS[1])" 1 counter:__rand_int__)" "requests per second"
has "$(bench --threads 2 -c 20 -t set,get)" "GET: .*requests per second"
has "$(bench -3 -t get)" "GET: .*requests per second"
[ "$(redis-cli -h "$HOST" -p "$PORT" dbsize)" -gt 100 ]
if grep -qi "error\|warning" <<<"$output"; then echo "redis-benchmark: $output" >&2; exit 1; fi
