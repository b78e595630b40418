"""
Manage single records of a PostgreSQL server's pg_hba.conf, on the server's own host.

The server reports which records it sees there; this module reads and writes the file's text only.

Every function takes ``connection``: see the execution module ``pgsql_server``, which documents it.
"""

import os

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import durable
from pgsql_core import driver, errors, hba
from pgsql_core.errors import ServerError
from pgsql_core.session import Server

__func_alias__ = {"set_": "set"}
_salt_errors = errors.raised_as(CommandExecutionError, SaltInvocationError)


def __virtual__():
    return driver.required_by("pgsql_hba")


@_salt_errors
def get(name, record=None, connection=None):
    """
    Return the records of pg_hba.conf with a tag, and how they compare with a record.

    ``lines`` are the records with that tag, ``desired`` is the record as declared, ``ahead`` are the ones before it
    that match some of the same connections and are not narrower, ``loaded`` is whether the server has read the file
    since it was last written.

    name
        The tag.
    record
        A dictionary: ``type``, ``database``, ``user`` (a name or a list of names each, special words and signs
        of pg_hba.conf included), ``address``, ``method``, ``options`` (a dictionary).
        Defaults to only looking for the tag.

    Raises ``CommandExecutionError`` if the file is not on this host or the server does not understand it, and
    ``SaltInvocationError`` for a record that cannot be.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_hba.get immich
    """
    desired = None if record is None else hba.line(record)
    file = _understood(_server(connection))
    texts = _texts(file["path"])
    own = hba.tagged(texts, name)
    return {
        "lines": [texts[number - 1].rpartition("#")[0].rstrip() for number in own],
        "desired": desired,
        "ahead": [hba.summary(rule) for rule in hba.ahead(file, record, own)] if record else [],
        "loaded": os.stat(file["path"]).st_mtime <= file["loaded_at"],
    }


@_salt_errors
def set_(name, record=None, connection=None):
    """
    Put a record into pg_hba.conf, ahead of any wider one, in place of the one with the same tag, and reload.

    The file is replaced in one step and keeps its owner and mode. If the server does not understand it, the
    old one is put back.

    name
        The tag, a comment at the end of the line.
    record
        See ``get``. Defaults to only removing the one with that tag.

    Raises ``CommandExecutionError`` if the file is not on this host or the server does not accept it, and
    ``SaltInvocationError`` for a record that cannot be.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_hba.set immich '{type: host, database: immich, user: immich, address: 172.20.0.0/16,
            method: scram-sha-256}'
    """
    hba.check_tag(name)
    server = _server(connection)
    file = _understood(server)
    old = _texts(file["path"])
    _replace_file(file["path"], hba.replaced(old, name, record, file))
    try:
        _understood(server)
    except ServerError:
        _replace_file(file["path"], old)
        raise
    server.reload()


@_salt_errors
def file(connection=None):
    """
    Return where the server's pg_hba.conf is, when the server last read it, and its records as they stand there now.

    ``{"path": …, "loaded_at": seconds since 1970, "rules": [records, in their order]}``.
    Raises ``CommandExecutionError`` if the server does not let this role read them.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_hba.file
    """
    return _file(_server(connection))


def _server(connection):
    return Server(connection, __opts__, __pillar__, __context__)


def _file(server):
    # The number of a rule, and files that include others, came with PostgreSQL 16.
    has_numbers = server.version() >= 160000
    file_name = "file_name" if has_numbers else "current_setting('hba_file')"
    order = "rule_number, line_number" if has_numbers else "line_number"
    rules = server.query(
        f"""
        SELECT {file_name} AS file, line_number AS line, type, database, user_name AS user, address, netmask,
            auth_method AS method, options, error
        FROM pg_catalog.pg_hba_file_rules ORDER BY {order}
        """,
    )
    known = "SELECT current_setting('hba_file') AS path, extract(epoch FROM pg_conf_load_time())::float AS loaded_at"
    return {**server.query(known)[0], "rules": rules}


def _understood(server):
    file = _file(server)
    path = file["path"]
    if not os.path.isfile(path):
        raise ServerError(f"{path} is not on this host: pg_hba.conf can be managed beside its server only.")
    wrong = [f"line {rule['line']}: {rule['error']}" for rule in file["rules"] if rule["error"]]
    if wrong:
        raise ServerError(f"PostgreSQL does not understand {path}: {'; '.join(wrong)}")
    return file


def _texts(path):
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            return file.read().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as err:
        raise ServerError(f"Cannot read {path}: {err}") from None


def _replace_file(path, lines):
    try:
        durable.replace(path, "\n".join(lines) + "\n")
    except OSError as err:
        raise ServerError(f"{err}.") from None
