"""
Inspect and control units of systemd.

Salt's own ``service`` module starts five processes to look at one unit; this one starts a single ``systemctl show``.

:depends: - ``_utils/host_core``
"""

import shutil

from salt.exceptions import CommandExecutionError

from host_core import command, systemctl

PROPERTIES = {
    "loaded": "LoadState",
    "active": "ActiveState",
    "enabled": "UnitFileState",
    "outdated": "NeedDaemonReload",
    "text": "StatusText",
}


def __virtual__():
    if shutil.which("systemctl"):
        return True
    return False, "systemd_unit needs systemd: there is no systemctl on this host."


def status(name):
    """
    Return the state of a unit: ``{"loaded": …, "active": …, "enabled": …, "outdated": …, "text": …}``.

    ``loaded``, ``active`` and ``enabled`` are systemd's words (LoadState, ActiveState, UnitFileState); ``outdated`` is
    True if systemd has loaded an older version of the unit file; ``text`` is the service's own status text.

    name
        Name of the unit, with its kind: ``immich.service``.

    Raises ``CommandExecutionError`` if systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.status immich.service
    """
    return statuses(name)[name]


def statuses(*names):
    """
    Return the states of several units by name, each as :py:func:`status` does, with one ``systemctl show``.

    names
        Names of the units, each with its kind.

    Raises ``CommandExecutionError`` if systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.statuses immich.service immich-backup.timer
    """
    shown = call("show", f"--property={','.join(PROPERTIES.values())}", *names)
    return {name: _status(block) for name, block in zip(names, shown.strip().split("\n\n"))}


def _status(shown):
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    found = {key: values.get(property_, "") for key, property_ in PROPERTIES.items()}
    return {**found, "outdated": found["outdated"] == "yes"}


def call(*arguments):
    """
    Run ``systemctl ARGUMENTS``, and return what it prints.

    Raises ``CommandExecutionError`` with its error message if it fails.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.call daemon-reload
    """
    try:
        return systemctl.run(*arguments)
    except command.CommandError as error:
        raise CommandExecutionError(str(error)) from error
