"""Counters that lose nothing: atomic ones, one over several keys, and one for each minute.

python3 counters.py --url redis://127.0.0.1:6379
"""

import random
import threading

import redis
import run as example

THREADS, ROUNDS = 8, 100


def naive(run, client):
    print("\nThe naive counter: GET, add one, SET. The worst case: all read before anyone writes.")
    views, step = run.key("naive"), threading.Barrier(THREADS, timeout=30)

    def count(_number, client):
        for _ in range(ROUNDS):
            before = int(client.get(views) or 0)
            step.wait()
            client.set(views, before + 1)
            step.wait()

    run.at_once(THREADS, count)
    run.check(int(client.get(views)) == ROUNDS, f"{THREADS * ROUNDS} views were counted as {client.get(views)}")


def atomic(run, client):
    print("\nINCR reads, adds and writes in one step, and says what came out.")
    views = run.key("page:17:views")
    seen = run.at_once(THREADS, lambda _, client: [client.incr(views) for _ in range(ROUNDS)])
    count = int(client.get(views))
    run.check(count == THREADS * ROUNDS, f"{THREADS * ROUNDS} views were counted as {count}")
    numbers = sorted(number for of_thread in seen for number in of_thread)
    run.check(numbers == list(range(1, THREADS * ROUNDS + 1)), "and no two clients were told the same number")
    try:
        # Maps in RESP3, which newer versions speak; in RESP2 lists: key, its name, reads, ...
        hottest = client.execute_command("HOTKEYS", 20)
        names = [fields["key"] if isinstance(fields, dict) else fields[1] for fields in hottest]
        place = f"is number {names.index(views) + 1}" if views in names else "is not among the first 20"
        print("  HOTKEYS:", views, place)
    except redis.ResponseError as error:
        print("  HOTKEYS:", error)


def sharded(run, client):
    print("\nEight keys for one counter, so that all shards share its load; MGET shows them of one moment.")
    parts = [run.key(f"likes:{part}") for part in range(8)]

    def total(client):
        return sum(int(count or 0) for count in client.mget(parts))

    def count(_number, client):
        sums = []
        for _ in range(ROUNDS):
            client.incr(random.choice(parts))
            sums.append(total(client))
        return sums

    sums = run.at_once(THREADS, count)
    run.check(total(client) == THREADS * ROUNDS, f"{THREADS * ROUNDS} likes, and their sum is {total(client)}")
    run.check(all(of_thread == sorted(of_thread) for of_thread in sums), "no client has seen the sum go back")


def by_minute(run, client):
    print("\nOne key for each minute, which goes by itself: the views of the last three minutes.")
    now = 29_000_000  # A site takes int(time.time()) // 60.

    def count(_number, client):
        for view in range(40):
            key = run.key(f"views:{now - view % 4}")
            client.set(key, 0, nx=True, ex=600)  # Its TTL from the start, and INCR keeps it.
            client.incr(key)

    run.at_once(THREADS, count)
    keys = [run.key(f"views:{minute}") for minute in range(now - 2, now + 1)]
    last_three = sum(int(count or 0) for count in client.mget(keys))
    made = THREADS * 40
    run.check(last_three == THREADS * 30, f"of {made} views in four minutes {last_three} were in the last three")
    run.check(all(0 < client.ttl(key) <= 600 for key in keys), "all of them have a TTL")


def main(run, client):
    for part in [naive, atomic, sharded, by_minute]:
        part(run, client)


example.main("counters", main)
