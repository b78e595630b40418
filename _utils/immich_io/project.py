"""
A compose project: the containers that its file declares, compared with the current ones
=========================================================================================

The program that keeps the containers running acts on this comparison, and a plan of Salt shows it.
"""

import contextlib
import json
import os
from pathlib import Path

import yaml  # PyYAML: a dependency of Salt and of podman-compose

from immich_core import labels

IMAGE_FORMAT = "{{.Id}} {{json .RepoTags}} {{json .RepoDigests}}"


class ProjectError(Exception):
    """The compose file is not one of this formula."""


def parsed(text):
    """
    Return a compose file as data.

    text
        The compose file.

    Raises ``yaml.YAMLError`` if it is none.
    """
    # The parser in C, where PyYAML has it, takes a tenth of the time.
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def containers(directory, podman):
    """
    Return all containers of the compose project in a directory, as `podman ps` lists them.

    A service has more than one where somebody has run another by hand, as with ``podman-compose run``.

    directory
        Path of the project.

    podman
        Function that runs ``podman`` with its arguments and returns the output. With ``check=False`` a failure counts
        as output, too.
    """
    listed = podman("ps", "--all", "--format", "json", "--filter", f"label={labels.DIRECTORY}={directory}")
    return json.loads(listed or "[]")


def image_ids(printed):
    """
    Return the local id of each image, by its names.

    printed
        What ``podman image inspect --format`` with ``IMAGE_FORMAT`` has printed. A missing image is not in it.
    """
    ids = {}
    for line in printed.splitlines():
        identity, tags, digests = line.split(" ", 2)
        for name in (json.loads(tags) or []) + (json.loads(digests) or []):
            ids[name] = identity
    return ids


def missing_volumes(services):
    """
    Return the volumes of services that are not on this host, as pairs of service and path.

    services
        Those of a compose file, by name.
    """
    volumes = [(name, volume) for name, service in services.items() for volume in service.get("volumes", [])]
    # Those of another form are not the formula's.
    own = [(name, each) for name, each in volumes if isinstance(each, dict) and each.get("type") == "bind"]
    paths = [(name, each["source"].replace("$$", "$")) for name, each in own]
    return [(name, path) for name, path in paths if not os.path.exists(path)]


class Project:
    """
    A compose file and the containers that were created from it.

    directory
        Path of the project; secrets are read below it.

    text
        The compose file.

    podman
        As for :py:func:`containers`.

    Raises ``ProjectError`` if the file is not one of this formula.
    """

    def __init__(self, directory, text, podman):
        self.directory, self.podman = Path(directory), podman
        try:
            self.compose = parsed(text)
            self.own, self.services = self.compose["x-immich-stack"], self.compose["services"]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            message = f"docker-compose.yml in {directory} is not the one that Salt wrote: {error}"
            raise ProjectError(message) from error

    def containers(self):
        """Return the project's containers by service."""
        return {each["Labels"].get(labels.SERVICE, ""): each for each in containers(self.directory, self.podman)}

    def image_names(self):
        return sorted({service["image"] for service in self.services.values()})

    def image_ids(self):
        """Return the local ids of the services' images, as :py:func:`image_ids` does; a missing one is not in it."""
        return image_ids(self.podman("image", "inspect", "--format", IMAGE_FORMAT, *self.image_names(), check=False))

    def plan(self):
        """Return ``{"recreate": {service: reason}, "remove": [container name]}``; both are empty if nothing differs."""
        return self.compared(self.containers(), self.image_ids())

    def compared(self, current, images):
        """Return the plan, from what :py:meth:`containers` and :py:func:`image_ids` have returned."""
        recreate = {name: self._difference(name, current.get(name), images) for name in self.services}
        remove = [each["Names"][0] for name, each in current.items() if name not in self.services]
        return {"recreate": {name: reason for name, reason in recreate.items() if reason}, "remove": remove}

    def _difference(self, name, container, images):
        service = self.services[name]
        if not container:
            return "it does not exist"
        if container["State"] != "running":
            return f"it is {container['State']}"
        if container["Labels"].get(labels.DEFINITION) != service.get("labels", {}).get(labels.DEFINITION):
            return "its definition changed"
        if images.get(service["image"], container["ImageID"]) != container["ImageID"]:
            return "its image changed"
        return "a secret changed" if self._secret_is_newer(service, container) else None

    def _secret_is_newer(self, service, container):
        names = [each["source"] if isinstance(each, dict) else each for each in service.get("secrets", [])]
        written = [0]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                written.append((self.directory / self.compose["secrets"][name]["file"]).stat().st_mtime_ns)
        # `podman ps` gives only the second in which a container was created.
        if max(written) // 10**9 != container["Created"]:
            return max(written) // 10**9 > container["Created"]
        created = self.podman("container", "inspect", "--format", "{{.Created.UnixNano}}", container["Id"])
        return max(written) > int(created)
