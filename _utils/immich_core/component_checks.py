"""
What the registry of components has looked at: units that run, and functions that return findings
==================================================================================================

``components`` is a dictionary of components by name, each with ``units``, ``checks``, ``warnings`` and ``obstacles``
(``module.function``), as ``immich/components.yaml`` has them. ``functions`` are Salt's execution functions by name.
"""

import logging

from host_core import unit_states
from immich_core import findings

LOG = logging.getLogger(__name__)
# A row of the doctor's table.
PART = "components"


def findings_of(components, functions, settings, without=()):
    """
    Return what does not hold, by the units and checks of all components, in their order.

    components, functions
        As above.
    settings
        The formula's settings, with which each check is called.
    without
        Names of checks that are not asked. Defaults to none.

    .. code-block:: python

        component_checks.findings_of(settings["components"], __salt__, settings)
    """
    found = []
    for component in components.values():
        for unit in component.get("units", []):
            found += _of_unit(unit, functions)
        found += _of_functions(component.get("checks", []), functions, [settings], without)
    return found


def warnings_of(components, functions, settings, without=()):
    """
    Return what a person should know of all components and what is no fault of an apply, by their ``warnings``.

    components, functions, settings, without
        As for :py:func:`findings_of`.

    .. code-block:: python

        component_checks.warnings_of(settings["components"], __salt__, settings)
    """
    names = [name for component in components.values() for name in component.get("warnings", [])]
    return _of_functions(names, functions, [settings], without)


def obstacles_of(components, functions, settings, listeners):
    """
    Return what keeps components from being applied on this host, by their ``obstacles``.

    components, functions, settings
        As for :py:func:`findings_of`.
    listeners
        The sockets that listen on this host (``host_core.listeners``), for those who look at ports.

    .. code-block:: python

        component_checks.obstacles_of(settings["components"], __salt__, settings, Listeners(sockets))
    """
    names = [name for component in components.values() for name in component.get("obstacles", [])]
    return _of_functions(names, functions, [settings, listeners])


def _of_functions(names, functions, given, without=()):
    return [found for name in names if name not in without for found in _asked(name, functions, given)]


def _asked(name, functions, given):
    """What a function finds; that it cannot be asked is a finding too."""
    if name not in functions:
        return [findings.not_verified(PART, f"{name} is not loaded")]
    try:
        return list(functions[name](*given) or [])
    except MemoryError:  # a limit of the caller's
        raise
    except Exception as error:  # whatever one raises, it hides no other
        LOG.debug("%s failed", name, exc_info=True)
        return [findings.not_verified(PART, f"{name}: {str(error) or type(error).__name__}")]


def _of_unit(unit, functions):
    try:
        state = functions["systemd_unit.status"](unit)["active"]
    except Exception as error:  # noqa: BLE001 (as above)
        state = f"not known: {error}"
    if state in unit_states.STARTED:
        return []
    remedy = f"systemctl start {unit} || journalctl -n 20 -u {unit}"
    return [findings.finding("unit-inactive", PART, f"is {state}", remedy, unit)]
