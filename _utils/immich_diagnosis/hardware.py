"""
Part: hardware acceleration, proved in the containers
======================================================
"""

import shlex

from salt.exceptions import CommandExecutionError

from immich_core import hardware, hardware_proof
from immich_core.compose import MACHINE_LEARNING, SERVER
from immich_diagnosis.check import FAILED, OK, WARNING, Check, NotCheckedError, call, of_finding
from immich_diagnosis.facts import compose_of, postgres_connection, settings_of
from immich_diagnosis.words import one_line
from immich_host import secret_files
from immich_io import containers

# A driver is loaded, and a card woken: a check may take so many times as long as others.
TIMES = 4
LARGEST_OUTPUT = 256 * 1024
# Immich's settings as its page writes them: the key of `system_metadata` has what differs from the defaults.
SETTINGS = """
SELECT left(value #>> '{ffmpeg,accel}', 40) AS accel, left(value #>> '{ffmpeg,targetVideoCodec}', 40) AS codec,
left(value #>> '{ffmpeg,preferredHwDevice}', 40) AS device
FROM public.system_metadata WHERE key = 'system-config' AND jsonb_typeof(value) = 'object' LIMIT 1
"""


def _transcoding(here):
    settings = settings_of(here)
    lacking = call(here, "immich_app.verify_hardware", settings, ["server"])
    word = settings["hardware"]["transcoding"]
    if lacking or not word:
        return map(of_finding, lacking)
    there = _inspected(SERVER)
    accel = hardware.WORDS["transcoding"][word].accel
    said = _said_by_immich(here)
    row = _encoded(accel, said["codec"], said["device"], there, _seconds(here))
    if said["accel"] not in (accel, None):
        seen = f"Immich's own setting is {one_line(said['accel'])}, so videos are transcoded without {word}"
        page = "Immich: Administration > Settings > Video Transcoding > Hardware"
        place = "immich:settings:ffmpeg:accel" if settings["server"]["settings_managed"] else page
        return [row, (WARNING, seen, f"{place}: {accel}")]
    return [row]


def _encoded(accel, codec, preferred, there, seconds):
    if codec not in hardware_proof.CODECS[accel]:
        seen = f"Immich is set to the codec {one_line(codec)}, which it does not encode with {accel}"
        return FAILED, seen, f"choose {hardware_proof.CODECS[accel][0]} in Immich, under Video Transcoding"
    device = None
    if accel in ("vaapi", "qsv"):
        device = hardware_proof.render_device(there["devices"], preferred)
        if not device:
            seen = f"the container has no device {one_line(preferred)}, which Immich's setting preferredHwDevice names"
            return FAILED, seen, "set it to auto in Immich, under Video Transcoding"
    words = hardware_proof.encode(accel, codec, device)
    ended = containers.tried(SERVER, words, seconds, LARGEST_OUTPUT)
    proof = hardware_proof.encoded(ended.stdout, ended.code, hardware_proof.encoder(accel, codec), seconds)
    return _row(proof, f"podman exec {SERVER} {shlex.join(words)}")


def _learning(here):
    settings = settings_of(here)
    lacking = call(here, "immich_app.verify_hardware", settings, ["machine_learning"])
    word = settings["hardware"]["machine_learning"]
    if lacking or not word:
        return map(of_finding, lacking)
    _inspected(MACHINE_LEARNING)
    words, seconds = hardware_proof.infer(hardware.WORDS["machine_learning"][word]), _seconds(here)
    ended = containers.tried(MACHINE_LEARNING, words, seconds, LARGEST_OUTPUT)
    proof = hardware_proof.inferred(ended.stdout, ended.code, word, seconds)
    return [_row(proof, f"podman logs --tail 50 {MACHINE_LEARNING}")]


def _row(proof, advice):
    if proof.result is None:
        return WARNING, f"not proved: {one_line(proof.words)}", "salt-call immich.doctor, after Immich has used it once"
    return OK if proof.result else FAILED, one_line(proof.words), "" if proof.result else advice


def _seconds(here):
    """What a command in a container may take: all of the time but what Podman needs around it, on a busy host more."""
    whole = here["seconds"] * TIMES
    return max(1, whole - max(4, whole / 3))


def _inspected(container):
    found = containers.hardware(container)
    if not found["running"]:
        raise NotCheckedError("a container that runs")
    return found


def _said_by_immich(here):
    """Immich's own settings of transcoding; ``accel`` is None where they are not known."""
    found = {"accel": None, "codec": hardware_proof.CODEC, "device": hardware_proof.DEVICE}
    settings = settings_of(here)
    if settings["server"]["settings_managed"]:
        return {**found, **hardware_proof.declared(secret_files.declared_settings(settings, here["pillar"]))}
    environment = compose_of(here)["services"].get(SERVER, {}).get("environment", {})
    if "IMMICH_CONFIG_FILE" in environment:  # then the database's count for nothing
        return found
    postgres = settings["postgres"]
    arguments = (postgres["user"], postgres["database"], SETTINGS, postgres_connection(here), 2)
    try:
        rows = call(here, "pgsql_database.query_as", *arguments)
    except CommandExecutionError:  # which stands above
        return found
    # Without a row nobody has changed any.
    said = {key: value for key, value in (rows[0] if rows else {}).items() if isinstance(value, str)}
    return {**found, "accel": "disabled", **said}


GROUPS = (
    (Check("transcoding hardware", _transcoding, disturbed=True, asks=("immich_app.verify_hardware",), times=TIMES),),
    (Check("machine learning hardware", _learning, disturbed=True, asks=("immich_app.verify_hardware",), times=TIMES),),
)
