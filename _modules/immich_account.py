"""
Accounts in Immich: what is declared, and whether it is there
==============================================================

By the formula's own API key, see ``immich_account.key_present``. ``settings`` is what ``immich_settings.get`` returns.
"""

from salt.exceptions import CommandExecutionError

from host_core import pillar
from immich_core import accounts, compose, findings, sign_up
from immich_core.obstacles import accounts as login_obstacles
from immich_host import api_key, used_settings
from immich_io import api

__virtualname__ = "immich_account"

# The doctor's row.
PART = "accounts"
APPLY = findings.apply("immich.accounts")
# Seconds for an answer of the server, where nothing is changed.
TIMEOUT = 10


def __virtual__():
    return __virtualname__


def plan(settings):
    """
    Return what the states of ``immich.accounts`` need, decided once.

    ``{"key_file": path, "first_url": the server's address until somebody has signed up, "url": that address afterwards,
    "password_pillar": pillar path of the administrator's password, "postgres": how the database is asked}``

    settings
        The formula's settings.

    Called by the SLS ``immich.accounts``.
    """
    return {
        "key_file": str(api_key.FILE),
        "first_url": compose.server_url(settings),
        "url": compose.server_url({**settings, **settings["once_signed_up"]}),
        "password_pillar": "immich:admin:password",
        "postgres": {key: settings["postgres"][key] for key in ("user", "database", "connection")},
    }


def obstacles(settings, listeners):
    """
    Return what keeps the formula from making its API key, as findings.

    settings
        The formula's settings.

    listeners
        The sockets that listen on this host: nothing to accounts.

    Called by ``immich_preflight.obstacles``.
    """
    declared = pillar.value(__pillar__, "immich:settings:passwordLogin:enabled")
    return list(login_obstacles.of_login(declared, api_key.FILE.exists()))


def users():
    """
    Return the accounts in Immich, as a list of dictionaries: ``email``, ``name``, ``admin``, ``quota`` in bytes,
    ``storage_label``, and ``deleted`` (whether it is about to be).

    Raises ``CommandExecutionError`` if the formula has no API key, or Immich does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call immich_account.users
    """
    settings = __salt__["immich_settings.get"]()
    if not settings:
        raise CommandExecutionError("The pillar is invalid: see immich_settings.errors")
    try:
        return list(map(_shown, api_key.required_client(compose.server_url(settings)).users()))
    except api.ApiError as error:
        raise CommandExecutionError(str(error)) from error


def unused_settings(settings):
    """
    Return which of the declared ``immich:settings`` the server says to an administrator that it does not use, as
    warnings (``immich_core.findings``). No value is in them.

    settings
        The formula's settings.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    if not settings["server"]["settings_managed"]:
        return []
    try:
        client = api_key.client(compose.server_url(settings), TIMEOUT)
        # Without a key immich_account.verify says so.
        return used_settings.unlike(settings, __pillar__, client) if client else []
    except (api.ApiError, CommandExecutionError) as error:
        return [findings.not_verified(used_settings.PART, error)]


def _shown(user):
    return {
        "email": accounts.shown(user["email"]),
        "name": accounts.shown(user["name"]),
        "admin": user["isAdmin"],
        "quota": user["quotaSizeInBytes"],
        "storage_label": accounts.shown(user["storageLabel"]),
        "deleted": accounts.is_deleted(user),
    }


def verify(settings):
    """
    Return what of the accounts is not as declared, as findings (``immich_core.findings``).

    settings
        The formula's settings.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    if sign_up.is_local(settings["sign_up"]):
        seen, remedy = sign_up.warning(settings, "")
        return [findings.finding("sign-up-open", PART, seen, remedy)]
    try:
        client = api_key.client(compose.server_url(settings), TIMEOUT)
        if client is None:
            return [findings.finding("api-key-absent", PART, "The formula has no API key for Immich", APPLY)]
        left = accounts.missing(settings, client.users(), client.libraries())
    except api.ApiError as error:
        if error.refused:
            return [findings.finding("api-key-refused", PART, "Immich refuses the formula's API key", APPLY)]
        return [findings.not_verified(PART, error)]
    except CommandExecutionError as error:
        return [findings.not_verified(PART, error)]
    return [findings.finding("account-differs", PART, sentence, APPLY) for sentence in left]
