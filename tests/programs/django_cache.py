"""Django's own cache and django-redis, on a database that is not the first; sessions, locks, keys by pattern."""

import django
from django.conf import settings
from where import URL

settings.configure(
    SECRET_KEY="test",
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    INSTALLED_APPS=["django.contrib.sessions"],
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": URL + "/1"},
        "other": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": URL + "/2"},
    },
)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from django.core.cache import caches  # noqa: E402

for name in ("default", "other"):
    cache = caches[name]
    assert cache.set_many({"a": 1, "b": [1, 2], "c": "three"}, timeout=100) in ([], None)
    assert cache.get_many(["a", "b", "c", "d"]) == {"a": 1, "b": [1, 2], "c": "three"}
    assert cache.add("a", 2) is False and cache.add("d", 2, timeout=50) is True
    assert cache.touch("a", 500) is True and cache.touch("none", 5) is False
    assert cache.incr("a") == 2 and cache.decr("a", 2) == 0
    try:
        cache.incr("none")
        raise AssertionError("there is no such key")
    except ValueError:
        pass
    assert cache.get_or_set("e", lambda: "made") == "made" and cache.has_key("e")
    assert cache.delete("b") is True and cache.delete("b") is False
    cache.delete_many(["c", "d"])
    assert cache.get("c") is None and cache.get("a") == 0
    cache.set("gone", 1, timeout=0)
    assert cache.get("gone") is None
    cache.set("versioned", "x", version=2)
    assert cache.get("versioned") is None and cache.get("versioned", version=2) == "x"
other = caches["other"]
assert 400 < other.ttl("a") <= 500, other.ttl("a")
other.expire("a", 20)
assert other.persist("a") and other.ttl("a") is None
assert sorted(other.keys("*")) == ["a", "e"] and list(other.iter_keys("e*")) == ["e"]
with other.lock("lock", timeout=10):
    assert not other.lock("lock", timeout=10).acquire(blocking=False)
assert other.lock("lock", timeout=10).acquire(blocking=False)
assert other.delete_pattern("*") >= 2 and other.keys("*") == []
assert caches["default"].get("e") == "made", "another database is another one"
session = SessionStore()
session["user"] = 7
session.save()
assert SessionStore(session.session_key)["user"] == 7
session.flush()
assert not SessionStore(session.session_key).exists(session.session_key or "x")
caches["default"].clear()
assert caches["default"].get("e") is None
