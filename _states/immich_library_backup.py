"""
Backups of Immich's library on this host: their secrets
=======================================================

States of ``immich.backup``.
"""

import json

from salt.exceptions import CommandExecutionError

from host_core.pillar import value
from immich_host import secret_files

__virtualname__ = "immich_library_backup"


def __virtual__():
    if "immich.library_backup_plan" not in __salt__:
        return False, "The execution module immich is missing: run saltutil.sync_all"
    return __virtualname__


def secret_managed(name, pillar_path):
    """
    Make sure that a file that only root reads has a secret of the pillar.

    name
        Path of the file.

    pillar_path
        Where the pillar has the secret.

    .. code-block:: yaml

        The password of the library's backup is managed:
          immich_library_backup.secret_managed:
            - name: /etc/immich-formula/library-backup.password
            - pillar_path: immich:backup:library:password
    """
    secret = value(__pillar__, pillar_path)
    if not isinstance(secret, str):
        return _failed(name, f"The pillar has no text at {pillar_path}")
    return _private(name, secret.rstrip("\n") + "\n")


def environment_managed(name, pillar_path):
    """
    Make sure that a file that only root reads has the variables with the login of the repository's server, as JSON.

    name
        Path of the file.

    pillar_path
        Where the pillar has them: texts, ``{pillar: PATH}`` or ``{file: PATH}``.

    .. code-block:: yaml

        The login of the library's backup is managed:
          immich_library_backup.environment_managed:
            - name: /etc/immich-formula/library-backup.environment.json
            - pillar_path: immich:backup:library:environment
    """
    declared = value(__pillar__, pillar_path) or {}
    try:
        found = {
            variable: secret_files.secret(where, __pillar__) if isinstance(where, dict) else str(where)
            for variable, where in declared.items()
        }
    except CommandExecutionError as error:
        return _failed(name, f"{pillar_path} {error}")
    return _private(name, json.dumps(found, indent=2, sort_keys=True) + "\n")


def _private(name, text):
    return __states__["file.managed"](
        name, contents=text, user="root", group="root", mode="0600", show_changes=False, template=None
    )


def _failed(name, comment):
    return {"name": name, "changes": {}, "result": False, "comment": comment}
