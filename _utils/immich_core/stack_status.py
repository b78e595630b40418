"""
The status of immich-stack, which `systemctl status immich` shows
=================================================================

One line, made and read here alone. Up to the first colon it is data: that Immich serves, or what became of which
containers. The rest is for people, and may quote a container.
"""

from collections import namedtuple

# What became of a container.
EXITED, REMOVED, STOPPED = "exited", "removed", "stopped"
SERVING = "Serving"
# ``serving``: whether all containers run and the server answers. ``exited``: names of services whose container exited.
Status = namedtuple("Status", "serving exited")


def text(url, troubles):
    """
    Return the status of a stack whose server has answered.

    url
        Where it does.
    troubles
        What became of containers, and the words for people: ``{service: (EXITED, "2 time(s) in a row")}``.

    .. code-block:: python

        stack_status.text("http://127.0.0.1:2283/api/server/ping", {})
    """
    if not troubles:
        return f"{SERVING}: {url}"
    names = sorted(troubles)
    became = ", ".join(f"{name} {troubles[name][0]}" for name in names)
    words = [troubles[name][1] if len(names) == 1 else f"{name}: {troubles[name][1]}" for name in names]
    return f"{became}: {'; '.join(words)}"


def read(status):
    """
    Return what a status says, as ``Status``. While Immich starts, and of a unit that has failed, it says neither.

    status
        The line.

    .. code-block:: python

        stack_status.read("Serving: http://127.0.0.1:2283/api/server/ping").serving
    """
    head = status.partition(": ")[0]
    became = [words.split(" ") for words in head.split(", ")]
    exited = {words[0] for words in became if words[1:] == [EXITED]}
    return Status(head == SERVING, exited)
