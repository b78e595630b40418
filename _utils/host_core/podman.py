"""
Podman's command line
=====================

What calls Podman, calls it here.
"""

from host_core import command

# Seconds. It works on its database under a lock, and ``podman rm`` waits for each container to stop.
DEADLINE = 600


class GoneError(command.CommandError):
    """There is no such container, or not any more."""


def run(*arguments, seconds=DEADLINE, check=True):
    """
    Return what ``podman ARGUMENTS`` prints.

    arguments
        Its words.
    seconds
        When it is killed. Defaults to 600.
    check
        Whether an exit code other than 0 is an error. Defaults to ``True``.

    Raises ``CommandError`` if it fails, is killed or is not installed, and ``GoneError``, which is one, if it says that
    there is no such container.

    .. code-block:: python

        podman.run("network", "ls", "--format", "json")
    """
    try:
        return command.run(["podman", *arguments], seconds, check=check)
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
