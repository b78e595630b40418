"""
Requirements of the library's backup that the schema cannot express
====================================================================
"""

import re

from immich_core import library_backups
from immich_core.settings.schema import entries

PATH = ("backup", "library")
_MIN_PASSWORD = 12


def check_library_backup(settings):
    """What of ``immich:backup:library`` does not fit together, but for directories, as ``(path, message)``."""
    library = settings["backup"]["library"]
    if library["repository"] is None:
        unused = [key for key in ("password", "ssh_key", "ssh_known_hosts") if library[key] is not None]
        if unused:
            yield (*PATH, "repository"), f"is missing: immich:backup:library:{unused[0]} is for one"
        return
    yield from _check_password(library["password"])
    yield from _check_repository(library)
    for name, where in library["environment"].items():
        if not re.fullmatch("[A-Z][A-Z0-9_]*", name):
            yield (*PATH, "environment", name), "is not the name of a variable, such as AWS_ACCESS_KEY_ID"
        elif library_backups.OWN_VARIABLES.fullmatch(name):
            yield (*PATH, "environment", name), "is set by the formula"
        elif isinstance(where, dict) and len(where) != 1:
            yield (*PATH, "environment", name), "must be a text, {pillar: PATH} or {file: PATH}"
    for index, folder in entries(library["exclude"]):
        if ".." in folder.split("/") or folder.split("/")[0] in library_backups.ORIGINALS:
            yield (*PATH, "exclude", index), "must not be left out: it holds what nobody else has"


def _check_password(password):
    if password is None:
        yield (*PATH, "password"), f"is required: a password of at least {_MIN_PASSWORD} characters"
    elif len(password) < _MIN_PASSWORD:
        yield (*PATH, "password"), f"is too short: at least {_MIN_PASSWORD} characters"
    elif password != password.strip():
        yield (*PATH, "password"), "begins or ends with a space, which restic leaves out"


def _check_repository(library):
    repository = library["repository"]
    if re.match(r"[a-z]+:(https?://)?[^/]*:[^/]*@", repository):
        yield (
            (*PATH, "repository"),
            "holds a password: set RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in environment",
        )
    sftp = library_backups.sftp_command(repository)
    if repository.startswith("sftp:") and sftp is None:
        yield (*PATH, "repository"), "must be sftp:USER@HOST:PATH or sftp://USER@HOST:PORT/PATH"
    for key in ("ssh_key", "ssh_known_hosts"):
        if library[key] is not None and not sftp:
            yield (*PATH, key), "is for a repository that begins with sftp:"
