#!/usr/bin/env python3
"""A small shop under load, and what kvlite says about it: which key is hot, which keys nobody reads, which TTL suits the
sessions, and what that TTL saves once it is applied. Takes a minute, a kvlite that holds nothing of value (it is cleared),
and no package: it speaks the text protocol.

    kvlite &
    python3 examples/analytics.py [--host localhost] [--port 6380] [--seconds 30]
"""

import argparse
import random
import socket
import sys
import time


class Server:
    """A connection to the text port."""

    def __init__(self, host, port):
        self.lines = socket.create_connection((host, port), timeout=30).makefile("rw", newline="\n")
        self.lines.readline()  # The greeting.

    def send(self, commands):
        """Sends commands in one pipeline; each is answered by one line."""
        self.lines.write("".join(command + "\n" for command in commands))
        self.lines.flush()
        replies = [self.lines.readline().rstrip("\n") for _ in commands]
        for command, reply in zip(commands, replies):
            if reply.startswith("-ERR") and reply != "-ERR key not found":
                sys.exit(f"{command.split()[0]}: {reply}")
        return replies

    def list(self, command):
        """The lines of an answer, however many: what PING answers ends it."""
        self.lines.write(f"{command}\nPING\n")
        self.lines.flush()
        return list(iter(lambda: self.lines.readline().rstrip("\n"), "+PONG"))

    def ask(self, command):
        """Prints a question and the lines of its answer, which it returns."""
        answer = self.list(command)
        print(f"> {command}", *answer, sep="\n", flush=True)
        return answer


def field(line, name):
    """The value of a field of a line such as `session:* (keys=20 bytes=600)`."""
    return float(line.partition(f"{name}=")[2].split()[0].rstrip(")"))


def check(what, is_so):
    """Says whether what a reader would conclude from the lines above is so, and ends the program where not."""
    print(f"  {'ok    ' if is_so else 'BROKEN'}  {what}", flush=True)
    if not is_so:
        sys.exit(1)


def serve_shop(server, seconds, sessions):
    """Sessions begin, are read and written with each use, and are forgotten by their users after two seconds or so.
    Products are read, one of them, which is in the news, far more than the others."""
    until = time.monotonic() + seconds
    tick = time.monotonic()
    while (now := time.monotonic()) < until:
        sessions[:] = [(name, end) for name, end in sessions if end > now]
        used = [name for name, _ in sessions if random.random() < 0.2]
        begun = [f"session:{random.getrandbits(48):012x}" for _ in range(3)]
        sessions += [(name, now + random.expovariate(1 / 2)) for name in begun]
        commands = [f"GET {name}" for name in used]
        commands += [f"SET {name} {'s' * 300}" for name in used + begun]
        commands += [f"GET product:{int(random.paretovariate(0.6)) % 2000}" for _ in range(30)]
        commands += ["GET product:1742"] * 40
        server.send(commands)
        tick += 0.05
        time.sleep(max(0.0, tick - time.monotonic()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=6380)
    parser.add_argument("--seconds", type=float, default=30)
    args = parser.parse_args()
    random.seed(1)
    server = Server(args.host, args.port)
    server.send(["CLEAR", "ANALYTICS RESET", 'CONFIG SET auto-ttl ""'])
    server.send([f"SET product:{number} {'p' * 400}" for number in range(2000)])
    for start in range(0, 20000, 1000):
        server.send([f"SET report:{number} {'r' * 900}" for number in range(start, start + 1000)])
    sessions = []
    serve_shop(server, args.seconds, sessions)

    [hottest] = server.ask("HOTKEYS 1")
    classes = {line.split()[0]: line for line in server.ask("PREFIXES")}
    [advice] = server.ask("SUGGEST-TTL CLASS session:* APPLY EXPLAIN")
    # From now on each SET of a session gives it that TTL. Those that are there already get it here.
    server.send([f"EXPIRE {name} {advice.split()[0]}" for name in server.list("KEYS session:*")])
    serve_shop(server, args.seconds, sessions)
    print(f"# {args.seconds:.0f} seconds later")
    after = {line.split()[0]: line for line in server.ask("PREFIXES")}["session:*"]

    check("the product in the news is the hottest key", hottest.startswith("product:1742 "))
    check("nobody reads the reports", field(classes["report:*"], "reads") == 0)
    check("there are fewer sessions than before", field(after, "keys") < field(classes["session:*"], "keys"))
    check("nearly every read of a session is still a hit", field(after, "hit_ratio") > 0.9)
    server.send(["CLEAR", 'CONFIG SET auto-ttl ""'])


if __name__ == "__main__":
    main()
