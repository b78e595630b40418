"""
Immich's server over HTTP: whether it answers, and what it says of itself
==========================================================================

An answer may be anybody's: each is read with a limit and a deadline (``untrusted``).
"""

from immich_core import findings, sign_up
from immich_io import untrusted

PING = {"res": "pong"}
MAINTENANCE = "Immich is in maintenance mode and serves nobody"
END_MAINTENANCE = (
    "podman exec immich-server immich-admin disable-maintenance-mode, unless somebody restores a backup in Immich now"
)


def answers(url, timeout):
    """
    Return whether the server answers its ping.

    url
        Address of the ping.
    timeout
        Seconds for the whole answer.

    .. code-block:: python

        server.answers("http://127.0.0.1:2283/api/server/ping", 3)
    """
    try:
        return untrusted.get_json(url, timeout) == PING
    except (OSError, ValueError):
        return False


def silent(ping, timeout=10):
    """
    Return how the server fails to answer, as a list of one finding, which is empty if it answers.

    ping
        Address of the server's ping.
    timeout
        Seconds for the whole answer. Defaults to 10.

    .. code-block:: python

        server.silent("http://127.0.0.1:2283/api/server/ping")
    """
    try:
        if untrusted.get_json(ping, timeout) == PING:
            return []
        seen, remedy = f"{ping} does not answer as Immich: does another program use the port?", "see `ss -ltnp`"
        return [findings.finding("server-foreign", "Immich", seen, remedy)]
    except (OSError, ValueError) as error:
        if _in_maintenance(ping, timeout):
            return [_maintenance("Immich")]
        return [findings.finding("server-silent", "Immich", _failure(ping, error), "systemctl restart immich")]


def _in_maintenance(ping, timeout):
    """Whether a server that does not answer its ping says that it is in maintenance mode, which has no ping."""
    try:
        answer = untrusted.get_json(f"{ping.rpartition('/')[0]}/config", timeout)
    except (OSError, ValueError):
        return False
    return isinstance(answer, dict) and answer.get("maintenanceMode") is True


def _maintenance(part):
    return findings.finding("maintenance-mode", part, MAINTENANCE, END_MAINTENANCE)


def _failure(url, error):
    as_it_should = "" if isinstance(error, OSError) else " as it should"
    return f"{url} does not answer{as_it_should}: {error}"


def state(url, signed_up, timeout=10):
    """
    Return what is known of a server that runs: ``{"maintenance": …, "initialized": …, "unknown": reason}``.

    ``maintenance`` is True in Immich's maintenance mode, in which it serves nobody. ``initialized`` is True if
    somebody has signed up as administrator; until then anybody who reaches the port can. Each is None where it is not
    known, and ``unknown`` says why.

    A server in maintenance mode does not know whether somebody has signed up (server/src/maintenance of Immich), and
    later releases mean to drop the address that says it, without another that does: then the database is asked.

    url
        The server's address, without a path.
    signed_up
        Function that asks the database, and returns ``initialized`` and ``unknown`` as above.
    timeout
        Seconds for the server's answer. Defaults to 10.

    .. code-block:: python

        server.state("http://127.0.0.1:2283", lambda: (None, "there is no database"))
    """
    found = {"maintenance": None, "initialized": None, "unknown": ""}
    address = f"{url}/api/server/config"
    try:
        answer = untrusted.get_json(address, timeout)
    except (OSError, ValueError) as error:
        if getattr(error, "status", None) != 404:
            return {**found, "unknown": _failure(address, error)}
        answer = {}
    if not isinstance(answer, dict):
        return {**found, "unknown": "the server's configuration is not a JSON object"}
    for key, name in (("maintenance", "maintenanceMode"), ("initialized", "isInitialized")):
        if isinstance(answer.get(name), bool):
            found[key] = answer[name]
    if found["maintenance"] or found["initialized"] is None:
        found["initialized"], found["unknown"] = signed_up()
    return found


def shown(url, addresses, timeout=10):
    """
    Return what the server tells everybody of itself, by address: ``{"features": {…}, "config": {…}}``.

    Of an address that it does not have, an empty mapping: later releases mean to drop some.

    url
        The server's address, without a path.
    addresses
        Names below ``/api/server/``.
    timeout
        Seconds for each answer. Defaults to 10.

    Raises ``OSError`` or ``ValueError`` if it does not answer as it should.

    .. code-block:: python

        server.shown("http://127.0.0.1:2283", ["features"])
    """
    found = {}
    for name in addresses:
        try:
            answer = untrusted.get_json(f"{url}/api/server/{name}", timeout)
        except untrusted.StatusError as error:
            if error.status != 404:
                raise
            answer = {}
        found[name] = answer if isinstance(answer, dict) else {}
    return found


def warnings(known, settings, url):
    """
    Return what a person should know of a server that runs, as findings. One is an error if nobody can use Immich
    because of it, else a warning.

    known
        What :py:func:`state` returns.
    settings
        The formula's settings.
    url
        The address at which a person opens it.

    .. code-block:: python

        server.warnings(known, settings, "http://photos.example:2283")
    """
    found = [_maintenance("exposure")] if known["maintenance"] else []
    if known["initialized"] is None:
        seen = f"Whether somebody has signed up as administrator is not known: {known['unknown']}"
        found.append(_warning("administrator-unknown", seen, "see `journalctl -u immich`"))
    elif not known["initialized"]:
        found.append(_warning("administrator-missing", *sign_up.warning(settings, url)))
    return found


def _warning(code, seen, remedy):
    return findings.finding(code, "exposure", seen, remedy, severity=findings.WARNING)
