"""
Hardware that a host lacks
==========================
"""

import re

from immich_core.hardware import CONTAINERS, DRI, NVIDIA_NODES, chosen, devices, is_cdi
from immich_core.obstacles import obstacle

CDI_FILE = "/etc/cdi/nvidia.yaml"
# The newest version of CDI that a Podman reads, measured on Debian 12 and 13: a file of a newer one is ignored.
CDI_VERSIONS = {(4, 3): (0, 5), (5, 4): (0, 7)}
# How a device gets onto a host. Of others: the driver of the kernel.
REMEDIES = {
    DRI: "install the graphics driver's firmware (Debian: firmware-intel-graphics, firmware-amd-graphics or "
    "firmware-misc-nonfree), reboot, and see that `ls /dev/dri` shows renderD128",
    "/dev/kfd": "`modprobe amdgpu`, and see `dmesg` for why it has no /dev/kfd",
    "/dev/mali0": "run a kernel with Mali's driver, as the board's vendor has it",
    "/usr/lib/libmali.so": "install Mali's user-space driver of the board's vendor",
    "/usr/lib/wsl": "use vaapi: this host is not WSL",
    "/sys/kernel/debug": "`mount -t debugfs debugfs /sys/kernel/debug`",
}
_DRIVER = "load its driver, and see that `ls -l` shows it: boards of Rockchip need their vendor's kernel"


def obstacles(settings, seen):
    """
    Return what of its accelerations a host lacks, as findings (``immich_core.findings``) with the path in the pillar.

    settings
        The formula's settings.
    seen
        As for ``immich_core.hardware.given``.

    .. code-block:: python

        hardware.obstacles(settings, devices.seen(hardware.asked(settings["hardware"])))
    """
    declared, found = settings["hardware"], []
    for key, acceleration in chosen(declared).items():
        named = f"hardware:{key}"
        user = int(settings[CONTAINERS[key]]["user"].partition(":")[0])
        for device in devices(acceleration, declared["devices"]):
            path = named if device in acceleration.devices else "hardware:devices"
            lack = _cdi_lack(device, seen) if is_cdi(device) else _node_lack(device, user, seen)
            found += [_of_word(declared[key], path, *each) for each in lack]
        others = (*_file_lacks(acceleration, seen), *_group_lacks(acceleration, seen))
        found += [_of_word(declared[key], named, *each) for each in others]
    return found


def of_listed(settings, part, seen):
    """
    Return which devices that the pillar lists for a container a host lacks, as :py:func:`obstacles` does.

    settings
        The formula's settings.
    part
        The part of the settings, ``server`` or ``machine_learning``.
    seen
        What ``immich_io.devices.seen`` has found of ``immich_core.hardware.nothing_but``.

    .. code-block:: python

        hardware.of_listed(settings, "server", devices.seen(hardware.nothing_but(settings["server"]["devices"])))
    """
    user, found = int(settings[part]["user"].partition(":")[0]), []
    for index, device in enumerate(settings[part]["devices"]):
        lacks = _cdi_lack(device, seen) if is_cdi(device) else _node_lack(device, user, seen)
        found += [obstacle(code, f"{part}:devices:{index}", said, remedy) for code, said, remedy in lacks]
    return found


def _of_word(word, path, code, seen, remedy):
    return obstacle(code, path, f"{word}: {seen}", remedy)


def _file_lacks(acceleration, seen):
    for file in acceleration.mounts:
        if file not in seen["files"]:
            yield "hardware-file-absent", f"{file} is not on this host", REMEDIES[file]


def _group_lacks(acceleration, seen):
    for group in acceleration.groups:
        if seen["groups"].get(group) is None:
            yield "hardware-group-absent", f"this host has no group {group}", f"`groupadd --system {group}`"


def _cdi_lack(device, seen):
    if device.startswith("nvidia.com/") and not any(node in seen["files"] for node in NVIDIA_NODES):
        remedy = (
            "install NVIDIA's driver (Debian: nvidia-driver, of contrib and non-free), and see that `nvidia-smi` works"
        )
        yield "hardware-driver-absent", "NVIDIA's driver is not loaded: there is no /dev/nvidiactl", remedy
    elif device not in seen["cdi"]:
        kind = device.partition("=")[0]
        others = [each for each in seen["cdi"] if each.startswith(f"{kind}=")]
        if others:
            remedy = f"name one of these in immich:hardware:devices, or: `nvidia-ctk cdi generate --output={CDI_FILE}`"
            yield "hardware-cdi-absent", f"CDI has no device {device}, only {', '.join(others[:8])}", remedy
        else:
            remedy = f"install nvidia-container-toolkit, then: `nvidia-ctk cdi generate --output={CDI_FILE}`"
            yield "hardware-cdi-absent", f"no file in /etc/cdi or /run/cdi describes {device}", remedy
    else:
        yield from _cdi_version_lack(device, seen)


def _cdi_version_lack(device, seen):
    version, newest = seen["cdi"][device], CDI_VERSIONS.get(seen["podman"])
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if newest and numbers and tuple(map(int, numbers.groups())) > newest:
        reads = ".".join(map(str, newest))
        said = f"the file that describes {device} is of CDI {version}, and this Podman reads CDI up to {reads}"
        remedy = f"use a newer Podman, or, if nothing in that file is newer, write `cdiVersion: {reads}.0` into it"
        yield "hardware-cdi-version", said, remedy


def _node_lack(device, user, seen):
    nodes = seen["nodes"].get(device, {})
    usable = [path for path in nodes if device != DRI or path.startswith(f"{DRI}/renderD")]
    if not usable:
        what = "a render node in /dev/dri" if device == DRI else device
        yield "hardware-device-absent", f"{what} is not on this host", REMEDIES.get(device, _other_remedy(device))
    for path in usable:
        if not _opens(nodes[path], user):
            node = f"{path} (group {nodes[path]['group']}, mode {nodes[path]['mode']:04o})"
            closed = f"{node} is open to no group that the container could join"
            remedy = f"let udev set its group (Debian: package udev), or: `chgrp render {path} && chmod 660 {path}`"
            yield "hardware-device-closed", closed, remedy


def _other_remedy(device):
    return REMEDIES[DRI] if device.startswith(f"{DRI}/") else _DRIVER


def _opens(node, user):
    """Whether a container without capabilities can open a node, as its owner, by the node's group, or as anybody."""
    if node["owner"] == user:
        return node["mode"] & 0o600 == 0o600
    return node["mode"] & 0o006 == 0o006 or (node["group"] != 0 and node["mode"] & 0o060 == 0o060)
