#!/usr/bin/env bash
# What a container of kvlite costs: the size of the image, the time from `docker run` to the first answer, and the memory
# of an idle server, for both backends. Usage: container.sh IMAGE [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
image=$1 rounds=${2:-5}

# The shipped profile, with the calls of io_uring refused.
forbidding=$(mktemp)
trap 'rm -f "$forbidding"' EXIT
jq '(.syscalls[] | select(.names | index("io_uring_setup"))) |= . + {action: "SCMP_ACT_ERRNO", errnoRet: 1}' \
    deploy/seccomp.json >"$forbidding"

median() { sort -n | awk '{ it[NR] = $1 } END { print it[int((NR + 1) / 2)] }'; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# Milliseconds to the first answer and to readiness by the server's own clock, KiB of resident memory after a second.
measure() {
    local begin id port answer=
    begin=$(now_ms)
    id=$(docker run --detach --security-opt "seccomp=$1" --publish 127.0.0.1::6379 "$image" --shards 1)
    port=$(docker port "$id" 6379 | sed 's/.*://')
    for _ in $(seq 2000); do
        answer=$( (exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'PING\r\n' >&3 && read -r -t 1 line <&3 && echo "$line") 2>/dev/null) || true
        [ -n "$answer" ] && break
    done
    local answered=$(($(now_ms) - begin))
    [ -n "$answer" ] || { echo "no answer" >&2; docker logs "$id" >&2; docker rm --force --volumes "$id" >/dev/null; return 1; }
    sleep 1
    local own resident
    own=$(docker logs "$id" 2>&1 | sed -n 's/.* is ready.*ms=\([0-9]*\).*/\1/p')
    resident=$(awk '/^VmRSS/ { print $2 }' "/proc/$(docker inspect --format '{{.State.Pid}}' "$id")/status")
    docker rm --force --volumes "$id" >/dev/null
    echo "$answered $own $resident"
}

echo "image: $(docker image inspect --format '{{.Size}}' "$image" | awk '{ printf "%.1f MB", $1 / 1e6 }')"
echo "machine: $(nproc) CPUs, Linux $(uname -r), Docker $(docker version --format '{{.Server.Version}}'); medians of $rounds"
for backend in io_uring epoll; do
    profile=deploy/seccomp.json
    [ $backend = epoll ] && profile=$forbidding
    figures=$(for _ in $(seq "$rounds"); do measure "$profile" || exit; done) || { echo "$backend: does not start"; continue; }
    printf '%s: first answer %s ms after docker run, ready %s ms after its start, %s KiB resident when idle\n' "$backend" \
        "$(cut -d' ' -f1 <<<"$figures" | median)" "$(cut -d' ' -f2 <<<"$figures" | median)" "$(cut -d' ' -f3 <<<"$figures" | median)"
done
