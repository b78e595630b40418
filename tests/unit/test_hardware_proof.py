"""What is run in the containers to prove that the hardware works, and what its output proves."""

import pytest

from immich_core import hardware, hardware_proof

VERBOSE = """Stream mapping:
  Stream #0:0 -> #0:0 (wrapped_avframe (native) -> h264 ({}))
[out#0/null @ 0x55] Output stream #0:0 (video): 1 frames encoded; 1 packets muxed (5130 bytes);
"""
BEFORE = "-movflags faststart -fps_mode passthrough -map 0:0 -map_metadata -1"
INPUT = "-f lavfi -i testsrc2=size=640x360:rate=1:duration=1,format=yuv420p -frames:v 1"
END = "-f null /dev/null"


@pytest.mark.parametrize(
    ("accel", "codec", "command"),
    (
        (
            "vaapi",
            "h264",
            (
                f"ffmpeg -init_hw_device vaapi=accel:/dev/dri/renderD128 -filter_hw_device accel {INPUT} "
                f"-c:v h264_vaapi {BEFORE} -g 256 -v verbose -vf hwupload=extra_hw_frames=64 -compression_level 7 "
                f"-qp:v 23 -global_quality:v 23 -rc_mode 1 {END}"
            ),
        ),
        (
            "qsv",
            "hevc",
            (
                f"ffmpeg -init_hw_device qsv=hw,child_device=/dev/dri/renderD128 -filter_hw_device hw {INPUT} "
                f"-c:v hevc_qsv {BEFORE} -bf 7 -refs 5 -g 256 -tag:v hvc1 -v verbose -vf hwupload=extra_hw_frames=64 "
                f"-preset 7 -global_quality:v 23 {END}"
            ),
        ),
        (
            "qsv",
            "vp9",
            (
                f"ffmpeg -init_hw_device qsv=hw,child_device=/dev/dri/renderD128 -filter_hw_device hw {INPUT} "
                f"-c:v vp9_qsv {BEFORE} -bf 7 -refs 5 -g 256 -low_power 1 -v verbose -vf hwupload=extra_hw_frames=64 "
                f"-preset 7 -q:v 23 {END}"
            ),
        ),
        (
            "nvenc",
            "h264",
            (
                f"ffmpeg -init_hw_device cuda=cuda:0 -filter_hw_device cuda {INPUT} -tune hq -qmin 0 -rc-lookahead 20 "
                f"-i_qfactor 0.75 -c:v h264_nvenc {BEFORE} -g 256 -v verbose -vf hwupload_cuda -preset p1 "
                f"-cq:v 23 {END}"
            ),
        ),
        (
            "rkmpp",
            "hevc",
            (
                f"ffmpeg {INPUT} -c:v hevc_rkmpp {BEFORE} -g 256 -tag:v hvc1 -v verbose -level 153 -rc_mode CQP "
                f"-qp_init 23 {END}"
            ),
        ),
    ),
)
def test_a_frame_is_encoded_with_immichs_own_options(accel, codec, command):
    assert " ".join(hardware_proof.encode(accel, codec, "/dev/dri/renderD128")) == command


def test_there_is_an_encoder_for_each_word():
    assert {each.accel for each in hardware.WORDS["transcoding"].values()} == set(hardware_proof.CODECS)


@pytest.mark.parametrize(
    ("nodes", "preferred", "device"),
    (
        # With several, Immich takes the last.
        (["card0", "renderD128", "renderD129", "by-path"], "auto", "/dev/dri/renderD129"),
        (["card0", "renderD128", "renderD129"], "/dev/dri/renderD128", "/dev/dri/renderD128"),
        (["card0", "renderD128"], "renderD130", None),
        ([], "auto", None),
    ),
)
def test_the_device_is_the_one_that_immich_takes(nodes, preferred, device):
    assert hardware_proof.render_device([f"/dev/dri/{node}" for node in nodes], preferred) == device


