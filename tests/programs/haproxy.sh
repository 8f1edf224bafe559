# haproxy: its check of Redis, and one that asks for the role, decide that the server is up; then it carries requests.
. "$(dirname "$0")/free_port"
port=$(free_port) other=$(free_port)
cat >"$WORK/haproxy.cfg" <<END
defaults
    mode tcp
    timeout connect 2s
    timeout client 10s
    timeout server 10s
listen redis
    bind 127.0.0.1:$port
    option redis-check
    server it $HOST:$PORT check inter 100ms
listen master
    bind 127.0.0.1:$other
    option tcp-check
    tcp-check send PING\\r\\n
    tcp-check expect string +PONG
    tcp-check send info\\ replication\\r\\n
    tcp-check expect string role:master
    tcp-check send QUIT\\r\\n
    tcp-check expect string +OK
    server it $HOST:$PORT check inter 100ms
END
haproxy -f "$WORK/haproxy.cfg" -db >"$WORK/haproxy.log" 2>&1 &
child=$!
trap 'kill $child 2>/dev/null || true' EXIT
for at in "$port" $other; do
    for _ in $(seq 100); do [ "$(redis-cli -p "$at" set k v 2>/dev/null)" = OK ] && break; sleep 0.05; done
    sleep 1 # Some checks have to go by: one that fails takes the server out.
    [ "$(redis-cli -p "$at" get k)" = v ] || { echo "haproxy: no reply through $at: $(tail -3 "$WORK/haproxy.log")" >&2; exit 1; }
done
! grep -q "is DOWN" "$WORK/haproxy.log" || { echo "haproxy: $(grep DOWN "$WORK/haproxy.log")" >&2; exit 1; }
