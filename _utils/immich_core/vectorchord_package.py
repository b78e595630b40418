"""
The package of VectorChord that the pillar names: what is in it, and whether it fits this host's PostgreSQL
===========================================================================================================

Debian has none. What a package holds is read by ``dpkg-deb`` and passed in.
"""

import re

from immich_core import postgres_extensions

EXTENSION = "vchord"
CONTROL = re.compile(r"/usr/share/postgresql/(\d+)/extension/vchord\.control")
LIBRARY = "/usr/lib/postgresql/{}/lib/vchord.so"


def described(fields, listed):
    """
    Return what a package is: ``{"name": …, "version": …, "architecture": …, "majors": […]}``, the last the versions of
    PostgreSQL for which it has the extension and its library.

    fields
        What ``dpkg-deb --show --showformat='${Package} ${Version} ${Architecture}'`` prints.
    listed
        What ``dpkg-deb --contents`` prints.

    Raises ValueError if these are of no package.

    .. code-block:: python

        vectorchord_package.described("postgresql-17-vchord 0.4.3-1 amd64", contents)
    """
    name, version, architecture = fields.split()
    # mode, owner, size, date, time, path; a link is followed by its target.
    paths = {line.split(None, 5)[5].partition(" -> ")[0].lstrip(".") for line in listed.splitlines() if line.strip()}
    majors = {int(found[1]) for found in map(CONTROL.fullmatch, paths) if found}
    there = sorted(major for major in majors if LIBRARY.format(major) in paths)
    return {"name": name, "version": version, "architecture": architecture, "majors": there}


def unfit(package, major, architecture):
    """
    Return why a package cannot be installed for a server, or None.

    package
        What :py:func:`described` returns.
    major
        Version of the server, such as 17.
    architecture
        That of this host, as ``dpkg --print-architecture`` prints it.

    .. code-block:: python

        vectorchord_package.unfit(package, 17, "amd64")
    """
    if not package["majors"]:
        return f"{package['name']} has no extension {EXTENSION}: it is not a package of VectorChord"
    if major not in package["majors"]:
        majors = ", ".join(map(str, package["majors"]))
        return f"{package['name']} is for PostgreSQL {majors}, and this host's is {major}"
    if package["architecture"] not in (architecture, "all"):
        return f"{package['name']} is for {package['architecture']}, and this host is {architecture}"
    if not postgres_extensions.supported(EXTENSION, package["version"]):
        acceptable = postgres_extensions.version_range(EXTENSION)
        return f"{package['name']} has version {package['version']}, and Immich needs {acceptable}"
    return None
