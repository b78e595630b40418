"""
Hardware acceleration: what each word of ``immich:hardware`` brings, and what of it a host lacks
=================================================================================================

Asks nobody: what a host has is seen by ``immich_io.devices``.

Sources of the table: Immich's ``docker/hwaccel.transcoding.yml`` and ``docker/hwaccel.ml.yml`` of 2.x and 3.x, its
``machine-learning/immich_ml`` of 3.x for the providers, and NVIDIA's documentation of CDI for Podman.
"""

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
RECREATE = "salt-call state.apply immich.app && systemctl restart immich"


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
        What ``immich_io.devices.seen`` has found of ``asked``.

    .. code-block:: python

        hardware.given(settings["hardware"], devices.seen(hardware.asked(settings["hardware"])))
    """
    return {CONTAINERS[key]: _given(word, hardware["devices"], seen) for key, word in chosen(hardware).items()}


def by_hand(given_to, listed, seen):
    """
    Return what a container gets, with devices that the pillar lists for it.

    given_to
        Its part of what :py:func:`given` has returned, or nothing.
    listed
        The setting ``devices`` of the container.
    seen
        As for :py:func:`given`, of these devices too.

    .. code-block:: python

        hardware.by_hand({}, ["/dev/dri/renderD128"], devices.seen(hardware.nothing_but(["/dev/dri/renderD128"])))
    """
    bare = given_to or _given(Acceleration(()), "auto", seen)
    more = [device for device in listed if device not in bare["devices"]]
    groups = {int(number) for number in bare["group_add"]} | _groups_of(more, seen)
    return {**bare, "devices": [*bare["devices"], *more], "group_add": _numbers(groups)}


def nothing_but(listed):
    """
    Return what has to be known of a host for devices without a word, as :py:func:`asked` does.

    listed
        The setting ``devices`` of a container.

    .. code-block:: python

        hardware.nothing_but(["nvidia.com/gpu=0"])
    """
    return {"devices": listed, "files": list(NVIDIA_NODES), "groups": []}


def _groups_of(handed, seen):
    return {node["group"] for device in handed for node in seen["nodes"].get(device, {}).values()}


def _numbers(groups):
    # A container is not put into root's group: a node of that group is an obstacle.
    return [str(number) for number in sorted(groups - {None, 0})]


def _given(acceleration, listed, seen):
    handed = devices(acceleration, listed)
    return {
        "devices": handed,
        "group_add": _numbers(_groups_of(handed, seen) | {seen["groups"].get(name) for name in acceleration.groups}),
        "security_opt": list(acceleration.security_opt),
        "mounts": [*acceleration.mounts, *(each for each in acceleration.mounts_if_there if each in seen["files"])],
        "environment": dict(acceleration.environment),
    }


def withheld(container, given_to, inspected):
    """
    Return what a container lacks of what it was to get, by what Podman says of it, as findings
    (``immich_core.findings``).

    container
        Its name.
    given_to
        Its part of what :py:func:`given` has returned.
    inspected
        The container as ``immich_io.containers.hardware`` has it: ``{"devices": [paths], "arguments": [words],
        "groups": [numbers]}``.

    .. code-block:: python

        hardware.withheld("immich-server", settings["server"]["hardware"], containers.hardware("immich-server"))
    """
    groups = sorted(set(given_to["group_add"]) - set(inspected["groups"]), key=int)
    lacking = [f"the device {device}" for device in given_to["devices"] if not _is_handed(device, inspected)]
    lacking += [f"the group {number}" for number in groups]
    if not lacking:
        return []
    seen = f"{container} does not have, according to Podman, {' and '.join(lacking)}"
    return [findings.finding("hardware-withheld", "hardware", seen, RECREATE)]


def _is_handed(device, inspected):
    if is_cdi(device):
        # Podman shows the nodes of a CDI device, and its name only among the words that made the container.
        return device in inspected["arguments"]
    return any(is_within(node, device) for node in inspected["devices"])
