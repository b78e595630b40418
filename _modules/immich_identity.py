"""
The identity of an installation
===============================

Database, role, library, network, project directory, and Valkey's database number and user belong together. A record
on this host, :file:`/var/lib/immich-formula/installation.json`, has them. It is compared with the pillar before
anything changes: each part is migrated, or refused with the next step. See the states of the same name.

``settings`` is what ``immich_settings.get`` returns.
"""

from immich_core import container_users, storage
from immich_host import identity
from immich_io import host_users

__virtualname__ = "immich_identity"


def __virtual__():
    return __virtualname__


def current(settings):
    """
    Return the parts of the installation as they are at this moment of a run: those known, and else those declared.
    Never fails: what cannot be read counts as not known.

    settings
        The formula's settings.

    Called by the SLS ``immich.podman.clean`` and ``immich.app.clean``.
    """
    return identity.current(settings)


def obstacles(settings, listeners):
    """
    Return where the name or number of a user of the formula's own is taken on this host, as findings.

    settings
        The formula's settings.

    listeners
        The sockets that listen on this host: nothing to users.

    Called by ``immich_preflight.obstacles``.
    """
    return host_users.obstacles(settings)


def folders(settings):
    """
    Return the folders that the containers write to and their users, as they are at this moment of a run, for
    ``immich.preflight``: ``{"accounts": [{"name": …, "id": …}], "folders": [{"what": …, "path": …, "user": …,
    "group": …}]}``.

    Until they are migrated, folders have their former owners. Accounts are the formula's own users that the settings
    need.

    settings
        The formula's settings.

    Called by the SLS ``immich.preflight``.
    """
    there = identity.current(settings)
    words = {"server": "library", "machine_learning": "model cache"}
    inner = {path: f"folder {folder}" for folder, path in storage.elsewhere(settings).items()}
    return {
        "accounts": container_users.accounts(settings),
        "folders": [
            {"what": inner.get(path, words[key]), "path": path, **container_users.numbers(there[f"{key}_user"])}
            for key, paths in container_users.folders(settings).items()
            for path in paths
        ],
    }
