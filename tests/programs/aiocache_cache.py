"""aiocache: its cache, its lock against a stampede, and compare and set."""

import asyncio

from aiocache import Cache
from aiocache.lock import OptimisticLock, RedLock
from aiocache.serializers import JsonSerializer
from where import HOST, PORT


async def main():
    cache = Cache(Cache.REDIS, endpoint=HOST, port=PORT, db=7, namespace="main", serializer=JsonSerializer())
    assert await cache.set("k", {"a": 1}, ttl=50) and await cache.get("k") == {"a": 1}
    assert await cache.multi_set([("x", 1), ("y", 2)], ttl=20) and await cache.multi_get(["x", "y", "z"]) == [1, 2, None]
    try:
        await cache.add("k", 1)
        raise AssertionError("the key exists")
    except ValueError:
        pass
    assert await cache.increment("n", 3) == 3 and await cache.exists("n")
    assert await cache.expire("n", 30) and await cache.delete("n") == 1
    made = []

    async def make():
        async with RedLock(cache, "slow", lease=5):
            if await cache.get("slow") is None:
                made.append(1)
                await cache.set("slow", len(made))
    await asyncio.gather(*[make() for _ in range(6)])
    assert made == [1], made
    async with OptimisticLock(cache, "k") as lock:
        assert await lock.cas("new")
    assert await cache.get("k") == "new"
    assert await cache.clear(namespace="main") and await cache.get("k") is None
    await cache.close()


asyncio.run(main())
