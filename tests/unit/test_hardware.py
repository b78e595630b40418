"""What each word of hardware acceleration brings, and what of it a host lacks."""

import copy
import json
import os

import pytest

from immich_core import compose, findings, hardware, versions
from immich_core.obstacles import hardware as lacking_hardware
from immich_core.settings.hardware import tagged
from immich_io import devices
from tests.conftest import PILLAR
from tests.pillars import SCHEMA

DRI = {
    "/dev/dri/card0": {"owner": 0, "group": 44, "mode": 0o660},
    "/dev/dri/renderD128": {"owner": 0, "group": 105, "mode": 0o660},
}
NODE = {"owner": 0, "group": 44, "mode": 0o660}
# A host that has all there is.
EVERYTHING = {
    "nodes": {
        "/dev/dri": DRI,
        "/dev/kfd": {"/dev/kfd": {"owner": 0, "group": 105, "mode": 0o660}},
        "/dev/mali0": {"/dev/mali0": {"owner": 0, "group": 0, "mode": 0o666}},
        "/dev/rga": {"/dev/rga": NODE},
        "/dev/mpp_service": {"/dev/mpp_service": NODE},
        "/dev/dma_heap": {"/dev/dma_heap/system": NODE},
    },
    "cdi": {"nvidia.com/gpu=0": "0.5.0", "nvidia.com/gpu=all": "0.5.0"},
    "podman": (5, 4),
    "files": [
        "/dev/nvidiactl",
        "/usr/lib/wsl",
        "/usr/lib/libmali.so",
        "/lib/firmware/mali_csffw.bin",
        "/sys/kernel/debug",
    ],
    "groups": {"video": 44, "render": 105},
}
NOTHING = {"nodes": {}, "cdi": {}, "podman": None, "files": [], "groups": {}}
RKMPP = ["/dev/rga", "/dev/dri", "/dev/dma_heap", "/dev/mpp_service"]
WSL = {"LD_LIBRARY_PATH": "/usr/lib/wsl/lib", "LIBVA_DRIVER_NAME": "d3d12"}
CDI = ["nvidia.com/gpu=all"]
GROUPS = ["44", "105"]
# Word -> devices, groups, more options of security, mounts and variables of its container: Immich's own fragments.
TABLE = {
    "transcoding": {
        "vaapi": (["/dev/dri"], GROUPS, [], [], {}),
        "quicksync": (["/dev/dri"], GROUPS, [], [], {}),
        "nvenc": (CDI, [], [], [], {}),
        "rkmpp": (RKMPP, GROUPS, ["unmask=ALL", "apparmor=unconfined"], [], {}),
        "vaapi-wsl": (["/dev/dri"], GROUPS, [], ["/usr/lib/wsl"], WSL),
    },
    "machine_learning": {
        "cuda": (CDI, [], [], [], {}),
        "openvino": (["/dev/dri"], GROUPS, [], [], {}),
        "rocm": (["/dev/kfd", "/dev/dri"], GROUPS, [], [], {}),
        "armnn": (["/dev/mali0"], [], [], ["/usr/lib/libmali.so", "/lib/firmware/mali_csffw.bin"], {}),
        "rknn": (["/dev/dri"], GROUPS, ["unmask=ALL"], ["/sys/kernel/debug"], {}),
    },
}
WORDS = [(key, word) for key, words in TABLE.items() for word in words]
SERVICES = {"transcoding": "immich-server", "machine_learning": "immich-machine-learning"}


def declared(**words):
    return {"transcoding": None, "machine_learning": None, "devices": "auto", **words}


@pytest.fixture
def evaluated(loaders, modules, monkeypatch):
    """A function that returns settings, errors and warnings of a pillar with changes, on a host that has all."""
    monkeypatch.setattr(devices, "seen", lambda asked: EVERYTHING)

    def evaluate(**changes):
        loaders.context.clear()
        loaders.opts["pillar"]["immich"] = {**copy.deepcopy(PILLAR), **changes}
        errors, warnings = modules.immich_settings.errors(), modules.immich_settings.warnings()
        return modules.immich_settings.get(), [findings.seen(each) for each in [*errors, *warnings]]

    return evaluate


# -- what a word brings ----------------------------------------


