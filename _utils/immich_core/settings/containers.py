"""
What the pillar adds to a container by hand: volumes, names and addresses, DNS servers, devices
================================================================================================

``volumes``, ``hosts``, ``dns`` and ``devices`` of ``immich:server`` and ``immich:machine_learning``.
"""

import re

from immich_core.gateway import HOST_NAME
from immich_core.settings.derivation import normal, project_dir, volume_of
from immich_core.settings.networks import ip_address
from immich_core.settings.schema import entries

PARTS = ("server", "machine_learning")
# What a volume must not hide, of both containers: what the kernel, Podman and the formula put there.
_KEPT = re.compile("/(dev|proc|run|sys|tmp|var/tmp)(/.*)?|/(bin|build|etc|lib|lib64|opt|root|sbin|usr|var|usr/src)?")
# The container's own volume, which has settings of its own.
_OWN = {
    "server": ("/data", "immich:upload_location and immich:storage"),
    "machine_learning": ("/cache", "immich:machine_learning:cache_location"),
}
# What no container may read: the formula's secrets, and sockets by which a container becomes root of the host.
_CLOSED = ("/etc/immich-formula", "/var/lib/immich-formula", "/run", "/var/run", "/proc", "/sys", "/dev")
_CONTAINERS = (HOST_NAME, "immich-server", "immich-machine-learning", "localhost")


def check_containers(settings):
    """Volumes that would hide or show too much, names that are taken, and addresses that are none."""
    for part in PARTS:
        yield from _check_volumes(part, settings)
        yield from _check_hosts(part, settings[part]["hosts"])
        for index, text in entries(settings[part]["dns"]):
            yield from (((part, "dns", index), problem) for problem in _unusable(text))


def _check_volumes(part, settings):
    taken = {}
    if part == "server":
        taken = {library["mount"]: "immich:external_libraries" for library in _libraries(settings)}
    closed = (*_CLOSED, project_dir(settings), settings["backup"]["directory"])
    own, setting = _OWN[part]
    for index, entry in entries(settings[part]["volumes"]):
        path, volume = (part, "volumes", index), volume_of(entry)
        source, mount = volume["path"], volume["mount"]
        shown = next((each for each in closed if _within(source, normal(each)) or _within(normal(each), source)), None)
        given = [entry] if isinstance(entry, str) else [entry["path"], entry.get("mount", "")]
        if any(".." in text.split("/") for text in given):
            yield path, "must not hold .."
        elif shown:
            yield path, f"would show {shown} to the container, which must not see it: name a path beside it"
        elif _within(mount, own):
            yield path, f"cannot be mounted at {mount}: set {setting}"
        elif _KEPT.fullmatch(mount):
            yield path, f"cannot be mounted at {mount}, which the container needs itself: set its mount, as /mnt/fonts"
        elif mount in taken:
            yield path, f"is mounted at the same place as {taken[mount]}"
        taken.setdefault(mount, f"immich:{part}:volumes:{index}")


def _libraries(settings):
    return [volume_of(entry) for _, entry in entries(settings["external_libraries"])]


def _within(path, folder):
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _check_hosts(part, hosts):
    for name, text in hosts.items():
        path = (part, "hosts", name)
        if not re.fullmatch(
            r"(?=.{1,253}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_-]{1,63}", name
        ):
            yield path, "is not a host name"
        elif name.lower() in _CONTAINERS:
            yield path, "is a name that the formula or Podman gives"
        else:
            yield from ((path, problem) for problem in _unusable(text))


def _unusable(text):
    address = ip_address(text)
    if address is None:
        yield "must be an IP address, such as 192.168.1.5"
    elif address.is_loopback or address.is_unspecified or address.is_multicast:
        yield f"is {address}, which in a container is not another host: name an address that it can reach"
