"""
One look at systemd for all states of a run that ask after units, as long as the run has changed nothing.
"""

import re

LOOKED = "unit_looks.looked"
UNIT = re.compile(r"[^/]+\.(service|socket|target|timer)")


def statuses(state, *names):
    """
    Return what ``systemd_unit.statuses`` says of units, by name.

    The first to ask has the units looked at that the other states of the run are about too. After a change, and where
    no run is under way, it looks again each time.

    state
        ``globals()`` of the state module that asks, for what Salt's compiler puts there.

    names
        Names of units, each with its kind.
    """
    look = state["__salt__"]["systemd_unit.statuses"]
    run, before = state.get("__instance_id__"), state.get("__running__", {})
    if not run or any(each["changes"] or not each["result"] for each in before.values()):
        return look(*names)
    looked = state["__context__"].get(LOOKED, {})
    if looked.get("run") != run or not looked["units"].keys() >= set(names):
        others = [unit for each in state.get("__lowstate__", ()) for unit in _units(each["name"])]
        looked = {"run": run, "units": look(*dict.fromkeys([*names, *others]))}
        state["__context__"][LOOKED] = looked
    return {name: looked["units"][name] for name in names}


def _units(name):
    """The unit of that name, if it is one, and of a timer the service that it starts."""
    if not UNIT.fullmatch(name):
        return []
    stem, _, kind = name.rpartition(".")
    return [name, f"{stem}.service"] if kind == "timer" else [name]