def test_the_table_has_each_word_of_the_schema_and_no_other():
    described = SCHEMA["properties"]["hardware"]["properties"]
    for key, words in hardware.WORDS.items():
        assert described[key]["enum"] == [None, *words]
        assert list(TABLE[key]) == list(words)


@pytest.mark.parametrize(("key", "word"), WORDS)
def test_a_word_brings_what_immichs_own_fragment_has(evaluated, key, word):
    settings, said = evaluated(hardware={key: word})
    assert said == []
    plain, _ = evaluated()
    services = compose.project(settings, "pgvector")["services"]
    before = compose.project(plain, "pgvector")["services"]
    service = services.pop(SERVICES[key])
    was = before.pop(SERVICES[key])
    # The other container is as before.
    assert services == before
    expected, groups, security, mounts, variables = TABLE[key][word]
    assert service.pop("devices") == expected
    assert service.pop("group_add", []) == groups
    assert service.pop("security_opt") == [*was.pop("security_opt"), *security]
    bound = [{"type": "bind", "source": path, "target": path, "read_only": True} for path in mounts]
    assert service.pop("volumes") == was.pop("volumes") + bound
    assert service.pop("environment") == {**was.pop("environment"), **variables}
    image = was.pop("image")
    assert service.pop("image") == (f"{image}-{word}" if key == "machine_learning" else image)
    del service["labels"], was["labels"]
    # Among the rest: no capabilities, the root file system read-only, the user.
    assert service == was
    assert service["cap_drop"] == ["ALL"]


def test_no_word_brings_nothing(evaluated):
    settings, _ = evaluated()
    for service in compose.project(settings, "pgvector")["services"].values():
        assert not {"devices", "group_add"} & set(service)
        assert service["security_opt"] == ["no-new-privileges"]


def test_a_variable_of_the_pillar_comes_before_that_of_a_word(evaluated):
    settings, _ = evaluated(
        hardware={"transcoding": "vaapi-wsl"}, server={"environment": {"LIBVA_DRIVER_NAME": "other"}}
    )
    environment = compose.project(settings, "pgvector")["services"]["immich-server"]["environment"]
    assert environment["LIBVA_DRIVER_NAME"] == "other"
    assert environment["LD_LIBRARY_PATH"] == "/usr/lib/wsl/lib"


def test_listed_devices_take_the_place_of_what_they_are_part_of(evaluated):
    listed = ["/dev/dri/renderD128", "nvidia.com/gpu=0"]
    settings, said = evaluated(hardware={"transcoding": "vaapi", "machine_learning": "cuda", "devices": listed})
    assert said == []
    assert settings["server"]["hardware"]["devices"] == ["/dev/dri/renderD128"]
    assert settings["machine_learning"]["hardware"]["devices"] == ["nvidia.com/gpu=0"]
    # /dev/kfd stays: no listed one is part of it.
    rocm = hardware.WORDS["machine_learning"]["rocm"]
    assert hardware.devices(rocm, listed) == ["/dev/kfd", "/dev/dri/renderD128"]


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"hardware": {"transcoding": "qsv"}}, "immich:hardware:transcoding: must be one of null, vaapi, quicksync"),
        (
            {"hardware": {"transcoding": "vaapi", "devices": ["/dev/sda"]}},
            "immich:hardware:devices:0: is none of /dev/dri, nor part of one",
        ),
        ({"hardware": {"devices": ["/dev/dri"]}}, "immich:hardware:devices: has no effect without"),
        ({"hardware": {"devices": "all"}}, "immich:hardware:devices: must be auto or a list of devices"),
        (
            {"hardware": {"transcoding": "vaapi", "devices": ["/dev/../etc/shadow"]}},
            "immich:hardware:devices:0: must be a path below /dev",
        ),
        (
            {"hardware": {"machine_learning": "cuda"}, "machine_learning": {"enabled": False}},
            "immich:hardware:machine_learning: has no effect: this host runs no machine learning",
        ),
        (
            {"hardware": {"transcoding": "vaapi"}, "roles": ["postgres"]},
            "immich:hardware:transcoding: has no effect: this host does not have the role server",
        ),
        (
            {"hardware": {"machine_learning": "cuda"}, "machine_learning": {"image": "a/ml:v3.3.1-openvino"}},
            "immich:machine_learning:image: is an image for openvino, and immich:hardware:machine_learning is cuda",
        ),
        (
            {"hardware": {"machine_learning": "cuda"}, "machine_learning": {"image": f"a/ml:v3.3.1@sha256:{'a' * 64}"}},
            "immich:machine_learning:image: names a digest, which need not be that of an image for cuda",
        ),
        (
            {"machine_learning": {"image": "a/ml:v3.3.1-cuda"}},
            (
                "immich:machine_learning:image: is an image for cuda, which gets no device: write "
                "`immich:hardware:machine_learning: cuda`"
            ),
        ),
        (
            {"hardware": {"machine_learning": "cuda"}, "machine_learning": {"image": "a/ml:release-cuda"}},
            "immich:machine_learning:image: is a moving tag",
        ),
    ),
)
def test_what_a_pillar_cannot_mean_is_said(evaluated, changes, message):
    _, said = evaluated(**changes)
    assert len(said) == 1, said
    assert said[0].startswith(message)


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    (
        ("ghcr.io/a/ml", "", "ghcr.io/a/ml:v3.3.1"),
        ("ghcr.io/a/ml", "-cuda", "ghcr.io/a/ml:v3.3.1-cuda"),
        ("registry:5000/ml", "-cuda", "registry:5000/ml:v3.3.1-cuda"),
        ("ghcr.io/a/ml:v3.2.0", "-cuda", "ghcr.io/a/ml:v3.2.0-cuda"),
        ("ghcr.io/a/ml:v3.2.0-cuda", "-cuda", "ghcr.io/a/ml:v3.2.0-cuda"),
        ("ghcr.io/a/ml:v3.2.0-cuda@sha256:ab", "-cuda", "ghcr.io/a/ml:v3.2.0-cuda@sha256:ab"),
        ("ghcr.io/a/ml@sha256:ab", "", "ghcr.io/a/ml@sha256:ab"),
    ),
)
def test_the_suffix_goes_on_the_tag(image, suffix, expected):
    assert tagged(image, "v3.3.1", suffix) == expected


