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
