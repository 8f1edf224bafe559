"""A small load for pictures: sessions, profiles, pages, and a key that becomes hot.

arguments: RESP_PORT SECONDS. In the last quarter of that time one key is read as often as all others together.
"""

import random
import sys
import time

from dashboard import Redis


def main(port, seconds):
    redis, begun = Redis(port), time.monotonic()
    choose = random.Random(1)
    while (passed := time.monotonic() - begun) < seconds:
        for _ in range(60):
            what, rank = choose.random(), int(choose.paretovariate(0.7))
            if what < 0.06:
                redis.ask("SET", f"user:{choose.randint(1, 4000)}:profile", "x" * choose.randint(100, 900))
            elif what < 0.5:
                redis.ask("GET", f"user:{min(rank, 4400)}:profile")
            elif what < 0.56:
                redis.ask("SET", f"session:{choose.randint(1, 600):04x}", "y" * 240, "EX", 1800)
            elif what < 0.8:
                redis.ask("GET", f"session:{choose.randint(1, 640):04x}")
            elif what < 0.84:
                redis.ask("SET", f"page:/product/{choose.randint(1, 300)}", "z" * 3000, "EX", 60)
            elif what < 0.95:
                redis.ask("GET", f"page:/product/{choose.randint(1, 330)}")
            else:
                redis.ask("INCR", "count:visits")
        if passed > seconds * 0.75:
            redis.ask("GET", "user:42:profile", times=60)
        time.sleep(0.02 + 0.015 * choose.random())


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
