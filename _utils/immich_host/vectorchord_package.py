"""
The package of VectorChord that the pillar names, on this host
==============================================================
"""

import json
import os
from pathlib import Path

from salt.exceptions import CommandExecutionError
from salt.utils.hashutils import get_hash

from host_core import command, durable
from immich_core import vectorchord_package

RECORD = Path("/var/lib/immich-formula/vectorchord.json")
# Seconds: reading a package, and installing one.
_READ, _INSTALL = 60, 600
_OPTIONS = ("-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold", "--no-install-recommends")


def installed(digest_of_pillar):
    """
    Return the package that was installed from the file of a hash, as ``{"name": …, "version": …}``, or None if it is
    not the one that this host has.

    digest_of_pillar
        The SHA-256 of the file.

    Raises CommandExecutionError if dpkg does not answer.
    """
    try:
        held = json.loads(RECORD.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    if held.get("hash") != digest_of_pillar or version(held["name"]) != held["version"]:
        return None
    return {"name": held["name"], "version": held["version"]}


def version(name):
    """
    Return the version of a package that this host has, or None.

    Raises CommandExecutionError if dpkg does not answer.
    """
    words = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", name]
    with command.raised_as(CommandExecutionError):
        status, _, found = command.run(words, seconds=_READ, check=False).partition(" ")
    return found if status == "installed" else None


def file_of(package, expected, salt):
    """
    Return the path of the package's file on this host, which Salt downloads if need be.

    package
        URL or path.
    expected
        Its SHA-256.
    salt
        Salt's execution functions by name (``__salt__``).

    Raises CommandExecutionError if there is none, or one with another hash.
    """
    path = package if package.startswith("/") else salt["cp.cache_file"](package, source_hash=expected)
    if not path or not os.path.isfile(path):
        raise CommandExecutionError(f"There is no file at {package}. Correct immich:postgres:vectorchord:package")
    found = get_hash(path, "sha256")
    if found != expected:
        advice = "Compare immich:postgres:vectorchord:hash with that of its publisher"
        raise CommandExecutionError(f"{package} has the hash {found}, not {expected}. {advice}")
    return path


def fitting(path, major):
    """
    Return what a package is, as of ``immich_core.vectorchord_package.described``.

    path
        Its file.
    major
        Version of the server, such as 17.

    Raises CommandExecutionError if it cannot be read or does not fit this host.
    """
    with command.raised_as(CommandExecutionError):
        fields = command.run(
            ["dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}", path], seconds=_READ
        )
        listed = command.run(["dpkg-deb", "--contents", path], seconds=_READ)
        architecture = command.run(["dpkg", "--print-architecture"], seconds=_READ).strip()
    try:
        package = vectorchord_package.described(fields, listed)
    except (ValueError, IndexError) as error:
        raise CommandExecutionError(f"{path} is not a package that dpkg-deb describes: {error}") from error
    why = vectorchord_package.unfit(package, major, architecture)
    if why:
        raise CommandExecutionError(f"{why}. Name another one in immich:postgres:vectorchord")
    return package


def install(path, package, digest_of_file):
    """
    Install a package with what it depends on, and record it.

    path
        Its file.
    package
        What :py:func:`fitting` returns.
    digest_of_file
        Its SHA-256.

    Raises CommandExecutionError if apt does not install it, and OSError if it cannot be recorded.
    """
    with command.raised_as(CommandExecutionError):
        command.run(
            ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qqy", *_OPTIONS, "install", path], seconds=_INSTALL
        )
    held = version(package["name"])
    if held != package["version"]:
        raise CommandExecutionError(f"apt reported no error, but this host has {package['name']} {held}")
    RECORD.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = {"hash": digest_of_file, "name": package["name"], "version": package["version"]}
    durable.write(RECORD, json.dumps(written, sort_keys=True) + "\n", 0o600)
