"""redlock-py: one holder at a time, refused to others, released by a script."""

import threading

from redlock import Redlock
from where import HOST, PORT

manager = Redlock([{"host": HOST, "port": PORT, "db": 1}], retry_count=1)
held = manager.lock("resource", 10_000)
assert held and not manager.lock("resource", 10_000)
manager.unlock(held)
again = manager.lock("resource", 10_000)
assert again
manager.unlock(again)
count, failed = [0], []


def work():
    patient = Redlock([{"host": HOST, "port": PORT, "db": 1}], retry_count=2000, retry_delay=0.005)
    for _ in range(10):
        held = patient.lock("counter", 20_000)
        if not held:
            failed.append(1)
            continue
        count[0] += 1
        patient.unlock(held)


threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert count[0] + len(failed) == 40 and not failed
