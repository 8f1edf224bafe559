# twemproxy: requests of several keys are parted over the server's connections and put together again.
. "$(dirname "$0")/free_port"
port=$(free_port) other=$(free_port)
cat >"$WORK/nutcracker.yml" <<END
pool:
  listen: 127.0.0.1:$port
  hash: fnv1a_64
  distribution: ketama
  redis: true
  redis_db: 2
  auto_eject_hosts: false
  servers:
   - $HOST:$PORT:1
END
nutcracker -c "$WORK/nutcracker.yml" -s $other -a 127.0.0.1 >"$WORK/nutcracker.log" 2>&1 &
child=$!
trap 'kill $child 2>/dev/null || true' EXIT
cli() { redis-cli -p "$port" "$@"; }
for _ in $(seq 100); do [ "$(cli set k v 2>/dev/null)" = OK ] && break; sleep 0.05; done
[ "$(cli mset a 1 b 2)" = OK ] && [ "$(cli mget a b none k | tr '\n' ' ')" = "1 2  v " ]
[ "$(cli del a b none)" = 2 ] && [ "$(cli incrbyfloat f 0.5)" = 0.5 ] && [ "$(cli setbit bits 7 1)" = 0 ]
[ "$(cli eval 'return redis.call("GET", KEYS[1])' 1 k)" = v ]
[ "$(redis-cli -h "$HOST" -p "$PORT" -n 2 get k)" = v ]
