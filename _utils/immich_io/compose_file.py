"""
What is read back from Immich's compose file, and where that is not what settings declare
==========================================================================================

What stands in it is decided in ``compose``.
"""

import json
from pathlib import Path

import yaml

from immich_core import compose, labels, sign_up
from immich_core import storage as library_folders
from immich_io.project import parsed

# What comes of a file that is no compose file, or another one.
UNREADABLE = (KeyError, TypeError, AttributeError, yaml.YAMLError)


class ComposeFileError(Exception):
    """The compose file is not the formula's, or does not say what was asked for."""


def image(path):
    """
    Return the reference of the server's image in a compose file, or None if the file is not there.

    path
        Path of ``docker-compose.yml``.

    Raises ``ComposeFileError`` if it is there and cannot be understood.

    .. code-block:: python

        compose_file.image("/opt/podman/immich/docker-compose.yml")
    """
    text = read(path)
    try:
        return text if text is None else parsed(text)["services"][compose.SERVER]["image"]
    except UNREADABLE as error:
        raise ComposeFileError(f"{path} exists, but does not state the image of {compose.SERVER}") from error


def upload_location(path):
    """
    Return the path that a compose file mounts at ``/data``, or None if there is none.

    path
        Path of ``docker-compose.yml``.

    Raises ``ComposeFileError`` if it is there and cannot be understood.

    .. code-block:: python

        compose_file.upload_location("/opt/podman/immich/docker-compose.yml")
    """
    text = read(path)
    if text is None:
        return None
    try:
        return _mounted(text).get(library_folders.MEDIA)
    except UNREADABLE as error:
        raise ComposeFileError(f"{path} exists, but does not state which path is mounted at /data") from error


def storage(path):
    """
    Return the folders of the library that a compose file mounts from elsewhere, with their paths on this host. One that
    is not there, or cannot be understood, has none.

    path
        Path of ``docker-compose.yml``.

    .. code-block:: python

        compose_file.storage("/opt/podman/immich/docker-compose.yml")
    """
    try:
        mounted = _mounted(read(path) or "")
    except (OSError, *UNREADABLE):
        return {}
    targets = {folder: f"{library_folders.MEDIA}/{folder}" for folder in library_folders.FOLDERS}
    return {folder: mounted[target] for folder, target in targets.items() if target in mounted}


def _mounted(text):
    """The source on this host of each path that the server has mounted. The first one counts."""
    mounts = parsed(text)["services"][compose.SERVER]["volumes"]
    return {_mount_target(mount): _mount_source(mount).replace("$$", "$") for mount in reversed(mounts)}


def users(path):
    """
    Return the ``UID:GID`` of each service of a compose file that the formula wrote, by the service's name.

    A service that somebody else described is left out, and so is a file that is not there or is no compose file.

    path
        Path of ``docker-compose.yml``.

    .. code-block:: python

        compose_file.users("/opt/podman/immich/docker-compose.yml")
    """
    try:
        services = parsed(read(path) or "")["services"]
        return {
            name: service.get("user", compose.IMAGES_OWN_USER)
            for name, service in services.items()
            if labels.DEFINITION in service.get("labels", {})
        }
    except (OSError, *UNREADABLE):
        return {}


def ping_url(text):
    """
    Return the address of the server's ping that a compose file names, or None if it is none of the formula's.

    text
        Text of the compose file.

    .. code-block:: python

        compose_file.ping_url(text)
    """
    try:
        return parsed(text)["x-immich-stack"]["ping"]
    except UNREADABLE:
        return None


def sign_up_closed(text):
    """
    Return whether nobody can sign up in a server that runs by a compose file.

    text
        Text of the compose file, or None.

    .. code-block:: python

        compose_file.sign_up_closed(text)
    """
    try:
        return parsed(text or "")["services"][compose.SERVER]["environment"].get(sign_up.VARIABLE) == "false"
    except UNREADABLE:
        return False


def deviations(settings, text, selinux=False):
    """
    Return where a compose file is not what the settings want: ``{"by_hand": [services], "differences": [sentences]}``.

    A service that was changed by hand does not have the digest that its label says. One that only differs was written
    from other settings, and the next apply brings it up to date.

    settings
        The formula's settings.
    text
        Text of the compose file.
    selinux
        As for ``compose.project``.

    Raises ``ComposeFileError`` if it is none of the formula's.

    .. code-block:: python

        compose_file.deviations(settings, text)["by_hand"]
    """
    current, desired = _current_and_desired(settings, text, selinux)
    by_hand = [name for name, service in current["services"].items() if not _is_as_written(service)]
    differences = [f"{what} is {old}, not {new}" for what, old, new in _differences(current, desired)]
    return {"by_hand": by_hand, "differences": differences}


def changes(settings, text, selinux=False):
    """
    Return what the settings change in a compose file, as a list of sentences with the old and the new value. Where
    anything of a container changes, that is all: what ``immich-stack`` reads follows from it.

    settings, text, selinux
        As for :py:func:`deviations`.

    Raises ``ComposeFileError`` if it is none of the formula's.

    .. code-block:: python

        compose_file.changes({**settings, "port": 3000}, text)
    """
    current, desired = _current_and_desired(settings, text, selinux)
    of_services = list(_differences(current["services"], desired["services"], ("services",)))
    found = of_services or _differences(current, desired)
    return [f"{what}: {old} becomes {new}" for what, old, new in found]


def read(path):
    """
    Return the text of a compose file, or None if it is not there. What is no UTF-8 in it is replaced.

    path
        Path of ``docker-compose.yml``.

    .. code-block:: python

        compose_file.read("/opt/podman/immich/docker-compose.yml")
    """
    path = Path(path)
    return path.read_text(encoding="utf8", errors="replace") if path.exists() else None


def _current_and_desired(settings, text, selinux):
    try:
        current = parsed(text)
        vector = current["services"][compose.SERVER]["environment"]["DB_VECTOR_EXTENSION"]
    except UNREADABLE as error:
        raise ComposeFileError("The compose file is not the one that Salt wrote") from error
    return current, compose.project(settings, vector, selinux)


def _is_as_written(service):
    return isinstance(service, dict) and service.get("labels") == {labels.DEFINITION: compose.digest(service)}


def _differences(current, desired, path=()):
    if current == desired or path[-1:] == ("labels",):
        return
    if not (isinstance(current, dict) and isinstance(desired, dict)):
        yield ":".join(path), json.dumps(current), json.dumps(desired)
        return
    for key in sorted({*current, *desired}):
        yield from _differences(current.get(key), desired.get(key), (*path, key))


def _mount_source(mount):
    return mount["source"] if isinstance(mount, dict) else mount.split(":")[0]


def _mount_target(mount):
    return mount["target"] if isinstance(mount, dict) else mount.split(":")[1]
