"""
Whether the hardware works: what is run in the containers, and what its output proves
======================================================================================

One frame is encoded as Immich's server would encode it, and one inference run as its machine learning would run it.
Without a proof nobody sees that these fall back to the CPU. What a container prints is text of others.

Sources: Immich's ``server/src/utils/media.ts`` (commit 024e234, of 3.x) for ffmpeg's arguments, and of
``machine-learning/immich_ml``, 3.x, ``sessions/ort.py`` (042e5d5), ``sessions/ann/loader.py`` (9065097) and
``sessions/rknn/rknnpool.py`` (23f1f87). Not run on real hardware.
"""

import json
import re
from collections import namedtuple

from host_core import terminal

# ``result`` is True, False or None: proved, disproved, or not known.
Proof = namedtuple("Proof", "result words")
# Options of ffmpeg, by where Immich puts them.
_Options = namedtuple("_Options", "inputs tuning reordering power filters quality", defaults=((), (), (), (), "", ()))
# Immich's own defaults: server/src/config.ts.
CODEC, DEVICE = "h264", "auto"
# The codecs that Immich asks of each kind of encoder, and refuses others: getSupportedCodecs.
CODECS = {
    "vaapi": ("h264", "hevc", "vp9", "av1"),
    "qsv": ("h264", "hevc", "vp9", "av1"),
    "nvenc": ("h264", "hevc", "av1"),
    "rkmpp": ("h264", "hevc"),
}
# A picture that is as large as the smallest that all encoders take.
PICTURE = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=1:duration=1,format=yuv420p", "-frames:v", "1"]
# No file, in the way in which Immich itself writes none in its first pass.
NOWHERE = ["-f", "null", "/dev/null"]
# Of ffmpeg with `-v verbose`.
MAPPING = re.compile(r"Stream #\d+:\d+ -> #\d+:\d+ \(.{1,80} -> \w+ \((\w+)\)\)")
ENCODED = re.compile(r"\b[1-9]\d* frames encoded")
SOFTWARE = re.compile(r"software implementation|\b(?:llvmpipe|softpipe|swrast)\b", re.IGNORECASE)
TROUBLE = re.compile(
    r"fail|error|cannot|could not|no such|\bno .{1,40} found|denied|unknown|not (?:found|supported|available)",
    re.IGNORECASE,
)
# What `timeout` of coreutils ends with when it had to end the program, and where even that took a KILL.
TIMED_OUT = (124, 137)
LONGEST_WORDS = 300


# -- one frame ----------------------------------------


def declared(server_settings):
    """
    Return what Immich's own settings say of transcoding, of ``accel``, ``codec`` and ``device``. Of what they leave out
    only ``accel`` is returned: without it, Immich transcodes on the CPU.

    server_settings
        Immich's settings as the pillar declares them.

    .. code-block:: python

        hardware_proof.declared({"ffmpeg": {"accel": "vaapi"}})
    """
    transcoding = server_settings.get("ffmpeg") or {}
    named = {"accel": "accel", "codec": "targetVideoCodec", "device": "preferredHwDevice"}
    said = {key: transcoding[name] for key, name in named.items() if transcoding.get(name) is not None}
    return {"accel": "disabled", **said}


def encoder(accel, codec):
    """
    Return the name of ffmpeg's encoder, as ``h264_vaapi``.

    accel, codec
        Immich's settings ``ffmpeg.accel`` and ``ffmpeg.targetVideoCodec``.

    .. code-block:: python

        hardware_proof.encoder("qsv", "hevc")
    """
    return f"{codec}_{accel}"


def render_device(nodes, preferred):
    """
    Return the node of /dev/dri that Immich takes, or None if it would take none: ``getDevice`` of its ``BaseHWConfig``.

    nodes
        Paths of the nodes that the container has.
    preferred
        Immich's setting ``ffmpeg.preferredHwDevice``: ``auto`` or a node.

    .. code-block:: python

        hardware_proof.render_device(["/dev/dri/card0", "/dev/dri/renderD128"], "auto")
    """
    names = sorted(node[len("/dev/dri/") :] for node in nodes if node.startswith("/dev/dri/"))
    if preferred == DEVICE:
        names = [name for name in names if name.startswith(("renderD", "card"))]
    else:
        names = [name for name in names if name == preferred.replace("/dev/dri/", "")]
    return f"/dev/dri/{names[-1]}" if names else None


