"""
The images that Immich's containers are made of
===============================================

Which are missing, and how they are pulled, with progress shown.
"""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import salt.utils.path
from salt.exceptions import CommandExecutionError

from host_core import command, podman
from immich_core import progress, project, run_facts

__virtualname__ = "immich_image"

# Podman's progress bar of a layer; see the function `pulled`.
PULL_BAR = re.compile(r"Copying blob (\w+) \[[^\]]*\] ([\d.]+)\s*(\w+) / ([\d.]+)\s*(\w+)")
UNITS = {"b": 1, "B": 1, **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}}
PULL_TIMEOUT = 3600
# What the journal knows a pull by, as the rest of an apply.
TAG = "immich-apply"


def __virtual__():
    return __virtualname__


def missing(images):
    """
    Return those of a list of image references that this host does not have.

    images
        Full references, as in ``["ghcr.io/immich-app/immich-server:v3.3.1"]``.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_image.missing '["ghcr.io/immich-app/immich-server:v3.3.1"]'
    """
    if not salt.utils.path.which("podman"):
        return list(images)
    try:
        printed = podman.run("image", "inspect", "--format", project.IMAGE_FORMAT, *images)
    except command.CommandError:
        return [image for image in images if not _is_present(image)]
    run_facts.of(__context__).images = (sorted(set(images)), project.image_ids(printed))
    return []


def _is_present(image):
    try:
        podman.run("image", "exists", image)
    except command.CommandError:
        return False
    return True


def pull(image):
    """
    Fetch an image.

    image
        Full reference.

    Its progress is shown on the terminal and in the journal (``journalctl -t immich-apply``).

    Raises CommandExecutionError with the registry's answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_image.pull ghcr.io/immich-app/immich-server:v3.3.1
    """
    begin, report = time.monotonic(), progress.now_and_then(TAG)
    _say(f"Pulling {image}")
    terminal, inner = pty.openpty()  # Podman shows its progress on a terminal only
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    # Not by host_core.podman, which gives Podman no terminal.
    with subprocess.Popen(["podman", "pull", image], stdin=subprocess.DEVNULL, stdout=inner, stderr=inner) as process:
        os.close(inner)
        said, blobs = "", {}
        while (chunk := _read(terminal)) is not None:
            said = (said + chunk)[-20000:]
            blobs = pulled(said, blobs)
            seconds = round(time.monotonic() - begin)
            report(f"Pulling {image}: {_pull_line(blobs)}, {seconds} s")
            if seconds > PULL_TIMEOUT:
                process.kill()
        os.close(terminal)
    if process.returncode:
        words = " ".join(re.sub(r"\x1b\[\w*|Copying (blob|config) [^\r\n]*", "", said).split())[-1500:]
        raise CommandExecutionError(f"podman pull {image}, after {round(time.monotonic() - begin)} s: {words}")
    _say(f"Pulled {image} in {round(time.monotonic() - begin)} s")


def _read(terminal):
    """What was written within a second, or None when the last writer has gone, which a terminal calls an error."""
    try:
        if not select.select([terminal], [], [], 1)[0]:
            return ""
        return os.read(terminal, 65536).decode(errors="replace") or None
    except OSError:
        return None


def pulled(said, before=None):
    """
    Return how far Podman's progress bars are, as ``{blob: [bytes done, bytes]}``.

    said
        What Podman has written to a terminal last.

    before
        What this returned before: Podman shows no size any more of what is done. Default: nothing.

    CLI Example:

    .. code-block:: bash

        salt-call --local immich_image.pulled 'Copying blob 173906380870 [=>---] 3.4MiB / 86.0MiB | 1.2 MiB/s'
    """
    blobs = dict(before or {})
    for blob, done, done_unit, size, size_unit in PULL_BAR.findall(said):
        blobs[blob] = [float(done) * UNITS[done_unit], float(size) * UNITS[size_unit]]
    for blob in re.findall(r"Copying blob (\w+) done", said):
        blobs[blob] = [blobs.get(blob, [0, 0])[1]] * 2
    return blobs


def _pull_line(blobs):
    done, size = (sum(each[index] for each in blobs.values()) / 1024**2 for index in (0, 1))
    return f"{done:.1f} of {size:.1f} MiB" if size else "asking the registry"


def _say(text):
    progress.say(text, TAG)
