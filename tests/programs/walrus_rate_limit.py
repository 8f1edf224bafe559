"""walrus' rate limit."""

from walrus import Database
from where import HOST, PORT

limit = Database(host=HOST, port=PORT, db=8).rate_limit("mine", limit=3, per=60)
got = [limit.limit("someone") for _ in range(5)]
assert got == [False, False, False, True, True], got
