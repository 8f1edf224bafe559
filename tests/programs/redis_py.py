"""redis-py: its commands, pipelines, transactions, messages, locks, scripts; both versions of the protocol, and asyncio."""

import asyncio
import threading

import redis
import redis.asyncio
from where import HOST, PORT


def check(protocol):
    client = redis.Redis(HOST, PORT, protocol=protocol, decode_responses=True)
    assert client.set("a", 1, ex=100, nx=True) is True and client.set("a", 2, nx=True) is None
    assert client.incrbyfloat("a", 0.5) == 1.5 and 90 < client.ttl("a") <= 100
    with client.pipeline() as pipe:
        pipe.watch("a")
        pipe.multi()
        pipe.set("b", "x").get("b").incr("c")
        assert pipe.execute() == [True, "x", 1]
    with client.pipeline() as pipe:
        pipe.watch("c")
        client.incr("c")
        pipe.multi()
        pipe.set("c", "lost")
        try:
            pipe.execute()
            raise AssertionError("the watched key has changed")
        except redis.WatchError:
            pass
    limiter = client.register_script("local n = redis.call('INCR', KEYS[1]) if n == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end return n")
    assert [limiter(keys=["limit"], args=[60]) for _ in range(3)] == [1, 2, 3]
    assert 0 < client.ttl("limit") <= 60
    with client.pubsub(ignore_subscribe_messages=True) as messages:
        messages.subscribe("news")
        messages.psubscribe("other.*")
        assert messages.get_message(timeout=5) is None and messages.get_message(timeout=5) is None, "they only confirm"
        assert client.publish("news", "one") == 1 and client.publish("other.x", "two") == 1
        got = []
        for _ in range(20):
            got += [message for message in [messages.get_message(timeout=1)] if message]
            if len(got) == 2:
                break
        assert sorted(message["data"] for message in got) == ["one", "two"], got
    count = [0]

    def work():
        mine = redis.Redis(HOST, PORT, protocol=protocol)
        for _ in range(20):
            with mine.lock("lock", timeout=10, blocking_timeout=20, sleep=0.001):
                before = count[0]
                count[0] = before + 1
    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert count[0] == 80, count
    assert sorted(client.scan_iter(match="[abc]")) == ["a", "b", "c"]
    assert client.getex("b", persist=True) == "x" and client.getdel("b") == "x" and client.get("b") is None
    assert client.info()["redis_version"] and client.client_list() and client.config_get("maxmemory")
    client.flushall()


async def check_async():
    async with redis.asyncio.Redis(host=HOST, port=PORT, decode_responses=True) as client:
        assert await asyncio.gather(*[client.incr("n") for _ in range(50)])
        assert await client.get("n") == "50"
        async with client.pipeline(transaction=True) as pipe:
            assert await pipe.set("k", "v").get("k").execute() == [True, "v"]
        async with client.lock("alock", timeout=5):
            assert await client.get("alock")
        assert await client.get("alock") is None


check(2)
check(3)
asyncio.run(check_async())
