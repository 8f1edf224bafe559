"""What the examples share: the command line, keys of their own, threads that begin together, and checks."""

import argparse
import random
import string
import sys
import threading
import time

import redis


class Run:
    """One run of an example. Its keys are its own, by a random name, and are removed at the end."""

    def __init__(self, name):
        parser = argparse.ArgumentParser()
        parser.add_argument("--url", default="redis://127.0.0.1:6379", help="the server to speak to")
        self.url = parser.parse_args().url
        # No digits: a part of a name that looks like a number would end its class in PREFIXES.
        self.prefix = name + "-" + "".join(random.choices(string.ascii_lowercase, k=6))
        self.broken = 0

    def connect(self):
        return redis.Redis.from_url(self.url, decode_responses=True)

    def key(self, name):
        return f"{self.prefix}:{name}"

    def check(self, holds, what):
        """Says whether something is as it has to be; the example fails at its end if it is not."""
        print("  ok    " if holds else "  BROKEN", what)
        self.broken += not holds

    def at_once(self, threads, work):
        """Does work(number, client) on so many threads, which begin at the same moment; what they return."""
        begin, results = threading.Barrier(threads, timeout=30), [None] * threads

        def one(number):
            with self.connect() as client:
                begin.wait()
                results[number] = [work(number, client)]

        workers = [threading.Thread(target=one, args=[number]) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if None in results:
            raise RuntimeError("a thread has failed, see above")
        return [result for [result] in results]


def wait_until(condition):
    """Waits until the condition holds, for half a minute at most."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > 30:
            raise TimeoutError("waited for half a minute in vain")
        time.sleep(0.005)


def main(name, example):
    """Runs an example, and ends the process with 0 when all that it checks is so."""
    run = Run(name)
    try:
        with run.connect() as client:
            print(f"its keys begin with {run.prefix}:")
            try:
                example(run, client)
            finally:
                for key in list(client.scan_iter(run.key("*"), count=1000)):
                    client.delete(key)
    except redis.ConnectionError as error:
        sys.exit(f"{run.url}: {error}; is the server running?")
    sys.exit(f"{run.broken} of the checks failed" if run.broken else 0)
