"""dogpile.cache: one maker of a value among many threads, invalidation, many at once."""

import threading

from dogpile.cache import make_region
from where import URL

region = make_region().configure("dogpile.cache.redis", expiration_time=60,
                                 arguments={"url": URL + "/6", "redis_expiration_time": 120, "distributed_lock": True, "thread_local_lock": False})
made = []


def make():
    made.append(1)
    return len(made)


threads = [threading.Thread(target=lambda: region.get_or_create("k", make)) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert made == [1] and region.get("k") == 1
region.set_multi({"a": 1, "b": 2})
assert region.get_multi(["a", "b"]) == [1, 2]
region.delete_multi(["a", "b"])
assert not region.get("a")
region.invalidate()
assert region.get_or_create("k", make) == 2
