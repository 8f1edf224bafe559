# redis-cli in each of its modes but those for replicas, snapshots, clusters and eviction.
cli() { timeout 20 redis-cli -h "$HOST" -p "$PORT" "$@"; }
is() { [ "$2" = "$3" ] || { echo "redis-cli: $1: $(printf %q "$2") is not $(printf %q "$3")" >&2; exit 1; }; }
has() { grep -q -- "$3" <<<"$2" || { echo "redis-cli: $1: no $3 in $(printf %q "$2")" >&2; exit 1; }; }

is set "$(cli set k v)" OK
is "from standard input" "$(printf 'set a 1\nincr a\nget a\n' | cli | tr '\n' ' ')" "OK 2 2 "
is "-x" "$(printf 'big value' | cli -x set x)" OK
is "-X" "$(printf 'second' | cli -X tag set y tag)" OK
is "of -X" "$(cli get y)" second
is "-n" "$(cli -n 3 set other 1 && cli -n 3 dbsize)" "OK
1"
is "-r" "$(cli -r 3 -i 0.01 incr n | tail -1)" 3
is "--csv" "$(cli --csv mget k x none)" '"v","big value",NULL'
is "--json" "$(cli -3 --json mget k none)" '["v",null]'
is "--no-raw" "$(cli --no-raw get k)" '"v"'
is "a transaction" "$(printf 'multi\nset t 1\nincr t\nexec\n' | cli | tail -1)" 2
is "-e" "$(cli -e nonsense >/dev/null 2>&1; echo $?)" 1
printf 'return {KEYS[1], ARGV[1], redis.call("GET", KEYS[1])}' >"$WORK/script.lua"
is "--eval" "$(cli --eval "$WORK/script.lua" k , arg | tr '\n' ' ')" "k arg v "
for i in $(seq 1000); do printf '*3\r\n$3\r\nSET\r\n$%d\r\np%d\r\n$1\r\nx\r\n' $((1 + ${#i})) "$i"; done >"$WORK/mass"
has "--pipe" "$(cli --pipe <"$WORK/mass")" "errors: 0, replies: 1000"
is "--scan" "$(cli --scan --pattern 'p*' | wc -l)" 1000
has "--bigkeys" "$(cli --bigkeys)" "Biggest string found"
has "--memkeys" "$(cli --memkeys)" "Sampled 1"
has "--stat" "$(timeout 3 stdbuf -oL redis-cli -h "$HOST" -p "$PORT" -i 0.2 --stat || true)" "requests"
has "--latency" "$(timeout 3 stdbuf -oL redis-cli -h "$HOST" -p "$PORT" --latency -i 1 --raw </dev/null || true)" "[0-9]"
has "--latency-history" "$(timeout 3 stdbuf -oL redis-cli -h "$HOST" -p "$PORT" --latency-history -i 1 --raw </dev/null || true)" "[0-9]"
timeout 2 stdbuf -oL redis-cli -h "$HOST" -p "$PORT" --latency-dist -i 0.5 >"$WORK/dist" || true
has "--latency-dist" "$(cat "$WORK/dist")" "."
timeout 10 stdbuf -oL redis-cli -h "$HOST" -p "$PORT" subscribe news >"$WORK/news" &
listener=$!
for _ in $(seq 200); do [ "$(cli publish news hello)" = 1 ] && break; sleep 0.02; done
for _ in $(seq 200); do grep -q hello "$WORK/news" && break; sleep 0.02; done
kill $listener
has "subscribe" "$(cat "$WORK/news")" hello
timeout 10 stdbuf -oL redis-cli -h "$HOST" -p "$PORT" monitor >"$WORK/monitor" &
listener=$!
for _ in $(seq 200); do cli get monitored >/dev/null; grep -q monitored "$WORK/monitor" && break; sleep 0.02; done
kill $listener
has "monitor" "$(cat "$WORK/monitor")" '"get" "monitored"'
has "help" "$(cli client help)" "CLIENT <subcommand>"
