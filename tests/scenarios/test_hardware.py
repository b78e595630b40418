"""Hardware acceleration: devices reach the containers, which may open them, and the doctor proves that they work.

The devices are made: nodes of the kernel's own /dev/zero under the names of graphics cards, and a file of CDI. What
uses them are the stand-ins of ffmpeg and ONNX Runtime, which open them.
"""

import json
import shlex

import pytest

from tests.scenarios.conftest import GRAPHICS_CARD, LEARNING, changed, deployed, pillar_with

RENDER, CARD, NVIDIA = "/dev/dri/renderD128", "/dev/dri/card0", "/dev/nvidiactl"
INTEL = {"transcoding": "vaapi", "machine_learning": "openvino"}
CDI = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [{"name": name, "containerEdits": {"deviceNodes": [{"path": NVIDIA}]}} for name in ("0", "all")],
    "containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"]},
}
ROWS = ("transcoding hardware", "machine learning hardware")
# The doctor's time where a command in a container hangs, of which it leaves some for what Podman needs around it.
HANGS = 3
OPENS = "sh -c ': <>{node}'"


@pytest.fixture(scope="module")
def bare_of_hardware(first_run):
    with deployed(first_run) as host:
        yield host


@pytest.fixture(scope="module")
def accelerated(bare_of_hardware):
    """The same host with a graphics card of Intel's, as far as the formula sees."""
    host = bare_of_hardware
    host.run(GRAPHICS_CARD)
    host.run(f"podman tag {LEARNING} {LEARNING}-cuda")
    host.pillar(pillar_with(hardware=INTEL))
    host.apply()
    return host


def doctor(host, seconds=40):
    """The doctor's rows about hardware: result and what was seen. A busy machine gets time, but for what hangs."""
    found = host.salt("immich.doctor", f"timeout={seconds}")
    return [(row["part"], row["result"], row["seen"]) for row in found if row["part"] in ROWS]


def group(host, name):
    return host.out(f"getent group {name} | cut -d: -f3")


def inspected(host, container):
    form = "'{{json .HostConfig.Devices}} {{json .HostConfig.GroupAdd}}'"
    devices, groups = host.out(f"podman inspect --format {form} {container}").split(" ")
    return {each["PathInContainer"] for each in json.loads(devices)}, set(json.loads(groups) or [])


def test_what_the_host_lacks_is_refused_before_anything_changes(bare_of_hardware):
    host = bare_of_hardware
    host.pillar(pillar_with(hardware={**INTEL, "machine_learning": "cuda"}))
    for test in (True, False):
        states = host.apply(test=test, check=False)
        assert changed(states) == {}
        assert [state["id"] for state in states] == ["The pillar is valid", "This host is ready for Immich"], states
        assert (
            "immich:hardware:transcoding: vaapi: a render node in /dev/dri is not on this host" in states[1]["comment"]
        )
        assert "immich:hardware:machine_learning: cuda: NVIDIA's driver is not loaded" in states[1]["comment"]


def test_the_containers_have_the_devices_and_may_open_them_by_their_groups_alone(accelerated):
    host = accelerated
    assert changed(host.apply()) == {}
    numbers = {group(host, "render"), group(host, "video")}
    for container in ("immich-server", "immich-machine-learning"):
        devices, groups = inspected(host, container)
        assert (devices, groups) == ({RENDER, CARD}, numbers)
        status = host.out(f"podman exec {container} cat /proc/1/status")
        lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert (int(lines["CapBnd"], 16), lines["NoNewPrivs"]) == (0, "1")
        assert set(lines["Groups"].split()) - {"60883", "60884"} == numbers
        host.run(f"podman exec {container} {OPENS.format(node=RENDER)}")
    # The same container without its groups, which is what a wrong number makes of it.
    alone = f"podman run --rm --user 60884:60884 --cap-drop all --device /dev/dri --entrypoint /bin/sh {LEARNING}"
    refused = host.run(f"{alone} -c ': <>{RENDER}'", check=False)
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr
    images = host.out("podman ps --format '{{.Image}}'").splitlines()
    assert f"{LEARNING}-openvino" in images


def test_what_podman_has_not_given_a_container_is_found(accelerated):
    settings = accelerated.salt("immich_settings.get")
    for part in ("server", "machine_learning"):
        settings[part]["hardware"]["group_add"].append("4242")
    settings["server"]["hardware"]["devices"].append("/dev/kfd")
    found = accelerated.salt("immich_app.verify_hardware", f"settings={json.dumps(settings)}")
    assert [each["seen"] for each in found] == [
        "immich-server does not have, according to Podman, the device /dev/kfd and the group 4242",
        "immich-machine-learning does not have, according to Podman, the group 4242",
    ]