def encode(accel, codec, device):
    """
    Return the command that encodes one frame with the options that Immich would use, decoding on the CPU.

    accel, codec
        As for :py:func:`encoder`.
    device
        What :py:func:`render_device` has returned.

    .. code-block:: python

        hardware_proof.encode("vaapi", "h264", "/dev/dri/renderD128")
    """
    options = {"nvenc": _nvenc, "qsv": _qsv, "vaapi": _vaapi, "rkmpp": _rkmpp}[accel](codec, device)
    common = ["-c:v", encoder(accel, codec), "-movflags", "faststart", "-fps_mode", "passthrough", "-map", "0:0"]
    common += [
        "-map_metadata",
        "-1",
        *options.reordering,
        "-g",
        "256",
        *(["-tag:v", "hvc1"] if codec == "hevc" else []),
    ]
    filtered = ["-vf", options.filters] if options.filters else []
    words = [*PICTURE, *options.tuning, *common, *options.power, "-v", "verbose", *filtered, *options.quality, *NOWHERE]
    return ["ffmpeg", *options.inputs, *words]


def _nvenc(_codec, _device):
    return _Options(
        inputs=("-init_hw_device", "cuda=cuda:0", "-filter_hw_device", "cuda"),
        tuning=("-tune", "hq", "-qmin", "0", "-rc-lookahead", "20", "-i_qfactor", "0.75"),
        filters="hwupload_cuda",
        quality=("-preset", "p1", "-cq:v", "23"),
    )


def _qsv(codec, device):
    return _Options(
        inputs=("-init_hw_device", f"qsv=hw,child_device={device}", "-filter_hw_device", "hw"),
        reordering=("-bf", "7", "-refs", "5"),
        power=("-low_power", "1") if codec == "vp9" else (),
        filters="hwupload=extra_hw_frames=64",
        quality=("-preset", "7", "-q:v" if codec == "vp9" else "-global_quality:v", "23"),
    )


def _vaapi(codec, device):
    frames = ("-bsf:v", "vp9_raw_reorder,vp9_superframe") if codec == "vp9" else ()
    return _Options(
        inputs=("-init_hw_device", f"vaapi=accel:{device}", "-filter_hw_device", "accel"),
        filters="hwupload=extra_hw_frames=64",
        quality=("-compression_level", "7", *frames, "-qp:v", "23", "-global_quality:v", "23", "-rc_mode", "1"),
    )


def _rkmpp(codec, _device):
    level = "51" if codec == "h264" else "153"
    return _Options(quality=("-level", level, "-rc_mode", "CQP", "-qp_init", "23"))


def encoded(printed, code, desired, seconds):
    """
    Return what the output of :py:func:`encode` proves, as ``Proof``.

    printed, code
        Its output, and its exit code, or None if it was killed.
    desired
        The encoder that should have done it.
    seconds
        How long it had.

    .. code-block:: python

        hardware_proof.encoded(printed, 0, "h264_vaapi", 10)
    """
    if code is None or code in TIMED_OUT:
        return Proof(
            False, f"ffmpeg with {desired} did not end within {seconds:.0f} s, or printed without end, and was killed"
        )
    used = MAPPING.search(printed)
    if code:
        return Proof(False, f"ffmpeg fails with {desired}: {_trouble(printed)}")
    if used and used[1] != desired:
        return Proof(
            False, f"ffmpeg used {terminal.one_line(used[1], 40)} instead of {desired}: it fell back to the CPU"
        )
    software = SOFTWARE.search(printed)
    if software:
        return Proof(False, f"{desired} fell back to the CPU: ffmpeg mentions {software[0]}")
    if not used or not ENCODED.search(printed):
        return Proof(False, f"ffmpeg does not say that {desired} has encoded a frame")
    return Proof(True, f"one frame was encoded with {desired}")


def _trouble(printed):
    """The first line that says what is wrong, or the last one."""
    lines = [line for line in map(terminal.one_line, printed.splitlines()) if line]
    troubles = [line for line in lines if TROUBLE.search(line)]
    return ((troubles or lines[-1:] or ["it says nothing"])[0])[:LONGEST_WORDS]


# -- one inference ----------------------------------------

