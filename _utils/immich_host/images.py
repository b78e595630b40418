"""
The images that Immich's containers are made of
===============================================

Which are missing, and how they are pulled, with progress shown.
"""

import shutil
import time

from salt.exceptions import CommandExecutionError

from host_core import command, podman, pull_progress
from immich_io import progress, project

# What the journal knows a pull by, as the rest of an apply.
TAG = "immich-apply"


def missing(images, known=None):
    """
    Return those of a list of image references that this host does not have.

    images
        Full references, as in ``["ghcr.io/immich-app/immich-server:v3.3.1"]``.
    known
        The facts of the run (``run_facts``), which keep their ids where none is missing. Default: none.
    """
    if not shutil.which("podman"):
        return list(images)
    try:
        printed = podman.run("image", "inspect", "--format", project.IMAGE_FORMAT, *images)
    except command.CommandError:
        return [image for image in images if not _is_present(image)]
    if known:
        known.images = (sorted(set(images)), project.image_ids(printed))
    return []


def _is_present(image):
    try:
        podman.run("image", "exists", image)
    except command.CommandError:
        return False
    return True


def pull(image):
    """
    Fetch an image.

    image
        Full reference.

    Its progress is shown on the terminal and in the journal (``journalctl -t immich-apply``).

    Raises CommandExecutionError with the registry's answer.
    """
    begin, report, blobs = time.monotonic(), progress.now_and_then(TAG), {}

    def elapsed():
        return f"{round(time.monotonic() - begin)} s"

    def heard(written):
        blobs.update(pull_progress.of_layers(written, blobs))
        report(f"Pulling {image}: {pull_progress.line(blobs)}, {elapsed()}")

    progress.say(f"Pulling {image}", TAG)
    try:
        podman.pull(image, heard)
    except command.CommandError as error:
        raise CommandExecutionError(f"podman pull {image}, after {elapsed()}: {error.words}") from error
    progress.say(f"Pulled {image} in {elapsed()}", TAG)
