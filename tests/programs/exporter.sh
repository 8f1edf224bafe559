# prometheus-redis-exporter: the metrics of kvlite have all names that those of Redis have.
exporter=$(command -v prometheus-redis-exporter)
redis-cli -h "$HOST" -p "$PORT" set k v ex 100 >/dev/null
. "$(dirname "$0")/free_port"
port=$(free_port)
"$exporter" --redis.addr "redis://$HOST:$PORT" --web.listen-address "127.0.0.1:$port" >"$WORK/exporter.log" 2>&1 &
child=$!
trap 'kill $child 2>/dev/null || true' EXIT
for _ in $(seq 100); do curl -sf "http://127.0.0.1:$port/metrics" >"$WORK/metrics" && break; sleep 0.05; done
grep -q '^redis_up 1' "$WORK/metrics" || { echo "exporter: redis_up is not 1" >&2; exit 1; }
grep -q '^redis_db_keys{db="db0"} 1' "$WORK/metrics" || { echo "exporter: db0 has not one key" >&2; exit 1; }
sed -n 's/^\(redis_[a-z0-9_]*\).*/\1/p' "$WORK/metrics" | sort -u >"$WORK/../names.$NAME"
missing=$([ "$NAME" = redis ] || comm -23 "$WORK/../names.redis" "$WORK/../names.$NAME")
[ -z "$missing" ] || { echo "exporter: not there: $(tr '\n' ' ' <<<"$missing")" >&2; exit 1; }
