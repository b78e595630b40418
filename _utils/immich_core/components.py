"""
Components: which a host has, and what each SLS includes
========================================================

``registry`` is what ``immich/components.yaml`` holds.
"""

from host_core import pillar
from immich_core import findings

# What of an entry is about the running component, for verification and doctor.
_OBSERVED = ("units", "checks", "warnings")


def of_host(registry, settings):
    """Names of the components of a host, in the order in which they are applied."""
    return [name for name, entry in registry.items() if _has(entry, settings)]


def _has(entry, settings):
    if "roles" in entry and not set(entry["roles"]) & set(settings["roles"]):
        return False
    return "only_with" not in entry or pillar.value(settings, entry["only_with"]) is not None


def observed(registry, names):
    """What of each component is looked at once it is applied: its units, its checks and its warnings."""
    return {name: {key: registry[name].get(key, []) for key in _OBSERVED} for name in names}


def includes(registry, host, left, managed):
    """
    What each SLS of the formula includes, by its name: what it requires, and a removal what has to be removed before.

    host
        Names of the host's components. What another host has is not included here.
    left
        Names of those that left a trace on this host; removals include them, also where its roles no longer do.
    managed
        Names of those whose server this pillar manages.
    """
    here = {*host, *left}
    removed = [name for name in reversed(registry) if registry[name].get("clean", True) and name in here]
    found = {
        "immich": [f"immich.{name}" for name in host],
        "immich.clean": [f"immich.{name}.clean" for name in removed],
    }
    for name, entry in registry.items():
        required = [*entry.get("requires", []), *(entry.get("requires_managed", []) if name in managed else [])]
        before = [other for other in removed if other != name and name in _requirements(registry[other]) & here]
        found[f"immich.{name}"] = [f"immich.{each}" for each in required if _component(each) in host]
        found[f"immich.{name}.clean"] = [f"immich.{other}.clean" for other in before]
    return found


def other_role(settings, sls):
    """The finding that an SLS is of a component that this host's roles do not bring, or None."""
    name = sls.split(".")[1] if "." in sls else None
    if f"immich.{name}" not in settings["includes"] or name in settings["components"]:
        return None
    roles = ", ".join(settings["roles"])
    seen = f"this host is {roles}, and has no component {name}"
    remedy = f"add the role or the setting that brings it, or do not apply {sls} here"
    return findings.finding("other-role", "pillar", seen, remedy, "immich:roles")


def traces(registry):
    """The file of each component that stays on a host for as long as it is applied, by its name."""
    return {name: entry["trace"] for name, entry in registry.items() if "trace" in entry}


def _requirements(entry):
    return {_component(each) for each in (*entry.get("requires", []), *entry.get("requires_managed", []))}


def _component(sls):
    return sls.partition(".")[0]
