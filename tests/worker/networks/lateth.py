"""What keeps a process from ending, or from ending well, after the work is done."""

import atexit
import os
import threading
import time

from tiny import Net


def tick():
    while True:
        time.sleep(0.5)


def make():
    """A thread that never ends, an exit handler that raises, and one that changes the exit status."""
    if threading.active_count() < 3:
        threading.Thread(target=tick, name="exporter", daemon=False).start()
    atexit.register(lambda: os._exit(9))
    atexit.register(lambda: 1 / 0)
    return Net()


class _Crashes:
    def __del__(self):
        os.abort()


KEPT = _Crashes()
