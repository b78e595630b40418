"""
Immich's site in Caddy
======================

The states of ``immich.proxy``. ``settings`` is what ``immich_settings.get`` returns.
"""

import shutil
import time

from salt.exceptions import CommandExecutionError

from host_core.command import CommandError
from immich_host import proxy as on_host

__virtualname__ = "immich_proxy"

# What a state reports as its comment.
FAILURES = (CommandExecutionError, CommandError, OSError, ValueError, KeyError)
RELOADED = {"caddy": {"old": "outdated", "new": "reloaded"}}


def __virtual__():
    if "immich_proxy.verify" not in __salt__:
        return False, "The state immich_proxy needs the execution module immich_proxy."
    return __virtualname__


def site_present(name, settings):
    """
    Make sure that Caddy serves Immich's site, with a certificate for each name.

    Caddy reads the new files before it loads them, and other sites stay as they are. If it refuses them, or gets no
    certificate, the former files are put back and loaded: the site is as it was.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich's site is served by Caddy:
          immich_proxy.site_present:
            - settings: {{ settings | json }}
    """
    names = ", ".join(settings["proxy"]["domains"])
    ret = {"name": name, "changes": {}, "result": True, "comment": f"Caddy serves {names}"}
    try:
        desired = on_host.desired(settings)
        before = on_host.differing(desired)
        # Before Caddy is installed, in a dry run, nothing is loaded.
        loaded = shutil.which(on_host.PROGRAM) and (before or not on_host.outdated(settings))
        ret["changes"] = _changes(before, desired, reloaded=not loaded or before)
        if not ret["changes"]:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"Caddy would serve {names}"}
        _load(settings, {path: desired[path] for path in before}, certified=True)
        if on_host.outdated(settings):
            raise CommandExecutionError("There were no errors, but Caddy has not loaded the site")
    except FAILURES as error:
        return {**ret, "result": False, "changes": {}, "comment": f"{error}. {_AS_IT_WAS}"}
    return {**ret, "comment": f"Caddy serves {names} now"}


_AS_IT_WAS = "Caddy's files are as they were. Then apply again"


def site_absent(name, settings):
    """
    Make sure that Caddy has no site for Immich. Caddy itself and its other sites stay.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        Caddy has no site for Immich:
          immich_proxy.site_absent:
            - settings: {{ settings | json }}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Caddy has no site for Immich"}
    try:
        desired = on_host.without(settings)
        before = on_host.differing(desired)
        ret["changes"] = _changes(before, desired)
        if not before:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "comment": "Immich's site would be removed from Caddy"}
        _load(settings, {path: desired[path] for path in before})
    except FAILURES as error:
        return {**ret, "result": False, "changes": {}, "comment": f"{error}. {_AS_IT_WAS}"}
    return {**ret, "comment": "Immich's site is removed from Caddy"}


def _changes(before, desired, reloaded=False):
    """What of each file differs: whether it is there, as a key is among them."""
    words = {path: {"old": "outdated" if held is not None else None, "new": "written"} for path, held in before.items()}
    removed = {path: {"old": "present", "new": None} for path in before if desired[path] is None}
    return {**words, **removed, **(RELOADED if reloaded else {})}


def _load(settings, files, certified=False):
    """Write files and have Caddy load them; put back what was there if that fails."""
    former = {path: on_host.current(path) for path in reversed(files)}
    active, since, loaded = on_host.active(settings), time.time(), False
    try:
        on_host.write(settings, files)
        if active:
            on_host.validate(settings)
            loaded = True
            on_host.reload(settings)
        if certified:
            on_host.wait_for_certificates(settings, since)
    except FAILURES:
        on_host.write(settings, former)
        if loaded:
            on_host.reload(settings)
        raise