# A convolution with one weight, as ONNX: made by hand after onnx.proto, and run with onnxruntime 1.32.
MODEL = (
    "CAc6YwoPCgF4CgF3EgF5IgRDb252EgFnKhMIAQgBCAEIARABQgF3SgQAAABAWhsKAXgSFgoUCAESEAoCCAEKAggBCgIIBAoCCARiGwoBeRIWChQIARIQCgI"
    "IAQoCCAEKAggECgIIBEICEA0="
)
_BEGIN = """
import base64, json, os, sys
def tell(**found):
    print(json.dumps(found))
    sys.exit()
"""
# A session that may not use the CPU: without that option a provider that cannot be loaded is left out, with a line in
# the log. The options are those of `provider_options` in sessions/ort.py.
_ORT = """
import numpy
import onnxruntime as ort
number = os.environ.get("MACHINE_LEARNING_DEVICE_ID", "0")
wrong = "this image has none of " + " and ".join(sys.argv[1:])
for name in [name for name in sys.argv[1:] if name in ort.get_available_providers()]:
    options = {"device_id": number}
    if name == "OpenVINOExecutionProvider":
        if not [each for each in ort.capi._pybind_state.get_available_openvino_device_ids() if each.startswith("GPU")]:
            tell(lacking="OpenVINO finds no GPU")
        options = {"device_type": "GPU." + number}
    strict = ort.SessionOptions()
    strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(base64.b64decode(MODEL), strict, [name], [options], enable_fallback=0)
        session.run(None, {"x": numpy.ones((1, 1, 4, 4), "float32")})
    except Exception as error:
        wrong = name + ": " + str(error)
        continue
    if session.get_providers()[0] == name:
        tell(used=name)
    wrong = name + " left it to " + session.get_providers()[0]
tell(lacking=wrong)
"""
_ARMNN = """
import tempfile
import numpy
from immich_ml.sessions.ann import loader
if not loader.is_available:
    tell(lacking="Arm NN or libmali.so cannot be loaded")
with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
    file.write(base64.b64decode(MODEL))
    file.flush()
    ann = loader.Ann()
    network = ann.load(file.name)
    ann.execute(network, [numpy.ones(shape, numpy.float32) for shape in ann.input_shapes[network]])
tell(used="Arm NN")
"""
# Its models are made for one chip: there is none that could be brought along.
_RKNN = """
import glob
from immich_ml.sessions.rknn import rknnpool
if not rknnpool.is_available:
    tell(lacking="this chip's NPU is not found")
models = sorted(glob.glob("/cache/**/*.rknn", recursive=True))
if not models:
    tell(unknown="no model for the NPU was fetched yet")
rknnpool.init_rknn(models[0]).release()
tell(used="RKNN")
"""
_ENGINES = {"armnn": _ARMNN, "rknn": _RKNN}


def infer(acceleration):
    """
    Return the command that runs one inference with the provider that Immich would use.

    acceleration
        An entry of ``immich_core.hardware.WORDS``.

    .. code-block:: python

        hardware_proof.infer(hardware.WORDS["machine_learning"]["cuda"])
    """
    script = f"{_BEGIN}MODEL = {MODEL!r}\n{_ENGINES.get(acceleration.engine, _ORT)}"
    return ["python3", "-c", script, *acceleration.providers]


def inferred(printed, code, word, seconds):
    """
    Return what the output of :py:func:`infer` proves, as ``Proof``.

    printed, code, seconds
        As for :py:func:`encoded`.
    word
        The word of the pillar, as ``cuda``.

    .. code-block:: python

        hardware_proof.inferred('{"used": "CUDAExecutionProvider"}', 0, "cuda", 10)
    """
    if code is None or code in TIMED_OUT:
        return Proof(
            False,
            f"an inference with {word} did not end within {seconds:.0f} s, or printed without end, and was killed",
        )
    found = _told(printed)
    if "used" in found and not code:
        return Proof(True, f"one inference was run with {found['used']}")
    if "unknown" in found:
        return Proof(None, found["unknown"])
    if "lacking" in found:
        return Proof(False, f"machine learning falls back to the CPU: {found['lacking']}")
    return Proof(False, f"an inference with {word} fails: {_trouble(printed)}")


def _told(printed):
    """The last line of JSON: drivers and libraries write beside it."""
    for line in reversed(printed.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return {str(key): terminal.one_line(str(value), LONGEST_WORDS) for key, value in found.items()}
    return {}
