# redis-cli --hotkeys and --lru-test.
cli() { timeout 20 redis-cli -h "$HOST" -p "$PORT" "$@"; }
has() { grep -q -- "$3" <<<"$2" || { echo "redis-cli: $1: no $3 in $(printf %q "$2")" >&2; exit 1; }; }

cli set k v >/dev/null
cli config set maxmemory-policy allkeys-lfu >/dev/null
cli get k >/dev/null
has "--hotkeys" "$(cli --hotkeys 2>&1)" "Sampled 1"
cli config set maxmemory-policy noeviction >/dev/null
has "--lru-test" "$(cli config set maxmemory 100mb >/dev/null; cli config set maxmemory-policy allkeys-lru >/dev/null; timeout 3 stdbuf -oL redis-cli -h "$HOST" -p "$PORT" --lru-test 1000 || true)" "Hits"
cli config set maxmemory 0 >/dev/null
