"""
Volumes of the containers that this host does not have
=======================================================
"""

from immich_core.obstacles import obstacle


def obstacles(settings, missing_mount, is_there):
    """
    Return which volumes cannot be mounted on this host, as findings (``immich_core.findings``) with the path in the
    pillar. Podman would refuse to make the container.

    settings
        The formula's settings.
    missing_mount
        Function that returns the mount point above a path that should be mounted and is not, or None.
    is_there
        Function that returns whether a path is there.

    .. code-block:: python

        volumes.obstacles(settings, mounts.missing, os.path.exists)
    """
    found = []
    for part in ("server", "machine_learning"):
        for index, volume in enumerate(settings[part]["volumes"] if settings[part].get("enabled", True) else []):
            path, setting = volume["path"], f"{part}:volumes:{index}"
            point = missing_mount(path)
            if point:
                seen = f"{point} is in /etc/fstab and is not mounted"
                found.append(obstacle("volume-not-mounted", setting, seen, f"mount {point}"))
            elif not is_there(path):
                found.append(
                    obstacle("volume-absent", setting, f"{path} is not on this host", "create it, or name another")
                )
    return found
