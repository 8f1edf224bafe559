"""A cache in front of a slow source: cache-aside, write-through, and no stampede on a popular key.

python3 caching.py --url redis://127.0.0.1:6379
"""

import threading
import time

import redis
import run as example

THREADS = 16


class Source:
    """A database with one product, whose reads take 20 ms and are counted."""

    def __init__(self, price):
        self.price, self.loads, self.lock = price, 0, threading.Lock()

    def load(self):
        with self.lock:
            self.loads += 1
        time.sleep(0.02)  # This is how slow it is.
        return self.price


def cache_aside(run, client):
    print("\nCache-aside: look into the cache; on a miss load, and leave it there for a minute.")
    source, product = Source(100), run.key("product:1")

    def read():
        cached = client.get(product)
        if cached is None:
            cached = source.load()
            client.set(product, cached, ex=60)
        return int(cached)

    run.check([read(), read()] == [100, 100] and source.loads == 1, "two reads, one load of the source")
    source.price = 120
    client.delete(product)
    run.check(read() == 120, "a write removes the key, and the next read finds the new price")


def write_through(run, client):
    print("\nWrite-through: source and cache are written under the source's own lock, so in the same order.")
    source, product = Source(0), run.key("product:2")

    def write(number, client):
        for step in range(50):
            with source.lock:
                source.price = number * 1000 + step
                client.set(product, source.price, ex=60)

    run.at_once(8, write)
    run.check(int(client.get(product)) == source.price, "after 8 writers, cache and source agree")


def stampede(run, _client):
    print("\nThe naive form of cache-aside when a popular key expires: all look before anybody is done.")
    source, product, all_have_looked = Source(7), run.key("product:3"), threading.Barrier(THREADS, timeout=30)

    def read(_number, client):
        cached = client.get(product)
        all_have_looked.wait()
        if cached is None:
            client.set(product, source.load(), ex=60)

    run.at_once(THREADS, read)
    run.check(source.loads == THREADS, f"{THREADS} readers of one expired key, {source.loads} loads")


def protection(run, client):
    print("\nStampede protection: who sets the lease (SET NX PX) loads, the others take the old price.")
    source, product = Source(7), run.key("product:4")
    lease = product + ":lease"

    def read(_number, client):
        if client.set(lease, "loading", nx=True, px=5000):
            price = source.load()
            client.set(product, price, ex=3600)  # First: a lease without a price is worth nothing.
            client.set(lease, "fresh", px=60_000)
            return price
        example.wait_until(lambda: client.exists(product))  # Only the very first readers find none.
        return int(client.get(product))

    prices = run.at_once(THREADS, read)
    run.check(source.loads == 1 and set(prices) == {7}, f"nothing cached yet: {source.loads} load")
    source.price, source.loads = 8, 0
    client.delete(lease)  # As if the minute were over.
    prices = run.at_once(THREADS, read)
    is_known = set(prices) <= {7, 8}
    run.check(source.loads == 1 and is_known, f"not fresh any more: {source.loads} load, {prices.count(7)} old prices")
    run.check(set(run.at_once(THREADS, read)) == {8}, "from then on all get the new price")


def analytics(run, client):
    print("\nWhat the server says of such a cache (docs/analytics.md):")
    for step in range(1200):
        page = run.key(f"page:{step % 40}")
        if client.get(page) is None:
            client.set(page, step, ex=60)
        time.sleep(0.001)  # The load of this example: below a thousand requests a second.
    name = run.key("page:*")
    try:
        classes = client.execute_command("PREFIXES")
        print("  PREFIXES:", next((fields for fields in classes if name in fields), "others are used more"))
        print("  SUGGEST-TTL:", client.execute_command("SUGGEST-TTL", "CLASS", name, "EXPLAIN"))
    except redis.ResponseError as error:
        print("  nothing:", error)


def caching(run, client):
    for part in [cache_aside, write_through, stampede, protection, analytics]:
        part(run, client)


example.main("caching", caching)