@pytest.mark.parametrize("word", hardware.WORDS["machine_learning"])
def test_a_version_is_read_through_the_suffix(word):
    suffix = hardware.suffix({"machine_learning": word})
    assert versions.parse(f"a/ml:v3.3.1{suffix}@sha256:ab") == (3, 3, 1)
    assert versions.highest(f"a/ml:v3.3.1{suffix}") == (3, 3, 1)
    assert versions.highest(f"a/ml:v3{suffix}") == versions.highest("a/ml:v3")
    assert versions.same(f"a/ml:v3.3.1{suffix}", f"b/ml:v3.3.1{suffix}")


def test_immichs_own_settings_of_a_word():
    accels = {word: hardware.settings_for(declared(transcoding=word)) for word in TABLE["transcoding"]}
    assert accels == {
        "vaapi": {"ffmpeg": {"accel": "vaapi"}},
        "quicksync": {"ffmpeg": {"accel": "qsv"}},
        "nvenc": {"ffmpeg": {"accel": "nvenc"}},
        "rkmpp": {"ffmpeg": {"accel": "rkmpp"}},
        "vaapi-wsl": {"ffmpeg": {"accel": "vaapi"}},
    }
    assert hardware.settings_for(declared()) == {}


# -- what a host lacks ----------------------------------------


def lacking(seen, user="60883:60883", **words):
    settings = {"hardware": declared(**words), "server": {"user": user}, "machine_learning": {"user": user}}
    return [
        (each["code"], each["path"], findings.sentence(each)) for each in lacking_hardware.obstacles(settings, seen)
    ]


@pytest.mark.parametrize(("key", "word"), WORDS)
def test_a_host_that_has_all_lacks_nothing_and_one_that_has_nothing_lacks_each_thing(key, word):
    assert lacking(EVERYTHING, **{key: word}) == []
    expected, _, _, mounts, _ = TABLE[key][word]
    found = lacking(NOTHING, **{key: word})
    mounts = [path for path in mounts if path != "/lib/firmware/mali_csffw.bin"]  # not each driver wants it
    groups = hardware.WORDS[key][word].groups
    assert len(found) == len(expected) + len(mounts) + len(groups)
    for code, path, sentence in found:
        assert code.startswith("hardware-")
        assert path == f"immich:hardware:{key}"
        assert f"{path}: {word}: " in sentence
        assert "Next step: " in sentence


