"""
For how long the server does not answer while something is changed
==================================================================
"""

import threading
import time

from immich_io import server

# Seconds between two questions, and for an answer. Short, as the address of a container that has just died may never
# refuse.
INTERVAL = 0.05
TIMEOUT = 0.3


class Pings(threading.Thread):
    """
    Asks the server again and again whether it answers, from now until it is stopped.

    urls
        Addresses of its ping; one that answers is enough.
    stopped
        When this run has stopped it, in monotonic seconds, or None.
    served
        Whether it answered before.
    report
        Function that gets a line on how long it has been waited for.

    .. code-block:: python

        pings = downtime.Pings(["http://127.0.0.1:2283/api/server/ping"], None, True, print)
        restart()
        seconds = pings.stop(10)
    """

    def __init__(self, urls, stopped, served, report):
        super().__init__(daemon=True)
        self.urls = urls
        self.report = report
        self.served = served
        self.last_good = stopped or (time.monotonic() if served else None)
        self.failed = stopped is not None or not served
        self.downtime = 0.0
        self.done = threading.Event()
        self.start()

    def run(self):
        began = time.monotonic()
        while not self.done.is_set():
            good = any(server.answers(url, TIMEOUT) for url in self.urls)
            now = time.monotonic()
            if good and self.failed and self.last_good is not None:
                self.downtime += now - self.last_good
            self.last_good = now if good else self.last_good
            self.failed = not good
            if self.failed:
                self.report(f"Waiting for Immich: {self.urls[0]} does not answer yet, {round(now - began)} s")
            self.done.wait(INTERVAL)

    def stop(self, patience):
        """Seconds without an answer, or None if there was none before. Waits so many seconds for a good one."""
        until = time.monotonic() + patience
        while self.failed and time.monotonic() < until:
            time.sleep(INTERVAL)
        self.done.set()
        self.join()
        return round(self.downtime, 2) if self.served else None
