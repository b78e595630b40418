"""
Preflight checks of this host
=============================

The pillar may be valid and the host not ready for it: a port is taken, an address is missing, PostgreSQL's cluster is
another one, Valkey has a password that the pillar does not know. Each would make some state fail in the middle of a
run. The components of this host name the checks in the registry (``obstacles`` in ``immich/components.yaml``). Nothing
here changes anything.
"""

from host_core.listeners import Listeners
from immich_core import component_checks, components
from immich_core.settings import derivation

__virtualname__ = "immich_preflight"

OBSTACLES = "immich_preflight.obstacles"


def __virtual__():
    if "netns.listening" not in __salt__:
        return False, "immich_preflight needs the execution module netns."
    return __virtualname__


def obstacles(settings, sls=""):
    """
    Return what keeps the settings from being applied on this host, as findings (``immich_core.findings``).

    ``path`` is the pillar path that this host cannot fulfil, and ``remedy`` names the pillar lines that it could.
    Only what the components of this host need is checked.

    settings
        The formula's settings.

    sls
        The SLS that is to be applied, as in ``immich.postgres``. If this host's roles do not include its component,
        that is the only obstacle. Defaults to none.

    Called by each SLS of the formula, and by ``immich.doctor``.
    """
    foreign = components.other_role(settings, sls)
    if foreign:
        return [foreign]
    # Every SLS of a run asks, before and after the run has started what listens then.
    cached = __context__.get(OBSTACLES)
    if not cached or cached["of"] != settings:
        cached = {"of": settings, "found": _found(settings)}
        __context__[OBSTACLES] = cached
    return cached["found"]


def of_sls(sls):
    """
    Return what ``immich/settings.jinja`` hands to an SLS of the formula, as a dictionary.

    ``settings`` are empty where the pillar is wrong or this host has ``obstacles``, those of the function of that name.
    A removal has none: what is taken away is taken away whatever else is at its ports, and whatever roles this host
    has now. ``other_role`` is whether its roles do not bring the SLS. ``handed_down`` are the settings as states get
    them in an argument. ``include`` names the parts of ``immich.bootstrap`` to include, ``requires`` what the registry
    has the SLS include besides. ``included`` are the requisites of the latter, ``before`` those of what waits for the
    SLS.

    sls
        The SLS, as in ``immich.postgres``.

    Called by each SLS of the formula.
    """
    declared = __salt__["immich_settings.get"]()
    removes = sls.split(".")[-1] in ("clean", "alone")
    found = obstacles(declared, sls) if declared and not removes else []
    settings = {} if found else declared
    requires = settings["includes"].get(sls, []) if settings else []
    return {
        "settings": settings,
        "handed_down": derivation.handed_down(settings) if settings else {},
        "obstacles": found,
        "other_role": any(each["code"] == components.OTHER_ROLE for each in found),
        "include": ["immich.bootstrap", *_bootstrap_checks(declared, sls), *requires],
        "included": _requisites(requires),
        "before": _requisites(settings["before"].get(sls, [])) if settings else [],
    }


def _requisites(names):
    return [{"sls": each} for each in names]


def _bootstrap_checks(declared, sls):
    """What of ``immich.bootstrap`` an SLS includes besides it."""
    if sls.split(".")[-1] == "clean":
        return ["immich.bootstrap.alone"]
    return ["immich.bootstrap.host"] if declared else []


def _found(settings):
    listeners = Listeners(__salt__["netns.listening"]())
    return component_checks.obstacles_of(settings["components"], __salt__, settings, listeners)
