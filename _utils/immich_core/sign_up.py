"""
Who can sign up as Immich's administrator, and so who reaches its port
=======================================================================

Until somebody has signed up, whoever reaches the server can sign up as administrator, or restore a database of their
own. One decision says what that means for the port, the firewall and the server's environment.
"""

# Everybody reaches the port, and the first can sign up.
OPEN = "open"
# Until somebody has signed up, this host alone reaches the port.
HOST = "host"
# Until the formula has signed up the declared administrator, root of this host alone reaches the port.
ROOT = "root"
# Everybody reaches the port, and nobody can sign up: not even in a database that has lost its administrator.
CLOSED = "closed"
# Read by Immich's server since pull request 24628 (December 2025; v2.5.0 at the latest), which then refuses
# /api/auth/admin-sign-up and /api/admin/database-backups/start-restore.
VARIABLE = "IMMICH_ALLOW_SETUP"
LOOPBACK = ["127.0.0.1"]


def mode(settings, signed_up):
    """
    Return which of the four above holds.

    What is not known counts as nobody: the port stays closed to others until somebody has been seen.

    settings
        ``setup`` and ``admin`` of the settings.
    signed_up
        Function that says whether somebody has signed up as administrator. Called only where it matters.

    .. code-block:: python

        sign_up.mode({"setup": "host", "admin": {"email": None}}, lambda: False)
    """
    declared = settings["admin"]["email"] is not None
    if not declared and settings["setup"] != HOST:
        return settings["setup"]
    if signed_up():
        return CLOSED
    return ROOT if declared else HOST


def is_local(found):
    """
    Return whether only this host reaches the port.

    found
        What :py:func:`mode` returns.

    .. code-block:: python

        sign_up.is_local("root")
    """
    return found in (HOST, ROOT)


def derived(settings, found, addresses):
    """
    Return what follows for the settings: ``sign_up``, ``bind_address``, and as ``once_signed_up`` what both are as soon
    as somebody has signed up.

    The port is published on the loopback address alone while others must not reach it, so that they do not either where
    somebody takes the firewall away.

    settings
        The settings as declared.
    found
        What :py:func:`mode` returns.
    addresses
        The declared addresses at which the port is published.

    .. code-block:: python

        sign_up.derived(settings, "root", ["0.0.0.0"])
    """
    if not is_local(found):
        return {"sign_up": found, "bind_address": addresses, "once_signed_up": {}}
    return {
        "sign_up": found,
        "bind_address": LOOPBACK,
        "once_signed_up": {"sign_up": CLOSED, "bind_address": addresses},
    }


def at_the_end(settings):
    """
    Return the settings as they are at the end of a run that signs up the administrator, where this host has that
    component; else as they are.

    settings
        The formula's settings.

    .. code-block:: python

        sign_up.at_the_end(settings)["bind_address"]
    """
    return {**settings, **settings["once_signed_up"]} if "accounts" in settings["components"] else settings


def warning(settings, url):
    """
    Return what to know of a server in which nobody has signed up: what was seen, and the next step.

    settings
        The formula's settings.
    url
        The address at which a person opens it.

    .. code-block:: python

        sign_up.warning({"sign_up": "open", "port": 2283}, "http://photos.example:2283")
    """
    nobody, port = "Nobody has signed up as administrator yet", settings["port"]
    if settings["sign_up"] == OPEN:
        seen = (
            f"{nobody}: the first to open port {port} can, or can restore a "
            "database of their own, as /api/admin/database-backups/start-restore asks for no login"
        )
        return seen, f"sign up now at {url}"
    if settings["sign_up"] == HOST:
        tunnel = f"from another machine through `ssh -L {port}:127.0.0.1:{port} HOST`"
        return (
            f"{nobody}: until then only this host reaches port {port}",
            f"sign up at http://127.0.0.1:{port}, {tunnel}, then: salt-call state.apply immich",
        )
    if settings["sign_up"] == ROOT:
        return f"{nobody}: until then only root on this host reaches port {port}", "salt-call state.apply immich"
    seen = f"{nobody}, and nobody can: sign-up is closed"
    return seen, "set immich:admin, or immich:setup to host, then: salt-call state.apply immich"
