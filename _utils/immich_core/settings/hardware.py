"""
The setting ``immich:hardware``, and the tag of an image for it
================================================================
"""

from immich_core import hardware
from immich_core.settings.problems import likely
from immich_core.settings.schema import entries


def check_hardware(settings):
    """Words that nothing would follow, devices that no word takes, and an image that is for another word."""
    declared = settings["hardware"]
    if declared["transcoding"] and "server" not in settings["roles"]:
        yield ("hardware", "transcoding"), "has no effect: this host does not have the role server"
    learns = settings["machine_learning"]["enabled"] and "machine_learning" in settings["roles"]
    if declared["machine_learning"] and not learns:
        yield ("hardware", "machine_learning"), "has no effect: this host runs no machine learning"
    yield from _check_devices(declared)
    yield from _check_image(settings["machine_learning"]["image"], declared["machine_learning"])


def _check_devices(declared):
    if declared["devices"] == "auto":
        return
    taken = [device for word in hardware.chosen(declared).values() for device in word.devices]
    for index, device in entries(declared["devices"]):
        if not taken:
            yield ("hardware", "devices"), "has no effect without immich:hardware:transcoding or machine_learning"
            return
        if not any(hardware.is_within(device, each) for each in taken):
            yield (
                ("hardware", "devices", index),
                f"is none of {', '.join(taken)}, nor part of one{likely(device, taken, '; ')}",
            )


def _check_image(image, word):
    of = _word_of(image)
    if not word or of == word:
        return
    path = ("machine_learning", "image")
    if of:
        yield path, f"is an image for {of}, and immich:hardware:machine_learning is {word}: leave its suffix out"
    elif "@" in image:
        # A digest is one image, which a suffix does not change.
        yield (
            path,
            f"names a digest, which need not be that of an image for {word}: write its tag too, as v3.3.1-{word}@…",
        )


def unused_image(settings):
    """A warning about an image for some hardware without the word that hands it that hardware."""
    word = _word_of(settings["machine_learning"]["image"])
    if word and not settings["hardware"]["machine_learning"] and settings["machine_learning"]["enabled"]:
        seen = f"is an image for {word}, which gets no device: write `immich:hardware:machine_learning: {word}`"
        yield ("machine_learning", "image"), seen


def _word_of(image):
    """The word that an image's tag ends with, or None."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    return next((word for word in hardware.WORDS["machine_learning"] if tag.endswith(f"-{word}")), None)


def tagged(image, version, suffix):
    """
    Return an image with its tag, and a suffix for acceleration where the tag has none.

    A digest says what the image is: nothing is added to it. The port of a registry also follows a colon.

    image
        The setting: with or without tag and digest.
    version
        The tag of one without.
    suffix
        As ``immich_core.hardware.suffix`` returns it.

    .. code-block:: python

        tagged("ghcr.io/immich-app/immich-machine-learning", "v3.3.1", "-cuda")
    """
    if "@" in image:
        return image
    if ":" not in image.rpartition("/")[2]:
        image = f"{image}:{version}"
    return image if image.endswith(suffix) else f"{image}{suffix}"
