"""
Connection arguments: the order of their sources, and what redis-py is given
============================================================================
"""

from valkey_core import passwords
from valkey_core.errors import InvalidArgumentError, RefusedError, ServerError

HOST = "127.0.0.1"
PORT = 6379
TIMEOUT = 5
USERNAME = "default"
ADDRESSES = ("host", "unix_socket")
ARGUMENTS = {
    *ADDRESSES,
    "port",
    "username",
    *passwords.SOURCES,
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "timeout",
}


def merged(*layers):
    """
    Return the arguments of one connection.

    layers
        Dictionaries or nothing, each laid over those before. One kind of password or of address takes the place of
        the other kinds below it.

    Raises ``InvalidArgumentError`` for arguments that do not exist.
    """
    arguments = {}
    for layer in layers:
        given = layer or {}
        for kinds in (passwords.SOURCES, ADDRESSES):
            if any(given.get(kind) is not None for kind in kinds):
                arguments = {key: value for key, value in arguments.items() if key not in kinds}
        arguments.update(given)
    unknown = sorted(set(arguments) - ARGUMENTS)
    if unknown:
        raise InvalidArgumentError(f"Unknown connection settings: {', '.join(unknown)}.")
    return arguments


def candidates(connection, layers):
    """
    Return the connections to try in turn.

    connection
        A dictionary, a list of them, or nothing.

    layers
        What each of them is laid over, as for ``merged``.
    """
    return [merged(*layers, one) for one in (connection if isinstance(connection, list) else [connection])]


def where(arguments):
    """Return the server's name in messages."""
    if arguments.get("unix_socket"):
        return f"Valkey at {arguments['unix_socket']}"
    return f"Valkey at {host(arguments)}:{arguments.get('port') or PORT}"


def host(arguments):
    """Return name or address of the server."""
    return arguments.get("host") or HOST


def username(arguments):
    """Return the ACL user to log in as."""
    return arguments.get("username") or USERNAME


def password(arguments, lookup):
    """
    Return the password of a connection, or None.

    lookup
        A function that returns what is at a path of the pillar, or None.

    Raises ``RefusedError`` where a password is declared and not there.
    """
    if arguments.get("password"):
        return str(arguments["password"])
    try:
        if arguments.get("password_pillar"):
            return passwords.from_pillar(arguments["password_pillar"], lookup)[0]
        if arguments.get("password_file"):
            return passwords.from_file(arguments["password_file"])
    except (InvalidArgumentError, ServerError) as err:
        raise RefusedError(str(err)) from err
    return None


def client_arguments(arguments, lookup):
    """
    Return what ``redis.Redis`` is given.

    lookup
        As for ``password``.
    """
    timeout = float(arguments.get("timeout") or TIMEOUT)
    client = {
        "username": arguments.get("username") or None,
        "password": password(arguments, lookup),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "encoding": "utf-8",
        "encoding_errors": "surrogateescape",
        "decode_responses": True,
        "max_connections": 1,
        "protocol": 2,
    }
    if arguments.get("unix_socket"):
        return {**client, "unix_socket_path": arguments["unix_socket"]}
    client.update(host=host(arguments), port=int(arguments.get("port") or PORT))
    if arguments.get("tls"):
        client.update(
            ssl=True,
            ssl_ca_certs=arguments.get("tls_ca"),
            ssl_certfile=arguments.get("tls_cert"),
            ssl_keyfile=arguments.get("tls_key"),
        )
    return client
