"""
What the program of a unit said last, before it gave up
=======================================================
"""

from host_core import command, systemctl, terminal
from immich_core import units

# What is read of the journal, in seconds and bytes: what Immich logs stands in it.
SECONDS, LARGEST_LINE = 20, 65536


def of(unit=units.IMMICH):
    """
    Return why the unit's program gave up at its last start, or an empty string.

    What earlier starts have said does not count, nor what a container has logged in the same words: the program itself
    writes that line last, as the main process of this start.

    unit
        Name of the unit. Defaults to ``immich.service``.

    .. code-block:: python

        last_words.of("immich.service")
    """
    try:
        invocation = systemctl.run("show", "--property=InvocationID", "--value", unit)
        if not invocation:
            return ""
        fields = [f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat", "--lines=1", "--grep=^immich-stack: "]
        return terminal.one_line(command.run(["journalctl", *fields], SECONDS, LARGEST_LINE))
    except command.CommandError:  # no such line, or no systemd that answers
        return ""
