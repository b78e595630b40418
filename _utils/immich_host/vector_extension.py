"""
The vector extension of Immich's database
=========================================
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from immich_core import postgres_extensions as extensions
from immich_core.postgres_extensions import VECTOR_EXTENSIONS, VECTOR_VERSIONS


def of(database, preference, connection, salt):
    """
    Return the vector extension for a database, by PostgreSQL's name: ``vchord`` or ``vector``.

    What the database has is kept. Otherwise ``auto`` takes VectorChord where the server offers a version that
    Immich supports, else pgvector.

    database
        Name of the database, which need not be there yet.
    preference
        ``vectorchord``, ``pgvector`` or ``auto``.
    connection
        As in ``pgsql_server``.
    salt
        Salt's execution functions by name (``__salt__``).

    Raises ``CommandExecutionError`` if the server cannot be reached or does not offer what is desired (the exception
    then has ``absent = "extension"``), and ``SaltInvocationError`` for another preference.
    """
    if preference not in ("auto", *VECTOR_EXTENSIONS):
        raise SaltInvocationError(f"There is no vector extension {preference}: set auto, vectorchord or pgvector.")
    known = _known(database, connection, salt)
    for extension in ("vchord", "vector"):
        if known[extension]["installed"]:
            return extension
    desired = list(VECTOR_EXTENSIONS.values()) if preference == "auto" else [VECTOR_EXTENSIONS[preference]]
    for extension in desired:
        if extensions.supported(extension, known[extension]["available"]):
            return extension
    acceptable = " or ".join(map(extensions.version_range, desired))
    error = CommandExecutionError(
        f"The server does not offer {acceptable}: install its package. It offers {_offers(known)}."
    )
    error.absent = "extension"
    raise error


def _known(database, connection, salt):
    names = list(VECTOR_VERSIONS)
    try:
        return salt["pgsql_extension.list"](database, names, connection)
    except CommandExecutionError as err:
        if getattr(err, "absent", None) != "database":
            raise
    offered = salt["pgsql_extension.list"](None, names, connection)
    return {name: {**extension, "installed": None} for name, extension in offered.items()}


def _offers(known):
    offers = [f"{name} {extension['available']}" for name, extension in known.items() if extension["available"]]
    return ", ".join(offers) or "neither"
