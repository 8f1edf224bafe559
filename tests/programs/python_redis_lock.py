"""python-redis-lock: one holder at a time, renewed, released by a script that wakes those who wait."""

import redis
import redis_lock
from where import HOST, PORT

client = redis.StrictRedis(HOST, PORT)
lock = redis_lock.Lock(client, "job", expire=10, auto_renewal=True)
assert lock.acquire(blocking=False)
assert not redis_lock.Lock(client, "job", expire=10).acquire(blocking=False)
lock.extend(20)
assert 10 < client.ttl("lock:job") <= 20
lock.release()
assert redis_lock.Lock(client, "job", expire=10).acquire(blocking=False)
