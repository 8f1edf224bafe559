"""walrus' cache, whose values are strings with deadlines."""

from walrus import Database
from where import HOST, PORT

database = Database(host=HOST, port=PORT, db=8, script_dir=None)
cache = database.cache()
cache.set("k", {"a": 1}, 60)
assert cache.get("k") == {"a": 1} and cache.get("none") is None
calls = []


@cache.cached(timeout=30)
def slow(x):
    calls.append(x)
    return x * 2


assert [slow(2), slow(2), slow(3)] == [4, 4, 6] and calls == [2, 3]
slow.bust(2)
assert slow(2) == 4 and calls == [2, 3, 2]
cache.delete("k")
assert cache.get("k") is None
assert cache.set_many(a=1, b=2) and cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
lock = database.lock("it", ttl=5000)
