"""
systemd's command line
======================

What calls systemd, calls it here.
"""

from host_core import command


def run(*arguments):
    """
    Return what ``systemctl ARGUMENTS`` prints, without the line's end.

    It has no deadline: that of a job is the unit's own, as of ``TimeoutStartSec=``.

    arguments
        Its words.

    Raises ``CommandError`` if it fails or there is no systemd.

    .. code-block:: python

        systemctl.run("reload-or-restart", "shop.service")
    """
    return command.run(["systemctl", *arguments]).rstrip()
