"""
How far a download of an image is, by what Podman shows on a terminal
======================================================================
"""

import re

# Podman's progress bar of a layer.
BAR = re.compile(r"Copying blob (\w+) \[[^\]]*\] ([\d.]+)\s*(\w+) / ([\d.]+)\s*(\w+)")
UNITS = {"b": 1, "B": 1, **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}}
# What it writes besides its last words.
NOISE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|Copying (blob|config) [^\r\n]*")


def of_layers(written, before=None):
    """
    Return how far each layer is, as ``{blob: [bytes done, bytes]}``.

    written
        What Podman has written to a terminal last.
    before
        What this returned before: Podman shows no size any more of what is done. Defaults to nothing.

    .. code-block:: python

        pull_progress.of_layers("Copying blob 173906380870 [=>---] 3.4MiB / 86.0MiB | 1.2 MiB/s")
    """
    blobs = dict(before or {})
    for blob, done, done_unit, size, size_unit in BAR.findall(written):
        blobs[blob] = [float(done) * UNITS[done_unit], float(size) * UNITS[size_unit]]
    for blob in re.findall(r"Copying blob (\w+) done", written):
        blobs[blob] = [blobs.get(blob, [0, 0])[1]] * 2
    return blobs


def line(blobs):
    """
    Return how far all layers are, for a person.

    blobs
        What :py:func:`of_layers` returns.

    .. code-block:: python

        pull_progress.line({"173906380870": [3565158, 90177536]})
    """
    done, size = (sum(each[index] for each in blobs.values()) / 1024**2 for index in (0, 1))
    return f"{done:.1f} of {size:.1f} MiB" if size else "asking the registry"


def last_words(written):
    """
    Return what Podman wrote besides its progress, as of an error, on one line.

    written
        As for :py:func:`of_layers`.

    .. code-block:: python

        pull_progress.last_words(ended.stdout)
    """
    return " ".join(NOISE.sub("", written).split())
