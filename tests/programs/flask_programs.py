"""Flask-Caching, Flask-Session and Flask-Limiter, in one application."""

from flask import Flask, session
from flask_caching import Cache
from flask_limiter import Limiter
from flask_session import Session
import redis
from where import HOST, PORT, URL

app = Flask(__name__)
app.config.update(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=URL + "/3", SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(HOST, PORT, db=4))
cache = Cache(app)
Session(app)
limiter = Limiter(lambda: "someone", app=app, storage_uri=URL + "/5", strategy="fixed-window")
calls = []


@app.route("/cached")
@cache.cached(timeout=50)
def cached():
    calls.append(1)
    return str(len(calls))


@app.route("/count")
def count():
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


@app.route("/limited")
@limiter.limit("3 per minute")
def limited():
    return "in"


client = app.test_client()
assert [client.get("/cached").text for _ in range(3)] == ["1", "1", "1"]
with app.app_context():
    assert cache.set_many({"x": 1, "y": 2}) and cache.get_many("x", "y") == [1, 2]
    assert cache.add("x", 5) is False and cache.inc("n", 2) == 2 if hasattr(cache, "inc") else True
    cache.clear()
assert client.get("/cached").text == "2"
assert [client.get("/count").text for _ in range(3)] == ["1", "2", "3"]
assert app.test_client().get("/count").text == "1"
assert [client.get("/limited").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
