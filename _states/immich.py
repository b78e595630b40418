"""
Applying the formula: a run whose modules have only just been synced, and an invalid pillar
===========================================================================================

Used by ``immich/settings.jinja`` and ``immich/bootstrap``. Nothing else has a use for it.
"""

import importlib
import os
import sys

from immich_core import findings

__virtualname__ = "immich"
APPLYING = "immich.applying"
NOT_LOADED = (
    "The formula's modules were synced and do not load. `salt-call immich.doctor` and `salt-call -l debug test.ping` "
    "say why. If a library is incomplete, type `python -m pip install --force-reinstall redis psycopg2-binary "
    "jsonschema` with Salt's Python. Then apply again"
)


def __virtual__():
    return __virtualname__


def applied(name):
    """
    Make sure that an SLS of the formula is applied with the modules that this run has synced.

    A run is rendered before its first state has run, so the SLS that needs the modules is rendered again here. Its
    states appear in the output like those of any other SLS.

    name
        The SLS, as in ``immich.postgres``.

    .. code-block:: yaml

        Immich is applied with the modules just synced:
          immich.applied:
            - name: immich
    """
    ret = {
        "name": name,
        "changes": {},
        "result": True,
        "comment": f"{name} was applied with the modules just synced",
    }
    if APPLYING in __context__:
        return {**ret, "result": False, "comment": NOT_LOADED}
    arguments = {"concurrent": True, "test": __opts__["test"], "saltenv": __env__}
    if "immich" in __pillar__:
        # The outer run may have been given its pillar on the command line.
        arguments["pillar"] = {"immich": __pillar__["immich"]}
    _forget_packages()
    __context__[APPLYING] = name  # the inner run has a copy
    try:
        answer = __salt__["state.sls"](name, **arguments)
    finally:
        del __context__[APPLYING]
    if not isinstance(answer, dict):
        ret.update(result=False, comment="\n".join(map(str, answer)))
        return ret
    states = sorted(answer.items(), key=lambda item: item[1].get("__run_num__", 0))
    # Salt keeps no warnings of inner states. An empty list would be shown as a warning.
    warnings = [text for _, state in states for text in state.get("warnings", [])]
    if warnings:
        ret["warnings"] = warnings
    ret["sub_state_run"] = [_sub_state(tag, state) for tag, state in states]
    if any(state["result"] is False for _, state in states):
        ret.update(result=False, comment=f"{name} was applied with the modules just synced, and failed; see below")
    return ret


def _forget_packages():
    """Python keeps an imported package for the life of the process, whatever is synced meanwhile."""
    packages = os.listdir(os.path.join(__opts__["extension_modules"], "utils"))
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _sub_state(tag, state):
    """
    What Salt wants to know of a state of an inner run, to show it in the outer one.

    Not its duration, as in Salt's own ``idem.state``: Salt sums all durations, and that of the inner run is the outer
    state's already.
    """
    kind, identifier, name, function = tag.split("_|-")
    low = {"state": kind, "__id__": identifier, "name": name, "fun": function}
    kept = ("changes", "result", "start_time", "comment")
    return {"low": low, "name": name, **{key: state[key] for key in kept if key in state}}


def pillar_valid(name, errors, warnings=()):
    """
    Report everything that is wrong with the pillar at once.

    name
        What the state is about, for the output.

    errors
        List of findings, as from ``immich_settings.errors``. An empty list is success.

    warnings
        What is allowed but not advisable: a list of the same form, as from ``immich_settings.warnings``. Default:
        none.

    .. code-block:: yaml

        The pillar is valid:
          immich.pillar_valid:
            - errors: []
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The pillar is valid"}
    if warnings:
        ret["warnings"] = list(map(findings.seen, warnings))
    if errors:
        ret["result"] = False
        lines = "\n".join(map(findings.seen, errors))
        ret["comment"] = f"The pillar is invalid; nothing was changed. Fix these and apply again:\n{lines}"
    return ret


def host_ready(name, obstacles):
    """
    Report all obstacles of this host at once.

    name
        What the state is about, for the output.

    obstacles
        List of findings, as from ``immich_preflight.obstacles``. An empty list is success.

    .. code-block:: yaml

        This host is ready for Immich:
          immich.host_ready:
            - obstacles: []
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Nothing on this host is in the way"}
    if obstacles:
        ret["result"] = False
        lines = "\n".join(map(findings.sentence, obstacles))
        ret["comment"] = f"Nothing was changed. Fix these and apply again:\n{lines}"
    return ret
