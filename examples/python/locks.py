"""A lock with a lease and a fencing token, and a store that refuses who comes too late.

python3 locks.py --url redis://127.0.0.1:6379

examples/locks/main.rs says why the lock is built like this.
"""

import secrets
import threading
import time

import run as example

THREADS = 8


class Lock:
    """A queue: a number (INCR), a key of that number with a TTL, and the lock when all before it are gone."""

    def __init__(self, run, name, lease_ms):
        self.key, self.lease_ms = (lambda part: run.key(f"lock:{name}:{part}")), lease_ms

    def place(self, number):
        return self.key(f"place:{number}")

    def acquire(self, client):
        """Waits for the lock; returns the number, which is the fencing token, and the proof that it is one's own."""
        while True:
            fence, token = client.incr(self.key("numbers")), secrets.token_hex(8)
            if not client.set(self.place(fence), token, nx=True, px=self.lease_ms):
                continue  # Closed by one behind: too slow.
            before = min(int(client.get(self.key("holder")) or 1), fence)
            while self.renew(client, fence, token):
                while before < fence and self.is_gone(client, before):
                    before += 1
                if before == fence:
                    client.set(self.key("holder"), fence)
                    return fence, token
                time.sleep(0.005)

    def is_gone(self, client, number):
        """Whether nobody has this place, nor will: one that is not there is closed in the same step."""
        return client.set(self.place(number), "closed", nx=True, get=True, px=60_000) in (None, "closed")

    def renew(self, client, fence, token):
        return client.getex(self.place(fence), px=self.lease_ms) == token

    def release(self, client, fence):
        client.delete(self.place(fence))  # One's own number: it cannot hit another holder.


class Account:
    """What the lock protects. It serves those with the highest number so far, for reads as well."""

    def __init__(self):
        self.highest, self.balance, self.lock = 0, 0, threading.Lock()

    def read(self, fence):
        with self.lock:
            self.highest = max(self.highest, fence)
            return self.balance if fence == self.highest else None

    def write(self, fence, balance):
        with self.lock:
            self.highest = max(self.highest, fence)
            if fence == self.highest:
                self.balance = balance
            return fence == self.highest


def naive_release(run, client):
    print("\nThe simple lock, SET NX PX, and its naive release, DEL.")
    lock = run.key("simple")
    took = [bool(client.set(lock, who, nx=True, px=60_000)) for who in "ab"]
    run.check(took == [True, False], "of two clients, a and b, one gets it")
    client.getex(lock, px=1)  # As if the minute were over.
    example.wait_until(lambda: client.set(lock, "b", nx=True, px=60_000))
    client.delete(lock)  # a is done at last, and releases what is b's by now.
    run.check(client.set(lock, "c", nx=True, px=60_000), "naive: that was b's lock, and now c works beside b")
    released = [client.execute_command("DELIFEQ", lock, who) for who in "ac"]
    run.check(released == [0, 1], "DELIFEQ: a releases nothing, c its own lock")


def exclusion(run, _client):
    print(f"\nThe lock as a queue of places: {THREADS} clients, 10 times each.")
    lock, account, inside, met = Lock(run, "queue", 20_000), Account(), [], []

    def work(number, client):
        accepted = 0
        for _ in range(10):
            fence, _token = lock.acquire(client)
            inside.append(number)
            met.append(len(inside) > 1)
            balance = account.read(fence)
            accepted += balance is not None and account.write(fence, balance + 1)
            inside.remove(number)
            lock.release(client, fence)
        return accepted

    accepted = sum(run.at_once(THREADS, work))
    run.check(not any(met), "no two of them were inside at the same time")
    run.check(account.balance == accepted == THREADS * 10, f"all {account.balance} payments are there")


def paused_holder(run, client):
    print("\nA holder that is paused until its lease is over, and then goes on.")
    lock = Lock(run, "paused", 100)
    for is_fenced in [False, True]:
        account = Account()
        a, _ = lock.acquire(client)
        fence_of_a = a if is_fenced else 1 << 60
        read_by_a = account.read(fence_of_a)
        example.wait_until(lambda: not client.exists(lock.place(a)))
        b, _ = lock.acquire(client)
        fence_of_b = b if is_fenced else 1 << 60
        account.write(fence_of_b, account.read(fence_of_b) + 10)
        lock.release(client, b)
        was_written = account.write(fence_of_a, read_by_a + 1)
        if is_fenced:
            run.check(not was_written and account.balance == 10, "with the fencing token a is refused")
        else:
            run.check(account.balance == 1, f"without it b's 10 are lost, the balance is {account.balance}")


def renewal(run, client):
    print("\nWork that takes three leases, a thread that renews it, and another client that waits.")
    lock, is_done, other_is_in = Lock(run, "renewed", 1500), threading.Event(), threading.Event()
    fence, token = lock.acquire(client)

    def renew():
        with run.connect() as client:
            while not is_done.wait(0.3) and lock.renew(client, fence, token):
                pass

    def wait():
        with run.connect() as client:
            number, _token = lock.acquire(client)
            other_is_in.set()
            lock.release(client, number)

    threads = [threading.Thread(target=target) for target in [renew, wait]]
    for thread in threads:
        thread.start()
    time.sleep(4.5)  # The work.
    is_done.set()
    was_other_in = other_is_in.is_set()
    is_held = lock.renew(client, fence, token)
    print("  it was", "held all the time" if is_held else "lost, and the worker was told")
    run.check(not (was_other_in and is_held), "nobody else had it while it was held")
    lock.release(client, fence)
    for thread in threads:
        thread.join()
    run.check(other_is_in.is_set(), "after its release the other client got it")


def main(run, client):
    for part in [naive_release, exclusion, paused_holder, renewal]:
        part(run, client)


example.main("locks", main)
