"""
Whether machine learning answers the server
===========================================
"""

import time

from salt.exceptions import CommandExecutionError

from host_core import command
from immich_core import compose, findings
from immich_io import containers


def silent(salt, pid=None, patience=0):
    """
    Return how machine learning fails to answer, as a list of one finding, which is empty if it answers.

    It is asked from inside the server's network, by name, as the server does.

    salt
        Salt's execution functions by name (``__salt__``).
    pid
        Process of the server's container, as it was when this run has looked last. Looked up by default.
    patience
        Seconds to try again, 0 by default.
    """
    url = f"http://{compose.MACHINE_LEARNING}:3003/ping"
    until = time.monotonic() + patience
    while True:
        try:
            if "pong" in salt["netns.http_get"](str(pid or containers.server_pid()), url):
                return []
            words = "the answer is not that of machine learning"
        except (CommandExecutionError, command.CommandError) as error:
            words = str(error)
        if pid:  # The container may be another one by now.
            pid = None
            continue
        if time.monotonic() > until:
            break
        time.sleep(0.5)
    seen = f"The server does not reach {url}: {words}"
    remedy = f"podman logs --tail 20 {compose.MACHINE_LEARNING}"
    return [findings.finding("machine-learning-silent", "machine learning", seen, remedy)]
