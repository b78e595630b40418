"""
Components: which a host has, and what each SLS includes
========================================================

``registry`` is what ``immich/components.yaml`` holds.
"""

from host_core import pillar
from immich_core import findings

# What an entry requires that requires every other component of the host.
ALL = "all"
# What of an entry is looked at on a host, by preflight checks, verification and doctor.
_OBSERVED = ("units", "checks", "warnings", "obstacles")
# Code of the finding that an SLS is of another role.
OTHER_ROLE = "other-role"


def of_host(registry, settings):
    """Names of the components of a host, in the order in which they are applied."""
    return [name for name in _ordered(registry) if _belongs(registry[name], settings)]


def observed(registry, names):
    """What of each component is looked at: its obstacles before, its units, checks and warnings once it is applied."""
    return {name: {key: registry[name].get(key, []) for key in _OBSERVED} for name in names}


def includes(registry, host, left, managed):
    """
    What each SLS of the formula includes, by its name: what it requires, and a removal what has to be removed before.

    host
        Names of the host's components. What another host has is not included here.
    left
        Names of those that left a trace on this host; removals include them, also where its roles no longer do.
    managed
        Names of those whose server this pillar manages on this host.
    """
    here = {*host, *left}
    removed = [name for name in reversed(_ordered(registry)) if registry[name].get("clean", True) and name in here]
    found = {
        "immich": [f"immich.{name}" for name in host],
        "immich.clean": [f"immich.{name}.clean" for name in removed],
    }
    for name, entry in registry.items():
        required = [*requires(registry, name), *(entry.get("requires_managed", []) if name in managed else [])]
        before = [other for other in removed if other != name and name in _requirements(registry, other) & here]
        found[f"immich.{name}"] = [f"immich.{each}" for each in required if _component(each) in host]
        found[f"immich.{name}.clean"] = [f"immich.{other}.clean" for other in before]
    return found


def requires(registry, name):
    """What a component needs on the same host, whatever is managed there."""
    required = registry[name].get("requires", [])
    return [other for other in registry if not _requires_all(registry, other)] if required == ALL else required


def waiting(registry, host):
    """What waits for an SLS where both are in the same run, by its name: each component of the host, as an SLS."""
    return {
        f"immich.{sls}": [f"immich.{each}" for each in names if each in host]
        for name in host
        for sls, names in registry[name].get("before", {}).items()
    }


def other_role(settings, sls):
    """The finding that an SLS is of a component that this host's roles do not bring, or None."""
    name = sls.split(".")[1] if "." in sls else None
    if f"immich.{name}" not in settings["includes"] or name in settings["components"]:
        return None
    roles = ", ".join(settings["roles"])
    seen = f"this host is {roles}, and has no component {name}"
    remedy = f"add the role or the setting that brings it, or do not apply {sls} here"
    return findings.finding(OTHER_ROLE, "pillar", seen, remedy, "immich:roles")


def traces(registry):
    """The file of each component that stays on a host for as long as it is applied, by its name."""
    return {name: entry["trace"] for name, entry in registry.items() if "trace" in entry}


def _ordered(registry):
    """Names in the order in which they are applied."""
    return sorted(registry, key=lambda name: _requires_all(registry, name))


def _belongs(entry, settings):
    if "roles" in entry and not set(entry["roles"]) & set(settings["roles"]):
        return False
    return "only_with" not in entry or pillar.value(settings, entry["only_with"]) is not None


def _requires_all(registry, name):
    return registry[name].get("requires") == ALL


def _requirements(registry, name):
    return {_component(each) for each in (*requires(registry, name), *registry[name].get("requires_managed", []))}


def _component(sls):
    return sls.partition(".")[0]