def test_a_card_without_a_render_node_encodes_nothing():
    nodes = {"nodes": {"/dev/dri": {"/dev/dri/card0": NODE}}}
    ((code, _, sentence),) = lacking({**EVERYTHING, **nodes}, transcoding="vaapi")
    assert code == "hardware-device-absent"
    assert "a render node in /dev/dri is not on this host" in sentence


@pytest.mark.parametrize(
    ("node", "user", "is_closed"),
    (
        ({"owner": 0, "group": 0, "mode": 0o660}, "60883:60883", True),
        ({"owner": 0, "group": 105, "mode": 0o600}, "60883:60883", True),
        ({"owner": 0, "group": 105, "mode": 0o640}, "60883:60883", True),
        ({"owner": 0, "group": 105, "mode": 0o660}, "60883:60883", False),
        ({"owner": 0, "group": 0, "mode": 0o666}, "60883:60883", False),
        ({"owner": 0, "group": 0, "mode": 0o600}, "0:0", False),
    ),
)
def test_a_node_that_the_containers_user_cannot_open(node, user, is_closed):
    seen = {**EVERYTHING, "nodes": {"/dev/dri": {"/dev/dri/renderD128": node}}}
    found = lacking(seen, user, transcoding="vaapi")
    assert [code for code, _, _ in found] == ["hardware-device-closed"] * is_closed
    # Nobody is put into root's group.
    given = hardware.given(declared(transcoding="vaapi"), seen)["server"]["group_add"]
    assert given == [str(node["group"])] * (node["group"] != 0)


@pytest.mark.parametrize(
    ("seen", "device", "code", "words"),
    (
        ({"files": []}, "nvidia.com/gpu=all", "hardware-driver-absent", "install NVIDIA's driver"),
        ({"cdi": {}}, "nvidia.com/gpu=all", "hardware-cdi-absent", "`nvidia-ctk cdi generate --output=/etc/cdi/nvid"),
        ({}, "nvidia.com/gpu=7", "hardware-cdi-absent", "CDI has no device nvidia.com/gpu=7, only nvidia.com/gpu=0, n"),
    ),
)
def test_what_a_card_of_nvidia_needs_is_named_one_after_the_other(seen, device, code, words):
    ((found, path, sentence),) = lacking({**EVERYTHING, **seen}, transcoding="nvenc", devices=[device])
    assert found == code
    assert words in sentence
    assert path == f"immich:hardware:{'transcoding' if device.endswith('all') else 'devices'}"


@pytest.mark.parametrize(
    ("podman", "version", "is_read"),
    (
        ((4, 3), "0.5.0", True),
        ((4, 3), "0.6.0", False),
        ((5, 4), "0.7.0", True),
        ((5, 4), "1.0.0", False),
        # Not measured, or not installed yet.
        ((4, 9), "0.6.0", True),
        (None, "1.0.0", True),
        ((4, 3), "x", True),
    ),
)
def test_a_file_of_cdi_that_is_too_new_for_podman(podman, version, is_read):
    seen = {**EVERYTHING, "podman": podman, "cdi": {"nvidia.com/gpu=all": version}}
    found = lacking(seen, machine_learning="cuda")
    assert [code for code, _, _ in found] == ([] if is_read else ["hardware-cdi-version"])


def test_a_host_with_the_groups_under_other_numbers_gives_these():
    seen = {**EVERYTHING, "nodes": {"/dev/dri": {"/dev/dri/renderD128": {**NODE, "group": 993}}}}
    assert hardware.given(declared(transcoding="vaapi"), seen)["server"]["group_add"] == ["993"]


