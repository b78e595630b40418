"""
Figures of this host for Prometheus
===================================

The states of ``immich.metrics``, and the one that records what a run has done.
"""

import os

from salt.exceptions import CommandExecutionError

from immich_core import status, units
from immich_io import records

__virtualname__ = "immich_metrics"


def __virtual__():
    if "immich_metrics.plan" not in __salt__:
        return False, "The execution module immich_metrics is missing: run saltutil.sync_all"
    return __virtualname__


def written(name):
    """
    Make sure that the figures have been written once. After that the timer writes them.

    name
        Path of the file.

    .. code-block:: yaml

        The metrics of this host are written:
          immich_metrics.written:
            - name: /var/lib/prometheus/node-exporter/immich.prom
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is there"}
    if os.path.exists(name):
        return ret
    changes = {name: {"old": None, "new": "written"}}
    if __opts__["test"]:
        return {**ret, "result": None, "changes": changes, "comment": f"{name} would be written"}
    try:
        __salt__["systemd_unit.call"]("start", units.METRICS)
    except CommandExecutionError as error:
        comment = f"{name} was not written: {error}\nSee `journalctl -u {units.METRICS} -n 50`, then apply again"
        return {**ret, "result": False, "comment": comment}
    if not os.path.exists(name):
        comment = f"There were no errors, but there is no {name}: see `journalctl -u {units.METRICS} -n 50`"
        return {**ret, "result": False, "comment": comment}
    return {**ret, "changes": changes, "comment": f"{name} was written"}


def run_recorded(name):
    """
    Record how long this run has taken, whether it has failed, and for how long an update has kept Immich from
    answering; of a dry run, how many states would change something. It is no change of this host.

    It has to be the last state, ``order: last``, and runs after a failure too.

    name
        What the state is about, for the output.

    .. code-block:: yaml

        This run is recorded:
          immich_metrics.run_recorded:
            - order: last
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The run is recorded for the metrics of this host"}
    try:
        for record, values in status.records_of_run(__running__, __opts__["test"]).items():
            records.note(record, **values)
    except OSError as error:
        return {**ret, "result": False, "comment": str(error)}
    return ret