def test_the_doctor_proves_that_it_works_and_names_immichs_own_setting(accelerated):
    host = accelerated
    encoded = ("transcoding hardware", "ok", "one frame was encoded with h264_vaapi")
    inferred = ("machine learning hardware", "ok", "one inference was run with OpenVINOExecutionProvider")
    rows = doctor(host)
    assert encoded in rows
    assert inferred in rows
    assert [row[1:] for row in rows if row not in (encoded, inferred)] == [
        ("warning", "Immich's own setting is disabled, so videos are transcoded without vaapi")
    ]
    value = json.dumps({"ffmpeg": {"accel": "vaapi", "preferredHwDevice": "/dev/dri/card0"}})
    host.run(
        "runuser -u postgres -- psql -qd immich",
        stdin=f"INSERT INTO system_metadata (key, value) VALUES ('system-config', '{value}')",
    )
    assert sorted(doctor(host)) == sorted([encoded, inferred])


@pytest.mark.parametrize(
    ("fault", "seen"),
    (
        ("refuse", "ffmpeg fails with h264_vaapi: [AVHWDeviceContext @ 0x5581] No VA display found for device"),
        ("fallback", "ffmpeg used libx264 instead of h264_vaapi: it fell back to the CPU"),
        ("hang", "did not end within"),
        ("flood", "did not end within"),
    ),
)
def test_an_encoder_that_does_not_work_is_a_failed_row_and_leaves_nothing(accelerated, fault, seen):
    host = accelerated
    host.run(f"podman exec immich-server sh -c 'echo {fault} >/tmp/standin-ffmpeg'")
    try:
        seconds = HANGS if fault in ("hang", "flood") else 40
        (row,) = [row for row in doctor(host, seconds) if row[0] == "transcoding hardware" and row[1] != "warning"]
        assert row[1] == "failed"
        assert seen in row[2]
        assert len(row[2]) < 700
        host.wait_for("! pgrep -f '[f]fmpeg -init_hw_device'")
    finally:
        host.run("podman exec immich-server rm /tmp/standin-ffmpeg")


def test_a_command_that_stops_its_own_deadline_is_ended_all_the_same(accelerated):
    """As somebody who has taken over the container can: `timeout` in there is stopped."""
    host = accelerated
    host.run("podman exec immich-server sh -c 'echo hang >/tmp/standin-ffmpeg'")
    stop = "pkill -STOP -f '^timeout --kill-after=1 .*ffmpeg' && touch /run/stopped"
    looking = f"until test -e /run/stopped; do {stop}; sleep 0.05; done"
    host.run(f"setsid sh -c {shlex.quote(looking)} >/dev/null 2>&1 &")
    try:
        assert ("transcoding hardware", "failed") in [row[:2] for row in doctor(host, HANGS)]
        host.run("test -e /run/stopped")
        host.wait_for("! pgrep -f '[f]fmpeg -init_hw_device'")
    finally:
        host.run("touch /run/stopped; podman exec immich-server rm /tmp/standin-ffmpeg")


@pytest.mark.parametrize(
    ("fault", "seen"),
    (
        ("fallback", "machine learning falls back to the CPU: OpenVINO finds no GPU"),
        ("hang", "an inference with openvino did not end within"),
    ),
)
def test_machine_learning_that_does_not_use_the_hardware_is_a_failed_row(accelerated, fault, seen):
    host = accelerated
    host.run(f"podman exec immich-machine-learning sh -c 'echo {fault} >/tmp/standin-onnxruntime'")
    try:
        seconds = HANGS if fault == "hang" else 40
        (row,) = [row for row in doctor(host, seconds) if row[0] == "machine learning hardware"]
        assert row[1] == "failed"
        assert row[2].startswith(seen)
        host.wait_for("! pgrep -f '[e]nable_fallback=0'")
    finally:
        host.run("podman exec immich-machine-learning rm /tmp/standin-onnxruntime")


def test_a_card_of_nvidia_comes_by_cdi(accelerated):
    """Its driver, its file and its device are asked for one after the other."""
    host = accelerated
    hardware = {"transcoding": "nvenc", "machine_learning": "cuda", "devices": ["nvidia.com/gpu=0"]}
    host.pillar(pillar_with(hardware=hardware))
    host.run(f"mknod -m 666 {NVIDIA} c 1 5")
    refused = host.apply("immich.podman", check=False)[-1]
    assert refused["result"] is False
    assert "no file in /etc/cdi or /run/cdi describes nvidia.com/gpu=0" in refused["comment"]
    host.write("/etc/cdi/nvidia.yaml", json.dumps(CDI))
    host.apply()
    assert changed(host.apply()) == {}
    for container in ("immich-server", "immich-machine-learning"):
        host.run(f"podman exec {container} {OPENS.format(node=NVIDIA)}")
        assert host.run(f"podman exec {container} ls {RENDER}", check=False).returncode != 0
    rows = doctor(host)
    assert ("transcoding hardware", "ok", "one frame was encoded with h264_nvenc") in rows
    assert ("machine learning hardware", "ok", "one inference was run with CUDAExecutionProvider") in rows


def test_without_a_word_the_containers_have_nothing_again(accelerated):
    host = accelerated
    host.pillar(pillar_with())
    host.apply()
    for container in ("immich-server", "immich-machine-learning"):
        assert inspected(host, container) == (set(), set())
    assert doctor(host) == []
