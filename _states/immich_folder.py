"""
Folders to which Immich's containers and its backup write
=========================================================
"""

import os

from host_core import mounts
from immich_io import host_users

__virtualname__ = "immich_folder"

# Of the folders above those of the containers.
ROOT = {"user": "root", "group": "root", "mode": "0755"}


def __virtual__():
    return __virtualname__


def present(name, user="root", group="root"):
    """
    Make sure that a folder which a container writes to exists: that of the uploads, or of the models.
    ``immich_identity.compared`` checks that the library is the installation's.

    Nothing is created below a mount point that is not mounted: Immich would start on an empty library.

    name
        Absolute path.

    user, group
        Owner of a folder that has to be created, or that is empty and belongs to root: a number, or ``root``, the
        default. A folder that is not empty, or has another owner, is not changed.

    .. code-block:: yaml

        Immich's library is present:
          immich_folder.present:
            - name: /srv/immich/upload
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"The folder {name} is present"}
    mount = mounts.missing(name)
    if mount:
        comment = f"{mount} is in /etc/fstab and is not mounted. Mount it (`mount {mount}`), then apply again"
        return {**ret, "result": False, "comment": comment}
    if os.path.isdir(name):
        return ret if user == "root" or host_users.owner(name) else _with_new_owner(ret, name, user, group)
    ret["changes"] = {"directory": {"old": None, "new": name}}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"The folder {name} would be created"}
    for path, owner in ((os.path.dirname(name), ROOT), (name, {"user": user, "group": group, "mode": "0750"})):
        made = os.path.isdir(path) or __states__["file.directory"](path, makedirs=True, **owner)["comment"]
        if not os.path.isdir(path):
            return {**ret, "result": False, "changes": {}, "comment": made}
    return {**ret, "comment": f"The folder {name} was created"}


def _with_new_owner(ret, name, user, group):
    """Change the owner of an empty folder that root created in advance."""
    ret["changes"] = {"owner": {"old": "root", "new": f"{user}:{group}"}}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"The empty folder {name} would change its owner to {user}:{group}"}
    try:
        os.chown(name, user, __salt__["file.group_to_gid"](group))
    except OSError as error:
        advice = "Set the user who may write there in the pillar, such as immich:server:user: '1000:1000'"
        return {**ret, "result": False, "changes": {}, "comment": f"{error}. {advice}"}
    return {**ret, "comment": f"The empty folder {name} changed its owner to {user}:{group}"}


def absent(name):
    """
    Make sure that a directory and all data in it are deleted. A dry run reports how much that is.

    name
        Absolute path.

    .. code-block:: yaml

        The backups are deleted, as immich:clean:delete_backups says:
          immich_folder.absent:
            - name: /var/backups/immich
    """
    if not os.path.isdir(name):
        return __states__["file.absent"](name)
    try:
        lost = _amount(name)
    except OSError as error:
        return {"name": name, "changes": {}, "result": False, "comment": str(error)}
    if __opts__["test"]:
        changes = {name: {"old": lost, "new": None}}
        return {"name": name, "changes": changes, "result": None, "comment": f"{name} would be deleted, with {lost}"}
    ret = __states__["file.absent"](name)
    if ret["result"]:
        ret.update(changes={name: {"old": lost, "new": None}}, comment=f"{name} was deleted, with {lost}")
    return ret


def _amount(directory):
    files = size = 0
    for folder, _, names in os.walk(directory):
        files += len(names)
        size += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    return f"{files} files of {size / 1024**2:.1f} MiB"
