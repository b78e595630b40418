"""
Releases of Immich: which of a registry's tags are one, and which are newer than what is installed
===================================================================================================
"""

import re

from immich_core import findings, versions

# A row of the doctor's table.
PART = "releases"
# Without those that move (v3) and previews (v3.4.0-rc.1).
_RELEASE = re.compile("v(0|[1-9][0-9]{0,5})([.](0|[1-9][0-9]{0,5})){2}", re.ASCII)


def of_tags(tags):
    """
    Return which tags are releases, the newest first.

    tags
        All tags of a repository, as texts.

    .. code-block:: python

        releases.of_tags(["v3", "v3.3.1", "v3.4.0", "pr-123"])
    """
    return sorted(set(filter(_RELEASE.fullmatch, tags)), key=versions.parse, reverse=True)


def newer(found, installed):
    """
    Return those of some releases that are newer than an image, the newest first; None if that does not say its version.

    found
        As of :py:func:`of_tags`.
    installed
        Reference of the image.

    .. code-block:: python

        releases.newer(["v3.4.0", "v3.3.1"], "ghcr.io/immich-app/immich-server:v3.3.1")
    """
    version = versions.parse(installed)
    return None if version is None else [each for each in found if versions.parse(each) > version]


def news(found, installed):
    """
    Return the finding that a newer release is out, or what else there is to say of releases.

    found, installed
        As for :py:func:`newer`.

    .. code-block:: python

        releases.news(["v3.4.0", "v3.3.1"], "ghcr.io/immich-app/immich-server:v3.3.1")
    """
    if not found:
        seen, remedy = "the registry has no release of Immich", "immich:server:image: Immich's own, or a mirror of it"
        return findings.finding("releases-missing", PART, seen, remedy, severity=findings.WARNING)
    ahead, tag = newer(found, installed), versions.tag(installed)
    if ahead is None:
        seen = f"{found[0]} is the newest. How far behind this host is, its tag {tag} does not say"
        return findings.finding("release-unknown", PART, seen, severity=findings.NOTE)
    if not ahead:
        return findings.finding("release-newest", PART, f"none is newer than {tag}", severity=findings.NOTE)
    newest = ahead[0]
    count = "1 release" if len(ahead) == 1 else f"{len(ahead)} releases"
    seen = f"{newest} is out; this host has {tag}, and is {count} behind"
    target = versions.allowed(versions.parse(installed), versions.parse(newest)) or newest
    remedy = f"read the notes at https://github.com/immich-app/immich/releases, then set immich:version: {target}"
    return findings.finding("release-newer", PART, seen, remedy, severity=findings.WARNING)
