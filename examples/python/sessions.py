"""Sessions that live while they are used, end at last, and are over at once when the user logs out.

python3 sessions.py --url redis://127.0.0.1:6379
"""

import secrets
import time

import run as example

MINUTE_MS = 60_000


class Sessions:
    """A session is the key session:USER:RANDOM with the idle TTL; its value: the absolute end, and the generation."""

    def __init__(self, run, idle_ms=MINUTE_MS, whole_ms=MINUTE_MS):
        self.run, self.idle_ms, self.whole_ms = run, idle_ms, whole_ms

    def log_in(self, client, user):
        generation = client.get(self.generation(user)) or 0
        session = self.run.key(f"session:{user}:{secrets.token_hex(16)}")
        client.set(session, f"{time.time() * 1000 + self.whole_ms} {generation}", px=self.idle_ms)
        return session

    def is_logged_in(self, client, user, session):
        # GETEX reads and renews in one step and makes nothing: what was logged out a moment ago stays so.
        value = client.getex(session, px=self.idle_ms)
        if value is None:
            return False
        end_ms, generation = value.split()
        if time.time() * 1000 < float(end_ms) and generation == (client.get(self.generation(user)) or "0"):
            return True
        client.delete(session)
        return False

    def log_out(self, client, session):
        client.delete(session)

    def log_out_everywhere(self, client, user):
        client.incr(self.generation(user))  # In one step; a walk may miss a session that begins meanwhile.

    def of(self, client, user):
        return set(client.scan_iter(self.run.key(f"session:{user}:*"), count=1000))

    def generation(self, user):
        return self.run.key(f"user:{user}:generation")


def naive_ttl(run, client):
    print("\nThe naive session: a TTL at the log-in, and GET with each use.")
    session, begin = run.key("naive"), time.monotonic()
    client.set(session, "ada", px=1500)
    example.wait_until(lambda: client.get(session) is None)
    run.check(True, f"an active user is thrown out after {time.monotonic() - begin:.1f} s, in the middle of it")


def idle_ttl(run, client):
    print("\nAn idle TTL: each use renews it. Eight users are active for twice as long, one rests.")
    sessions = Sessions(run, idle_ms=1500)
    resting = sessions.log_in(client, "rest")

    def use(number, client):
        session = sessions.log_in(client, f"user{number}")
        begin = last = time.monotonic()
        while time.monotonic() - begin < 3:
            time.sleep(0.1)
            now = time.monotonic()
            if not sessions.is_logged_in(client, f"user{number}", session):
                return time.monotonic() - last > 1.4  # It was idle, since the machine stood still.
            last = now
        return True

    run.check(all(run.at_once(8, use)), "no session has ended that was in use")
    example.wait_until(lambda: not client.exists(resting))
    run.check(not sessions.is_logged_in(client, "rest", resting), "the one that was not used is gone, by itself")


def absolute_end(run, client):
    print("\nAn absolute end, 4 s after the log-in: it stands in the value, where no renewal reaches it.")
    sessions, begin = Sessions(run, idle_ms=1500, whole_ms=4000), time.monotonic()
    session = sessions.log_in(client, "ada")
    example.wait_until(lambda: not sessions.is_logged_in(client, "ada", session))
    lived = time.monotonic() - begin
    run.check(lived > 1.5 and not client.exists(session), f"used all the time, it has ended after {lived:.1f} s")


def log_out(run, client):
    print("\nLog-out while another request is under way.")
    sessions = Sessions(run)
    session = sessions.log_in(client, "ada")
    value = client.get(session)
    sessions.log_out(client, session)
    client.set(session, value, px=MINUTE_MS)
    run.check(sessions.is_logged_in(client, "ada", session), "naive: renewed by SET, it is back after its log-out")
    session = sessions.log_in(client, "ada")
    sessions.log_out(client, session)
    run.check(not sessions.is_logged_in(client, "ada", session), "renewed by GETEX, it stays gone")


def every_session(run, client):
    print("\nAll sessions of a user: to show them (SCAN), and to end them all (a generation).")
    sessions = Sessions(run)
    bob = sessions.log_in(client, "bob")
    of_eve = run.at_once(8, lambda _, client: sessions.log_in(client, "eve"))
    run.check(sessions.of(client, "eve") == set(of_eve), "SCAN shows the 8 that eve has begun")
    sessions.log_out_everywhere(client, "eve")
    are_in = [sessions.is_logged_in(client, "eve", session) for session in of_eve]
    run.check(not any(are_in), "one INCR, and all are over")
    run.check(sessions.is_logged_in(client, "bob", bob), "those of others are as they were")


def main(run, client):
    for part in [naive_ttl, idle_ttl, absolute_end, log_out, every_session]:
        part(run, client)


example.main("sessions", main)
