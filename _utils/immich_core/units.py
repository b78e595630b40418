"""
The formula's systemd units: their names, their files, and what Immich starts after
====================================================================================
"""

FOLDER = "/etc/systemd/system"
IMMICH = "immich.service"
GATEWAY = "immich-gateway.service"
BACKUP = "immich-backup.service"
BACKUP_TIMER = "immich-backup.timer"
BACKUP_FAILED = "immich-backup-failed.service"
RESTORE_DRILL = "immich-restore-drill.service"
RESTORE_DRILL_TIMER = "immich-restore-drill.timer"
RESTORE_DRILL_FAILED = "immich-restore-drill-failed.service"
METRICS = "immich-metrics.service"
METRICS_TIMER = "immich-metrics.timer"


def file(unit):
    """
    Return the path of a unit's file.

    unit
        Its name, with its kind.

    .. code-block:: python

        units.file(units.IMMICH)
    """
    return f"{FOLDER}/{unit}"


def of_server(settings, part):
    """
    Return the units of PostgreSQL or Valkey, as a list of names; empty where this host has no server that the pillar
    manages.

    settings
        The formula's settings, as ``immich_settings.get`` returns them.

    part
        ``postgres`` or ``valkey``.

    .. code-block:: python

        units.of_server(settings, "postgres")
    """
    if not settings[part]["here"]:
        return []
    lookup = settings["lookup"][part]
    return [f"{name}.service" for name in sorted({lookup["service"], lookup.get("unit", lookup["service"])})]


def before_immich(settings):
    """
    Return the units that ``immich.service`` starts after, as a list of names.

    settings
        The formula's settings, as ``immich_settings.get`` returns them.

    .. code-block:: python

        units.before_immich(settings)
    """
    return [GATEWAY, *of_server(settings, "postgres"), *of_server(settings, "valkey")]
