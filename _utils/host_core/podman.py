"""
Podman's command line
=====================

What calls Podman, calls it here.
"""

import subprocess

from host_core import command, pseudo_terminal, pull_progress

# Seconds. It works on its database under a lock, and ``podman rm`` waits for each container to stop.
DEADLINE = 600
PULL_DEADLINE = 3600
# Of what a container has logged, in bytes.
LARGEST_LOG = 1024**2


class GoneError(command.CommandError):
    """There is no such container, or not any more."""


def run(*arguments, seconds=DEADLINE, size=command.LARGEST_OUTPUT, check=True):
    """
    Return what ``podman ARGUMENTS`` prints.

    arguments
        Its words.
    seconds
        When it is killed. Defaults to 600.
    size
        Bytes of each of its outputs, at which it is killed. Defaults to 16 MiB.
    check
        Whether an exit code other than 0 is an error. Defaults to ``True``.

    Raises ``CommandError`` if it fails, is killed or is not installed, and ``GoneError``, which is one, if it says that
    there is no such container.

    .. code-block:: python

        podman.run("network", "ls", "--format", "json")
    """
    try:
        return command.run(["podman", *arguments], seconds, size, check)
    except command.CommandError as error:
        if "no such container" in error.words:
            raise GoneError(error.command, error.code, error.words) from error
        raise


def remove(*containers, seconds=30):
    """
    Stop and remove containers, if there are such.

    containers
        Their names or IDs.
    seconds
        When one that has not stopped is killed. Defaults to 30.

    Raises ``CommandError`` if one is left.

    .. code-block:: python

        podman.remove("immich-server")
    """
    words = ["rm", "--force", "--time", str(seconds), *containers]
    try:
        run(*words)
    except command.CommandError as error:
        # Its monitor was killed, as by systemd with a unit that is stopped while it starts. Podman fails for want of
        # an exit code, but notes that the container has stopped (libpod/container_internal.go of Podman 5.4).
        if "conmon exited prematurely" not in error.words:
            raise
        run(*words)


def logs(container, *options, seconds=10, size=LARGEST_LOG):
    """
    Return what a container has logged, in both of its outputs, until ``size`` bytes are there or the time is up.

    container
        Its name or id.
    options
        Those of ``podman logs``.
    seconds, size
        Default to 10 seconds and 1 MiB.

    Raises ``CommandError`` if Podman is not installed.

    .. code-block:: python

        podman.logs("shop", "--tail", "20")
    """
    words = ["podman", "logs", *options, container]
    with command.startable(words):
        return command.read(words, seconds, size, merged=True).stdout


def follow(container, *options):
    """
    Start to follow what a container logs, and return the process, whose ``stdout`` is text.

    container, options
        As for :py:func:`logs`.

    .. code-block:: python

        podman.follow("shop", "--since", "0").stdout.readline()
    """
    return subprocess.Popen(
        ["podman", "logs", "--follow", *options, container],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=command.environment(),
        text=True,
        errors="replace",
    )


def pull(image, heard):
    """
    Fetch an image.

    image
        Full reference.
    heard
        Function that is called with what Podman wrote last, as for ``host_core.pull_progress``.

    Raises ``CommandError`` with the registry's answer, or if that took longer than an hour.

    .. code-block:: python

        podman.pull("docker.io/library/alpine:3", print)
    """
    words = ["podman", "pull", image]
    with command.startable(words):
        ended = pseudo_terminal.run(words, heard, PULL_DEADLINE)
    if ended.code:
        raise command.CommandError(words, ended.code, pull_progress.last_words(ended.stdout)[-command.LAST_WORDS :])
    if ended.code is None:
        raise command.CommandError(words, None, f"it did not end within {PULL_DEADLINE} s")