def test_devices_of_this_host_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CDI_FOLDERS", (str(tmp_path), str(tmp_path / "absent")))
    described = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all"}]}
    (tmp_path / "nvidia.yaml").write_text(
        "cdiVersion: 0.3.0\nkind: nvidia.com/gpu\ndevices: [{name: all}, {name: GPU-1}]\n"
    )
    (tmp_path / "other.json").write_text(json.dumps(described))
    (tmp_path / "notes.txt").write_text(json.dumps({**described, "kind": "a/b"}))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "number.json").write_text('{"cdiVersion": 1, "kind": 1, "devices": 2}')
    (tmp_path / "large.json").write_text(json.dumps({**described, "kind": "large/one"}) + " " * devices.LARGEST_FILE)
    os.mkfifo(tmp_path / "pipe.json")
    asked = {
        "devices": ["/dev/null", str(tmp_path), "/dev/absent", "nvidia.com/gpu=all"],
        "files": [str(tmp_path), "/absent"],
        "groups": ["root", "no-such-group"],
    }
    found = devices.seen(asked)
    assert list(found["nodes"]) == ["/dev/null"]
    assert found["nodes"]["/dev/null"]["/dev/null"].keys() == {"owner", "group", "mode"}
    assert found["cdi"] == {
        "nvidia.com/gpu=0": "0.5.0",
        "nvidia.com/gpu=GPU-1": "0.3.0",
        "nvidia.com/gpu=all": "0.5.0",
    }
    assert found["files"] == [str(tmp_path)]
    assert list(found["groups"]) in (["root"], [])
    assert devices.seen({**asked, "devices": ["/dev/null"]})["cdi"] == {}


def test_the_nodes_of_a_folder_are_its_character_devices():
    assert "/dev/null" in devices.seen({"devices": ["/dev"], "files": [], "groups": []})["nodes"]["/dev"]


@pytest.mark.parametrize(
    ("there", "lacks"),
    (
        ({"devices": ["/dev/dri/card0", "/dev/dri/renderD128"], "groups": ["105", "44"]}, []),
        ({"devices": ["/dev/dri/renderD128"], "groups": ["105"]}, ["the group 44"]),
        ({"devices": [], "groups": []}, ["the device /dev/dri", "the group 44", "the group 105"]),
        ({"devices": ["/dev/driver"], "groups": ["44", "105"]}, ["the device /dev/dri"]),
    ),
)
def test_what_podman_has_not_given_a_container(there, lacks):
    given = hardware.given(declared(transcoding="vaapi"), EVERYTHING)["server"]
    found = hardware.withheld("immich-server", given, {"arguments": [], **there})
    said = f"immich-server does not have, according to Podman, {' and '.join(lacks)}"
    assert [each["seen"] for each in found] == ([said] if lacks else [])


def test_a_device_of_cdi_stands_among_the_words_that_made_a_container():
    given = hardware.given(declared(transcoding="nvenc"), EVERYTHING)["server"]
    there = {"devices": ["/dev/nvidia0"], "groups": [], "arguments": ["podman", "run", "--device", *CDI]}
    assert hardware.withheld("immich-server", given, there) == []
    (found,) = hardware.withheld("immich-server", given, {**there, "arguments": []})
    assert found["seen"].endswith("the device nvidia.com/gpu=all")


def test_devices_by_hand_come_with_their_groups_beside_those_of_a_word():
    seen = {**NOTHING, "nodes": {"/dev/kfd": EVERYTHING["nodes"]["/dev/kfd"]}}
    bare = {"devices": ["/dev/kfd"], "group_add": ["105"], "security_opt": [], "mounts": [], "environment": {}}
    assert hardware.by_hand({}, ["/dev/kfd"], seen) == bare
    given = {**bare, "devices": ["/dev/dri"], "group_add": ["44"], "mounts": ["/usr/lib/wsl"]}
    both = {**given, "devices": ["/dev/dri", "/dev/kfd"], "group_add": ["44", "105"]}
    assert hardware.by_hand(given, ["/dev/dri", "/dev/kfd"], seen) == both


@pytest.mark.parametrize(
    ("device", "seen", "words"),
    (
        ("/dev/kfd", EVERYTHING, None),
        ("/dev/kfd", NOTHING, "/dev/kfd is not on this host"),
        ("/dev/ttyACM0", NOTHING, "/dev/ttyACM0 is not on this host"),
        ("nvidia.com/gpu=0", NOTHING, "NVIDIA's driver is not loaded"),
        ("intel.com/gpu=0", NOTHING, "no file in /etc/cdi or /run/cdi describes intel.com/gpu=0"),
    ),
)
def test_a_device_by_hand_that_the_host_lacks_is_named_with_its_place(device, seen, words):
    settings = {"server": {"user": "60883:60883", "devices": [device]}}
    found = lacking_hardware.of_listed(settings, "server", seen)
    assert [each["path"] for each in found] == (["immich:server:devices:0"] if words else [])
    assert all(words in each["seen"] for each in found)
