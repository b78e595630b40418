"""
The releases of Immich in the registry of its image
====================================================

The list of tags has thousands of entries and comes in pages, so that the answer is recorded, for a day.
"""

import time

from host_core import command, podman
from immich_core import releases
from immich_io import records

DAY = 86400
# Seconds that the whole list may take.
DEADLINE = 120
MOST_TAGS, LARGEST_LIST = 100_000, 4 * 1024**2


def recorded(image, age=2 * DAY):
    """
    Return the releases by the record, newest first, or None if there is none of that image, or it is too old.

    image
        Reference of the image.
    age
        In seconds, how old it may be. Defaults to two days.
    """
    found = records.read("releases")
    fresh = found.get("image") == _repository(image) and 0 <= time.time() - found["time"] < age
    return found["releases"] if fresh else None


def look(image, seconds=DEADLINE):
    """
    Return the releases that the registry has, newest first.

    image
        Reference of the image.
    seconds
        For the whole list. Defaults to 120.

    Raises ``CommandError`` if the registry does not answer in time.
    """
    words = ("search", "--list-tags", "--limit", str(MOST_TAGS), "--format", "{{.Tag}}", _repository(image))
    return releases.of_tags(podman.run(*words, seconds=seconds, size=LARGEST_LIST).split())


def refresh(image):
    """
    Record the releases, unless the record is of this day; return why that was not possible, or None.

    image
        Reference of the image.
    """
    if recorded(image, DAY) is None:
        try:
            records.note("releases", image=_repository(image), releases=look(image))
        except (command.CommandError, OSError) as error:
            return str(error)
    return None


def _repository(image):
    """An image reference without tag and digest."""
    name = image.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
