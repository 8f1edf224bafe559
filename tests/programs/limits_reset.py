"""limits: forgetting all limits at once."""

from limits import RateLimitItemPerMinute, storage, strategies
from where import URL

store = storage.storage_from_string(URL)
limiter = strategies.FixedWindowRateLimiter(store)
item = RateLimitItemPerMinute(1)
assert limiter.hit(item, "someone") and not limiter.hit(item, "someone")
assert store.reset() == 1
assert limiter.hit(item, "someone")
