"""
Beacon of Immich: an event when a part of the doctor changes its result
=======================================================================

Reads what ``immich-metrics.service`` has written last (``immich:metrics:enabled``), and raises an event
``salt/beacon/MINION/immich/health`` for each part whose result is another one than at the last event, with ``part``,
``old`` and ``new``: ``ok``, ``warning``, ``failed``, or None for a part that is new or gone. The first time, each part
that is not ``ok`` counts as changed. What was reported is kept in a file, so that a restart of the minion repeats and
misses nothing.

.. code-block:: yaml

    beacons:
      immich:
        - interval: 60
"""

import logging

from immich_core import status
from immich_io import records

LOG = logging.getLogger(__name__)
__virtualname__ = "immich"


def __virtual__():
    return __virtualname__


def validate(config):
    """Nothing is to be configured but the interval, which Salt itself checks."""
    if not isinstance(config, list):
        return False, "Configuration for the beacon immich must be a list."
    return True, "Valid beacon configuration"


def beacon(config):
    """The events since the last call."""
    now = records.read(records.STATUS).get("parts")
    if now is None:
        return []
    changed = status.changed_parts(records.read(records.REPORTED).get("parts", {}), now)
    if changed:
        try:
            records.note(records.REPORTED, parts=now)
        except OSError as error:  # the same events would come again and again
            LOG.error("The beacon immich raises no events: %s", error)
            return []
    return [{"tag": "health", "part": part, **each} for part, each in changed.items()]
