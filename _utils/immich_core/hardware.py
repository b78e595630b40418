"""
Hardware acceleration: what each word of ``immich:hardware`` brings, and what of it a host lacks
=================================================================================================

Asks nobody: what a host has is seen by ``immich_core.devices``.

Sources of the table: Immich's ``docker/hwaccel.transcoding.yml`` and ``docker/hwaccel.ml.yml`` of 2.x and 3.x, its
``machine-learning/immich_ml`` of 3.x for the providers, and NVIDIA's documentation of CDI for Podman.
"""

import re
from collections import namedtuple

from immich_core import findings

Acceleration = namedtuple(
    "Acceleration",
    # ``devices``: nodes of /dev, folders of them, or names of CDI devices. ``groups``: names that the container joins
    # beside the groups of the nodes. ``mounts``, ``mounts_if_there``: paths that it sees, read-only.
    # ``accel``: the word for Immich's own setting ``ffmpeg.accel``. ``providers``: those of ONNX Runtime, of which one
    # has to do the work; without any, ``engine`` is the library that Immich uses instead.
    "devices groups mounts mounts_if_there environment security_opt accel providers engine",
    defaults=((), (), (), {}, (), None, (), None),
)
DRI, NVIDIA = "/dev/dri", "nvidia.com/gpu=all"
# Docker's `systempaths=unconfined`, by Podman's own name.
UNMASKED = "unmask=ALL"
WORDS = {
    "transcoding": {
        "vaapi": Acceleration((DRI,), accel="vaapi"),
        "quicksync": Acceleration((DRI,), accel="qsv"),
        "nvenc": Acceleration((NVIDIA,), accel="nvenc"),
        "rkmpp": Acceleration(
            ("/dev/rga", DRI, "/dev/dma_heap", "/dev/mpp_service"),
            groups=("video",),
            security_opt=(UNMASKED, "apparmor=unconfined"),
            accel="rkmpp",
        ),
        "vaapi-wsl": Acceleration(
            (DRI,),
            mounts=("/usr/lib/wsl",),
            environment={"LD_LIBRARY_PATH": "/usr/lib/wsl/lib", "LIBVA_DRIVER_NAME": "d3d12"},
            accel="vaapi",
        ),
    },
    "machine_learning": {
        # From 3.3 on TensorRT RTX takes what is newer than Turing.
        "cuda": Acceleration((NVIDIA,), providers=("NvTensorRTRTXExecutionProvider", "CUDAExecutionProvider")),
        "openvino": Acceleration((DRI,), providers=("OpenVINOExecutionProvider",)),
        # ONNX Runtime for AMD was ROCm's own provider before it was MIGraphX.
        "rocm": Acceleration(
            ("/dev/kfd", DRI),
            groups=("video", "render"),
            providers=("MIGraphXExecutionProvider", "ROCMExecutionProvider"),
        ),
        "armnn": Acceleration(
            ("/dev/mali0",),
            mounts=("/usr/lib/libmali.so",),
            mounts_if_there=("/lib/firmware/mali_csffw.bin",),
            engine="armnn",
        ),
        "rknn": Acceleration((DRI,), mounts=("/sys/kernel/debug",), security_opt=(UNMASKED,), engine="rknn"),
    },
}
# The part of the settings whose container a word is for.
CONTAINERS = {"transcoding": "server", "machine_learning": "machine_learning"}
# One of these is there where NVIDIA's driver is loaded; the second is WSL's.
NVIDIA_NODES = ("/dev/nvidiactl", "/dev/dxg")
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
    "/usr/lib/wsl": "take vaapi: this host is no WSL",
    "/sys/kernel/debug": "`mount -t debugfs debugfs /sys/kernel/debug`",
}
RECREATE = "salt-call state.apply immich.app && systemctl restart immich"
_ROCKCHIP = "run a kernel with Rockchip's drivers, as the board's vendor has it"


def suffix(hardware):
    """
    Return what the tag of the machine learning image ends with, as ``-cuda``; empty without acceleration.

    hardware
        The setting ``immich:hardware``.

    .. code-block:: python

        hardware.suffix({"machine_learning": "cuda"})
    """
    word = hardware["machine_learning"]
    return f"-{word}" if word else ""


def settings_for(hardware):
    """
    Return the part of Immich's own settings that belongs to a word of transcoding: ``{"ffmpeg": {"accel": …}}``.

    Empty without one: then these settings are left to whoever sets them.

    hardware
        The setting ``immich:hardware``.

    .. code-block:: python

        hardware.settings_for({"transcoding": "quicksync"})
    """
    word = hardware["transcoding"]
    return {"ffmpeg": {"accel": WORDS["transcoding"][word].accel}} if word else {}


def chosen(hardware):
    """
    Return what the words bring, by the key of ``immich:hardware``; nothing for a key without a word.

    hardware
        The setting ``immich:hardware``.

    .. code-block:: python

        hardware.chosen({"transcoding": "vaapi", "machine_learning": None})["transcoding"].devices
    """
    return {key: words[hardware[key]] for key, words in WORDS.items() if hardware[key]}


def devices(acceleration, listed):
    """
    Return the devices of one acceleration, where the pillar lists some: these in the place of what they are part of.

    acceleration
        An entry of ``WORDS``.
    listed
        The setting ``immich:hardware:devices``: ``auto`` or a list.

    .. code-block:: python

        hardware.devices(hardware.WORDS["transcoding"]["vaapi"], ["/dev/dri/renderD129"])
    """
    if listed == "auto":
        return list(acceleration.devices)
    return [each for device in acceleration.devices for each in _within(device, listed) or [device]]


def _within(device, listed):
    return [each for each in listed if each and is_within(each, device)]


