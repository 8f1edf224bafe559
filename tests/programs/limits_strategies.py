"""limits: each of its strategies, and what it says of a limit."""

from limits import RateLimitItemPerMinute, storage, strategies
from where import URL

store = storage.storage_from_string(URL)
assert store.check()
for strategy in (strategies.FixedWindowRateLimiter, strategies.SlidingWindowCounterRateLimiter):
    limiter = strategy(store)
    item = RateLimitItemPerMinute(5)
    got = [limiter.hit(item, strategy.__name__) for _ in range(8)]
    assert got == [True] * 5 + [False] * 3, (strategy, got)
    stats = limiter.get_window_stats(item, strategy.__name__)
    assert stats.remaining == 0 and stats.reset_time > 0, stats
    limiter.clear(item, strategy.__name__)
    assert limiter.test(item, strategy.__name__)
