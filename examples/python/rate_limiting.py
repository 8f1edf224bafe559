"""Rate limits that hold under concurrency: fixed and sliding window, token and leaky bucket.

python3 rate_limiting.py --url redis://127.0.0.1:6379

Time is an argument, so that many threads can ask at the same moment; a site passes time.time().
"""

import threading

import run as example

THREADS, LIMIT, WINDOW = 8, 100, 60
NOON = 29_000_000 * WINDOW  # Seconds: the begin of some window.


def granted(run, requests, ask):
    return sum(run.at_once(THREADS, lambda _, client: sum(bool(ask(client)) for _ in range(requests))))


def count(client, key):
    """Counts one. The key has its TTL from the start, so that nobody who dies can leave it for ever; INCR keeps it."""
    pipeline = client.pipeline(transaction=False)
    pipeline.set(key, 0, nx=True, ex=2 * WINDOW)
    pipeline.incr(key)
    return pipeline.execute()[1]


def naive(run, client):
    print("\nNaive, GET and then SET: all look before anyone has written.")
    key, all_have_read = run.key("naive:17"), threading.Barrier(THREADS, timeout=30)
    client.set(key, LIMIT - 1, ex=60)

    def ask(client):
        before = int(client.get(key))
        all_have_read.wait()
        client.set(key, before + 1, keepttl=True)
        return before < LIMIT

    passed = granted(run, 1, ask)
    run.check(passed == THREADS, f"{passed} were let through where 1 was left")
    client.incr(run.key("naive:18"))  # INCR and then EXPIRE, and the client dies in between:
    run.check(client.ttl(run.key("naive:18")) == -1, "a counter without a TTL is left for ever")


def fixed_window(run, client):
    print("\nFixed window: a counter for each minute.")
    user = run.key("fixed:17")

    def at(now):
        return granted(run, 50, lambda client: count(client, f"{user}:{now // WINDOW}") <= LIMIT)

    passed = at(NOON + 59)
    run.check(passed == LIMIT, f"of {THREADS * 50} requests at the same moment {passed} were let through")
    passed = at(NOON + 60)
    run.check(passed == LIMIT, f"its weakness: a second later, in a new window, {passed} more")
    run.check(client.ttl(f"{user}:{NOON // WINDOW}") > 0, "its key goes by itself")


def sliding_window(run, _client):
    print("\nSliding window: this minute's counter, and the last one's by the share that still counts.")
    user = run.key("sliding:17")

    def ask(client, now):
        window, passed = divmod(now, WINDOW)
        this = count(client, f"{user}:{window}")
        last = int(client.get(f"{user}:{window - 1}") or 0)
        if this + last * (WINDOW - passed) // WINDOW <= LIMIT:
            return True
        client.decr(f"{user}:{window}")  # Until here it stood in the way of others: a few less, and never more.
        return False

    def at(now):
        return granted(run, 50, lambda client: ask(client, now))

    passed = at(NOON + 59)
    run.check(LIMIT - THREADS < passed <= LIMIT, f"{passed} were let through, at most {LIMIT}")
    passed = at(NOON + 60)
    run.check(passed < THREADS, f"a second later, in the next window: {passed} more")
    passed = at(NOON + 75)
    run.check(10 <= passed <= 25, f"a quarter of a minute later: {passed} more, of about 25")


def reserve(client, user, now, ticks):
    """The first free second of the next ones, which SET NX gives to one client only; None if all are taken."""
    keys = [f"{user}:{tick}" for tick in range(now, now + ticks)]
    first_free = sum(taken is not None for taken in client.mget(keys))  # There is no gap before it.
    for tick in range(first_free, ticks):
        if client.set(keys[tick], 1, nx=True, ex=2 * WINDOW):
            return now + tick
    return None


def token_bucket(run, _client):
    print("\nToken bucket: 20 tokens, one more each second. A tick that is taken is when its token is back.")
    user = run.key("token:17")
    for now, expected in [(NOON, 20), (NOON + 5, 5), (NOON + 100, 20)]:
        passed = granted(run, 10, lambda client: reserve(client, user, now, 20))
        run.check(passed == expected, f"{now - NOON} s after the begin {passed} of {THREADS * 10} were let through")


def leaky_bucket(run, _client):
    print("\nLeaky bucket: a queue of 20 that lets out one each second.")
    user = run.key("leaky:17")
    turns = run.at_once(THREADS, lambda _, client: [reserve(client, user, NOON, 20) for _ in range(10)])
    turns = sorted(turn for of_thread in turns for turn in of_thread if turn)
    run.check(turns == list(range(NOON, NOON + 20)), f"{len(turns)} may wait, each for a second of its own")


def main(run, client):
    for part in [naive, fixed_window, sliding_window, token_bucket, leaky_bucket]:
        part(run, client)


example.main("rate_limiting", main)
