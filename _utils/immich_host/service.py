"""
Immich's service: stop, start, and whether it serves
====================================================
"""

import time

from salt.exceptions import CommandExecutionError

from host_core import command
from immich_core import compose, run_facts
from immich_host import identity
from immich_io import compose_file, containers, downtime, progress, server, update_record

# Seconds for an answer of a server that nobody has stopped yet: a busy one must not be taken for one that is down.
FIRST_PING_TIMEOUT = 3
# Seconds that a server which has just been said to answer may take for one more answer.
LAST_PING_TIMEOUT = 10
# A reload recreates what differs; the rest serves on. A unit between two states is at work with what was before.
VERBS = {"active": "reload", "inactive": "start", "failed": "start"}


def stop(unit, settings, run, salt):
    """
    Stop the service and whatever of its containers is left, also those that were started by hand.

    unit
        Name of the systemd unit.
    settings
        The formula's settings.
    run, salt
        The ``__context__`` of the run, and Salt's execution functions by name (``__salt__``).

    Raises CommandExecutionError if it cannot be stopped.
    """
    if serves(settings, run):
        run_facts.of(run).served_until = time.monotonic()
    directory = identity.project_dir(settings)
    salt["systemd_unit.call"]("stop", unit)
    with command.raised_as(CommandExecutionError):
        containers.remove(directory)


def serves(settings, run):
    """
    Return whether the server answers, or did until this run stopped it, at the address of the current compose
    file or of the one before it.

    settings
        The formula's settings.
    run
        The ``__context__`` of the run.
    """
    stopped = run_facts.of(run).served_until is not None
    return stopped or any(server.answers(url, FIRST_PING_TIMEOUT) for url in _ping_urls(settings))


def bring_up(unit, settings, run, salt):
    """
    Make systemd run the containers of the compose file, enabled at boot, and wait until the server answers.

    Returns for how long the server did not answer, in seconds from the last good ping to the first, or None if it did
    not answer before. Resolution: 0.05 s.

    unit
        Name of the systemd unit.
    settings
        The formula's settings.
    run, salt
        The ``__context__`` of the run, and Salt's execution functions by name (``__salt__``).

    Raises CommandExecutionError if the server does not come up.
    """
    before = salt["systemd_unit.status"](unit)
    if before["outdated"]:
        salt["systemd_unit.call"]("daemon-reload")
    if before["enabled"] != "enabled":
        salt["systemd_unit.call"]("enable", unit)
    report = progress.now_and_then("immich-apply")
    served = serves(settings, run)
    known = run_facts.of(run)
    pings = downtime.Pings(_ping_urls(settings), known.take("served_until"), served, report)
    try:
        salt["systemd_unit.call"](VERBS.get(before["active"], "restart"), unit)
    except CommandExecutionError:
        if pings.stop(0) is not None:
            known.served_until = pings.last_good
        raise
    return pings.stop(LAST_PING_TIMEOUT)


def _ping_urls(settings):
    """Of the current compose file, and of the one that served before it: a change may move the address."""
    directory = identity.project_dir(settings)
    texts = (compose_file.read(f"{directory}/docker-compose.yml"), _former_compose(directory))
    found = [compose_file.ping_url(text) for text in texts if text]
    return list(dict.fromkeys(filter(None, found))) or [compose.ping_url(settings)]


def _former_compose(directory):
    try:
        return update_record.former_compose(directory)
    except update_record.DamagedError as error:
        raise CommandExecutionError(str(error)) from error