@pytest.mark.parametrize(
    ("printed", "code", "result", "words"),
    (
        (VERBOSE.format("h264_vaapi"), 0, True, "one frame was encoded with h264_vaapi"),
        (VERBOSE.format("libx264"), 0, False, "ffmpeg used libx264 instead of h264_vaapi: it fell back to the CPU"),
        (VERBOSE.format("h264_vaapi").replace("1 frames", "0 frames"), 0, False, "does not say that h264_vaapi has"),
        ("", 0, False, "does not say that h264_vaapi has encoded a frame"),
        (
            VERBOSE.format("h264_vaapi") + "libva info: driver for llvmpipe",
            0,
            False,
            "h264_vaapi fell back to the CPU: ffmpeg mentions llvmpipe",
        ),
        (
            "ffmpeg version 7\nDevice creation failed: -13.\nError\n",
            187,
            False,
            "ffmpeg fails with h264_vaapi: Device creation failed: -13.",
        ),
        ("", 1, False, "ffmpeg fails with h264_vaapi: it says nothing"),
        (VERBOSE.format("h264_vaapi"), 124, False, "did not end within 10 s"),
        (VERBOSE.format("h264_vaapi"), 137, False, "did not end within 10 s"),
        (VERBOSE.format("h264_vaapi"), None, False, "did not end within 10 s, or printed without end"),
        ("x" * 10**5 + "\x1b[2J failed", 1, False, "ffmpeg fails with h264_vaapi: xxx"),
    ),
)
def test_what_the_output_of_an_encoder_proves(printed, code, result, words):
    proof = hardware_proof.encoded(printed, code, "h264_vaapi", 10)
    assert proof.result is result
    assert words in proof.words
    assert len(proof.words) < 400
    assert proof.words.isprintable()


@pytest.mark.parametrize(
    ("printed", "code", "result", "words"),
    (
        ('{"used": "CUDAExecutionProvider"}\n', 0, True, "one inference was run with CUDAExecutionProvider"),
        ('[W:onnxruntime] x\n{"used": "RKNN"}\n', 0, True, "RKNN"),
        ('{"lacking": "no GPU"}', 0, False, "machine learning falls back to the CPU: no GPU"),
        ('{"unknown": "no model"}', 0, None, "no model"),
        ('{"used": "CUDAExecutionProvider"}', 139, False, "an inference with cuda fails"),
        ("ModuleNotFoundError: No module named 'onnxruntime'", 1, False, "fails: ModuleNotFoundError: No module"),
        ('["used"]', 0, False, "an inference with cuda fails"),
        ("", 124, False, "did not end within 10 s"),
        ('{"used": "x"}', None, False, "did not end within 10 s"),
        ('{"used": "' + "x" * 10**4 + '"}', 0, True, "one inference was run with xxx"),
    ),
)
def test_what_the_output_of_an_inference_proves(printed, code, result, words):
    proof = hardware_proof.inferred(printed, code, "cuda", 10)
    assert proof.result is result
    assert words in proof.words
    assert len(proof.words) < 400


@pytest.mark.parametrize("word", hardware.WORDS["machine_learning"])
def test_an_inference_is_python_that_can_be_compiled(word):
    program, option, script, *providers = hardware_proof.infer(hardware.WORDS["machine_learning"][word])
    compile(script, "-c", "exec")
    assert (program, option) == ("python3", "-c")
    assert bool(providers) is (word in ("cuda", "openvino", "rocm"))


@pytest.mark.parametrize(
    ("ffmpeg", "said"),
    (
        (None, {"accel": "disabled"}),
        ({"crf": 23, "targetVideoCodec": None}, {"accel": "disabled"}),
        (
            {"accel": "vaapi", "targetVideoCodec": "hevc", "preferredHwDevice": "renderD129"},
            {"accel": "vaapi", "codec": "hevc", "device": "renderD129"},
        ),
    ),
)
def test_what_the_pillar_says_of_transcoding(ffmpeg, said):
    assert hardware_proof.declared({"ffmpeg": ffmpeg}) == said
