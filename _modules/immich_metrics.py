"""
Figures of this host for Prometheus
===================================

With ``immich:metrics:enabled`` Immich publishes its own metrics, and a timer writes those of this host for the textfile
collector of node_exporter. ``immich.status`` returns the same figures as data.
"""

import logging
import os
import time
from pathlib import Path

from salt.exceptions import CommandExecutionError

from host_core import addresses, durable, unit_file
from immich_core import exposition, findings, units
from immich_core.obstacles import ports
from immich_host import releases, salt_call, telemetry
from immich_io import records

LOG = logging.getLogger(__name__)
# The doctor's row.
PART = telemetry.PART
NAME = "immich.prom"
# For a Prometheus and a Grafana, wherever they are.
SHARED = "/usr/local/share/immich-formula"
# When the timer starts the service, and the age in seconds from which the figures are outdated.
SCHEDULE, OUTDATED = "*:0/15", 3600
# Nobody waits for it: seconds that each check of the doctor may take.
PATIENCE = 20


def __virtual__():
    if "systemd_unit.status" not in __salt__:
        return False, "immich_metrics needs the execution module systemd_unit."
    return True


def plan(settings):
    """
    Return what the files and states of ``immich.metrics`` need, decided once.

    ``{"directory": of the textfile collector, "textfile": path, "command": for ExecStart, "schedule": …, "shared":
    directory of the alert rules and the dashboard, "records": directory, "files": {unit files}, "present": whether
    there is anything to remove}``

    settings
        The formula's settings, as of ``immich_settings.get``.

    Called by the SLS ``immich.metrics``.
    """
    textfile = _textfile(settings)
    words = salt_call.words(__opts__, "immich_metrics.write", textfile)
    files = {"timer": units.file(units.METRICS_TIMER), "service": units.file(units.METRICS)}
    return {
        "directory": settings["metrics"]["textfile_directory"],
        "textfile": textfile,
        "command": " ".join(map(unit_file.command_word, words)),
        "schedule": SCHEDULE,
        "shared": SHARED,
        "records": str(records.DIRECTORY),
        "files": files,
        # They are removed last.
        "present": any(map(os.path.lexists, files.values())),
    }


def _textfile(settings):
    return f"{settings['metrics']['textfile_directory']}/{NAME}"


def obstacles(settings, listeners):
    """
    Return what keeps Immich's metrics from being published on this host, as findings: an address that is not there, a
    port that is taken.

    settings
        The formula's settings.

    listeners
        The sockets that listen on this host (``host_core.listeners``).

    Called by ``immich_preflight.obstacles``.
    """
    metrics = settings["metrics"]
    if not metrics["enabled"]:
        return []
    listen, keys = [metrics["listen"]], ("api_port", "microservices_port")
    sockets = listeners.with_holders({metrics[key] for key in keys})
    found = [*ports.of_addresses(listen, addresses.is_here, "metrics:listen")]
    for key in keys:
        found += ports.of_immich(metrics[key], listen, sockets, f"metrics:{key}")
    return found


def verify(settings, timeout=10):
    """
    Return what of the metrics is not as declared, as findings (``immich_core.findings``): Immich does not publish its
    own, or those of this host are not written.

    settings
        The formula's settings.

    timeout
        Seconds for each of Immich's answers, 10 by default.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    if not settings["metrics"]["enabled"]:
        return []
    return [*telemetry.silent(settings, timeout), *_not_written(_textfile(settings))]


def _not_written(textfile):
    there = __salt__["systemd_unit.statuses"](units.METRICS, units.METRICS_TIMER)
    service, timer = there[units.METRICS], there[units.METRICS_TIMER]
    apply = findings.apply("immich.metrics")
    if timer["active"] != "active" or timer["enabled"] != "enabled":
        seen = "does not run, or not after a boot: the metrics of this host are not written"
        return [findings.finding("metrics-timer", PART, seen, apply, units.METRICS_TIMER)]
    if service["active"] == "failed":
        seen = "failed: the metrics of this host are not written"
        return [findings.finding("metrics-failed", PART, seen, f"journalctl -u {units.METRICS} -n 50", units.METRICS)]
    if service["active"] == "activating":  # as where it is the one that asks
        return []
    age = _age(textfile)
    if age is None or age > OUTDATED:
        seen = "is missing" if age is None else f"is {age / 60:.0f} minutes old"
        return [findings.finding("metrics-outdated", PART, seen, f"systemctl start {units.METRICS}", textfile)]
    return []


def _age(path):
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return None


def write(path, timeout=PATIENCE):
    """
    Write the figures of this host for Prometheus, and return the path of the file.

    The file is replaced in one step. With ``immich:update:check_releases`` the registry is asked for its tags, unless
    it was within a day. The beacon ``immich`` reads the same figures from a file of its own.

    path
        The file, in the directory of node_exporter's textfile collector.

    timeout
        Seconds that each check of the doctor may take, 20 by default.

    Raises ``CommandExecutionError`` if a file cannot be written.

    Called by ``immich-metrics.service``.

    CLI Example:

    .. code-block:: bash

        salt-call immich_metrics.write /var/lib/prometheus/node-exporter/immich.prom
    """
    settings = __salt__["immich_settings.get"]()
    if settings and settings["update"]["check_releases"]:
        problem = releases.refresh(settings["server"]["image"])
        if problem:
            LOG.warning("Releases of Immich are not known: %s", problem)
    found = __salt__["immich.status"](timeout)
    try:
        records.note(records.STATUS, **found)
        durable.write(Path(path), exposition.text(found), 0o644)
    except OSError as error:
        raise CommandExecutionError(str(error)) from error
    return path
