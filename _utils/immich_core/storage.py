"""
The folders of Immich's library, and where each of them is on this host
========================================================================

Asks nobody: what is at a place is looked up by ``immich_host.identity``.

The names are those of Immich's ``StorageFolder`` (server/src/enum.ts, v3.0.3), in each of which it keeps a marker file.
"""

from immich_core import findings

FOLDERS = ("encoded-video", "library", "upload", "profile", "thumbs", "backups")
MARKER = ".immich"
# The library in the container.
MEDIA = "/data"
PART = "storage"


def elsewhere(settings):
    """
    Return the folders that are not in the library, with their paths on this host.

    settings
        The formula's settings.

    .. code-block:: python

        storage.elsewhere({"storage": {"thumbs": "/mnt/ssd/thumbs", "profile": None}})
    """
    return {folder: settings["storage"][folder] for folder in FOLDERS if settings["storage"].get(folder)}


def places(library, apart):
    """
    Return the path on this host of each folder.

    library
        The library's path.
    apart
        The folders that are not in it, as :py:func:`elsewhere` returns them.

    .. code-block:: python

        storage.places("/srv/immich/upload", {"thumbs": "/mnt/ssd/thumbs"})["thumbs"]
    """
    return {folder: apart.get(folder, f"{library}/{folder}") for folder in FOLDERS}


def refusals(there, desired, seen):
    """
    Return where a folder is not where the installation has it, as findings (``immich_core.findings``): none where its
    files have been moved, and the pillar says so.

    there, desired
        The installation's parts, as ``immich_core.identity`` has them.
    seen
        What is at the place of each folder: ``{folder: {"moved_from": path or None, "is_there": bool, "has_marker":
        bool}}``.

    .. code-block:: python

        storage.refusals(there, identity.declared(settings), facts["storage"])
    """
    if there.get("library") is None:
        return []
    before, after = there.get(PART) or {}, desired.get(PART) or {}
    old, new = places(there["library"], before), places(desired["library"], after)
    # A folder that is in the library before and after goes with the library.
    apart = [folder for folder in FOLDERS if folder in before or folder in after]
    found = (_refusal(folder, old[folder], new[folder], seen[folder]) for folder in apart)
    return [refusal for refusal in found if refusal]


def _refusal(folder, old, new, seen):
    if old == new:
        return None if seen["is_there"] else _gone(folder, new)
    if seen["moved_from"] != old:
        said = f"the installation's folder {folder} is {old}, not {new}"
        remedy = (
            f"stop Immich and move the files, with the marker file {MARKER}, then set "
            f"immich:storage_moved_from:{folder}: {old}"
        )
        return _finding("storage-differs", folder, said, remedy)
    if not seen["has_marker"]:
        said = f"{new} has no marker file {MARKER}, although the pillar declares that {old} was moved there"
        return _finding("storage-not-moved", folder, said, f"copy it with its hidden files: cp -a {old}/. {new}")
    return None


def _gone(folder, path):
    seen = f"{path} was this installation's folder {folder} and is gone: is a mount missing?"
    return _finding("storage-gone", folder, seen, "mount it")


def _finding(code, folder, seen, remedy):
    return findings.finding(code, "installation", seen, remedy, f"immich:storage:{folder}")
