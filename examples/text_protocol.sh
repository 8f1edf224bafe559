#!/bin/sh
# Works with the server over its text protocol, with nothing but nc and a shell, and checks what comes back.
#
#     examples/text_protocol.sh [HOST [PORT]]        localhost 6380, unless given
#
# Any nc that ends when the server does will do, such as that of netcat-openbsd.
set -eu

host=${1:-localhost}
port=${2:-6380}
run=text-protocol-$$
broken=0

# ask LINE...: sends lines as they are, in one go, and prints the replies, without greeting and farewell.
ask() {
    { printf '%s\n' "$@"; echo QUIT; } | nc "$host" "$port" | sed '1d;$d'
}

# check WHAT EXPECTED ANSWER
check() {
    if [ "$2" = "$3" ]; then
        echo "  ok     $1"
    else
        printf '  BROKEN %s: expected\n%s\nand got\n%s\n' "$1" "$2" "$3"
        broken=$((broken + 1))
    fi
}

[ "$(echo QUIT | nc "$host" "$port" | head -n 1)" = "+OK kvlite ready" ] || {
    echo "no kvlite answers on $host $port: start it with: kvlite" >&2
    exit 1
}
trap 'ask "MDEL $run:a $run:b $run:visits $run:session $run:json" >/dev/null' EXIT

echo "A line is a command, a line is its reply."
check "a value is set and read" "+OK
Hello, World!" "$(ask "SET $run:a Hello, World!" "GET $run:a")"
check "it may hold quotes and braces" '+OK
{"name": "Ada Lovelace"}' "$(ask "SET $run:json {\"name\": \"Ada Lovelace\"}" "GET $run:json")"
check "what is not there is an error" "-ERR key not found" "$(ask "GET $run:nope")"

echo "Several keys, all of the same moment; a list has a line for each item."
check "two are set, three are read" "+OK
1
2
(nil)" "$(ask "MSET $run:a 1 $run:b 2" "MGET $run:a $run:b $run:nope")"

echo "Keys that end by themselves."
check "a session of a minute" "+OK
60" "$(ask "SETEX $run:session 60 ada" "TTL $run:session")"
check "its TTL can be changed and removed" "1
3600
1
-1" "$(ask "EXPIRE $run:session 3600" "TTL $run:session" "PERSIST $run:session" "TTL $run:session")"

echo "Four shells count at once."
for shell in 1 2 3 4; do
    for visit in 1 2 3 4 5 6 7 8 9 10; do echo "INCR $run:visits"; done > "${TMPDIR:-/tmp}/$run.$shell"
    { cat "${TMPDIR:-/tmp}/$run.$shell"; echo QUIT; } | nc "$host" "$port" >/dev/null &
done
wait
rm -f "${TMPDIR:-/tmp}/$run".*
check "no visit is lost" "40" "$(ask "GET $run:visits")"

echo "What the server says of itself."
check "it is healthy" '"status":"healthy"' "$(ask HEALTH | grep -o '"status":"[a-z]*"')"
check "one of its keys has been read once" "reads=1" "$(ask "ANALYZE $run:json" | grep -o 'reads=[0-9]*')"

[ "$broken" = 0 ] || { echo "$broken of the checks failed" >&2; exit 1; }