def is_within(device, other):
    """
    Return whether a device is another one, or a part of it: a node of a folder, or one of a kind of CDI device.

    device, other
        Their names.

    .. code-block:: python

        hardware.is_within("nvidia.com/gpu=0", "nvidia.com/gpu=all")
    """
    if is_cdi(other):
        return device.partition("=")[0] == other.partition("=")[0]
    return device == other or device.startswith(f"{other}/")


def is_cdi(device):
    """
    Return whether a device is one of CDI, as ``nvidia.com/gpu=all``, and no path.

    device
        Its name.

    .. code-block:: python

        hardware.is_cdi("/dev/dri")
    """
    return not device.startswith("/")


def asked(hardware):
    """
    Return what has to be known of a host: ``{"devices": [names], "files": [paths], "groups": [names]}``.

    hardware
        The setting ``immich:hardware``.

    .. code-block:: python

        devices.seen(hardware.asked(settings["hardware"]))
    """
    of_words = chosen(hardware).values()
    return {
        "devices": [each for word in of_words for each in devices(word, hardware["devices"])],
        "files": [*NVIDIA_NODES, *(each for word in of_words for each in (*word.mounts, *word.mounts_if_there))],
        "groups": [each for word in of_words for each in word.groups],
    }


def given(hardware, seen):
    """
    Return what each container gets of a host, by its part of the settings; nothing where nothing is accelerated.

    ``{"devices": […], "group_add": [numbers as text], "security_opt": […], "mounts": [paths], "environment": {…}}``

    hardware
        The setting ``immich:hardware``.
    seen
        What ``immich_core.devices.seen`` has found of ``asked``.

    .. code-block:: python

        hardware.given(settings["hardware"], devices.seen(hardware.asked(settings["hardware"])))
    """
    return {CONTAINERS[key]: _given(word, hardware["devices"], seen) for key, word in chosen(hardware).items()}


def _given(acceleration, listed, seen):
    handed = devices(acceleration, listed)
    numbers = {node["group"] for device in handed for node in seen["nodes"].get(device, {}).values()}
    numbers |= {seen["groups"].get(name) for name in acceleration.groups}
    # A container is not put into root's group: a node of that group is an obstacle.
    return {
        "devices": handed,
        "group_add": [str(number) for number in sorted(numbers - {None, 0})],
        "security_opt": list(acceleration.security_opt),
        "mounts": [*acceleration.mounts, *(each for each in acceleration.mounts_if_there if each in seen["files"])],
        "environment": dict(acceleration.environment),
    }


def obstacles(settings, seen):
    """
    Return what of its accelerations a host lacks, as findings (``immich_core.findings``) with the path in the pillar.

    settings
        The formula's settings.
    seen
        As for :py:func:`given`.

    .. code-block:: python

        hardware.obstacles(settings, devices.seen(hardware.asked(settings["hardware"])))
    """
    declared, found = settings["hardware"], []
    for key, acceleration in chosen(declared).items():
        named = f"immich:hardware:{key}"
        user = int(settings[CONTAINERS[key]]["user"].partition(":")[0])
        for device in devices(acceleration, declared["devices"]):
            path = named if device in acceleration.devices else "immich:hardware:devices"
            lack = _cdi_lack(device, seen) if is_cdi(device) else _node_lack(device, user, seen)
            found += [_obstacle(*each, declared[key], path) for each in lack]
        others = (*_file_lacks(acceleration, seen), *_group_lacks(acceleration, seen))
        found += [_obstacle(*each, declared[key], named) for each in others]
    return found


def _obstacle(code, seen, remedy, word, path):
    return findings.finding(code, "pillar", f"{word}: {seen}", remedy, path)


def _file_lacks(acceleration, seen):
    for file in acceleration.mounts:
        if file not in seen["files"]:
            yield "hardware-file-absent", f"{file} is not on this host", REMEDIES[file]


def _group_lacks(acceleration, seen):
    for group in acceleration.groups:
        if seen["groups"].get(group) is None:
            yield "hardware-group-absent", f"this host has no group {group}", f"`groupadd --system {group}`"


def _cdi_lack(device, seen):
    if not any(node in seen["files"] for node in NVIDIA_NODES):
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
    return REMEDIES[DRI] if device.startswith(f"{DRI}/") else _ROCKCHIP


def _opens(node, user):
    """Whether a container without capabilities can open a node, as its owner, by the node's group, or as anybody."""
    if node["owner"] == user:
        return node["mode"] & 0o600 == 0o600
    return node["mode"] & 0o006 == 0o006 or (node["group"] != 0 and node["mode"] & 0o060 == 0o060)


def withheld(container, given_to, inspected):
    """
    Return what a container lacks of what it was to get, by what Podman says of it, as findings
    (``immich_core.findings``).

    container
        Its name.
    given_to
        Its part of what :py:func:`given` has returned.
    inspected
        The container as ``immich_core.containers.hardware`` has it: ``{"devices": [paths], "arguments": [words],
        "groups": [numbers]}``.

    .. code-block:: python

        hardware.withheld("immich-server", settings["server"]["hardware"], containers.hardware("immich-server"))
    """
    groups = sorted(set(given_to["group_add"]) - set(inspected["groups"]), key=int)
    lacking = [f"the device {device}" for device in given_to["devices"] if not _is_handed(device, inspected)]
    lacking += [f"the group {number}" for number in groups]
    if not lacking:
        return []
    seen = f"{container} lacks, by what Podman says, {' and '.join(lacking)}"
    return [findings.finding("hardware-withheld", "hardware", seen, RECREATE)]


def _is_handed(device, inspected):
    if is_cdi(device):
        # Podman shows the nodes of a CDI device, and its name only among the words that made the container.
        return device in inspected["arguments"]
    return any(is_within(node, device) for node in inspected["devices"])
