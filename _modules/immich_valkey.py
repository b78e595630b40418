"""
What Immich needs from Valkey, and what it must not be able to do there.

Turns the formula's settings into users and connections for :py:mod:`valkey_acl <_modules.valkey_acl>`, which does not
depend on Immich.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import files, pillar
from immich_core import findings, valkey_memory, valkey_users
from immich_core.obstacles import obstacle
from immich_core.obstacles import valkey as obstacles_of_valkey
from immich_core.pillar_paths import VALKEY_ADMIN_PASSWORD, VALKEY_PASSWORD
from immich_core.valkey_users import ALLOWS, DENIES, LOGIN, RULES
from immich_host import server_certificate, valkey_refusals

__virtualname__ = "immich_valkey"

# The doctor's row.
PART = "Valkey user"
APPLY = findings.apply("immich.valkey")


def __virtual__():
    if "valkey_acl.compare" not in __salt__:
        return False, "The execution module valkey_acl is not available: it needs the Python library redis."
    return __virtualname__


def logins(settings, own=True):
    """
    Return the connections by which the formula may reach Valkey, the preferred one first.

    settings
        The formula's settings, as of ``immich_settings.get``.
    own
        Whether the formula's own ACL user is among them. Defaults to true.

    Its own user comes first, so that the administrator's password can be changed by pillar; then ``default`` with
    the pillar's password, and without one, as on a new server. A server that the formula does not manage has the
    one connection of ``valkey:admin``.

    Called by the SLS ``immich.valkey`` and ``immich.app``.
    """
    connection = settings["valkey"]["connection"]
    if not settings["valkey"]["managed"]:
        return [connection]
    server = {"host": connection["host"], "port": connection["port"]}
    administrator = {**server, "username": "default", "password_pillar": VALKEY_ADMIN_PASSWORD}
    return [*([connection] if own else []), administrator, server]


def users(settings):
    """
    Return the users that ``valkey_acl.managed`` is to keep: Immich's own, those listed, and ``default``.

    settings
        The formula's settings, as of ``immich_settings.get``.

    An entry for Immich's own user sets its rules, and ``valkey:extra_rules`` come after them. Of ``default`` only the
    password is declared, and only where the formula manages the server. Raises SaltInvocationError for an entry named
    as the formula's own user.

    Called by the SLS ``immich.valkey``.
    """
    valkey = settings["valkey"]
    listed = {user["name"]: user for user in valkey["acl_users"]}
    if LOGIN in listed:
        raise SaltInvocationError(f"{LOGIN} is the formula's own user in Valkey: give the entry another name.")
    own = {
        "name": valkey["user"],
        "password_pillar": VALKEY_PASSWORD,
        # A new password is valid beside the old one until Immich uses it: immich_valkey.former_passwords_absent.
        "keep_passwords": True,
        "rules": " ".join([listed.get(valkey["user"], {}).get("rules") or RULES, *valkey["extra_rules"]]),
        "allows": ALLOWS,
        "denies": DENIES,
    }
    default = {"name": "default", "enabled": None, "password_pillar": VALKEY_ADMIN_PASSWORD}
    return [
        own,
        *(user for name, user in listed.items() if name != valkey["user"]),
        *([default] if valkey["managed"] else []),
    ]


def verify(settings, connection=None):
    """
    Return what of Immich's user is not as declared on the running server, as findings (``immich_core.findings``).

    settings
        The formula's settings, as of ``immich_settings.get``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`. Defaults to the formula's logins.

    The user's password is compared where the pillar has one.

    Raises CommandExecutionError if the server cannot be asked.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    name = settings["valkey"]["user"]
    own = {"name": name, "enabled": None, "allows": ALLOWS, "denies": DENIES}
    if pillar.value(__pillar__, VALKEY_PASSWORD) is not None:
        # A former password beside it is a finding of its own.
        own.update(password_pillar=VALKEY_PASSWORD, keep_passwords=True)
    connection = connection or logins(settings)
    held = __salt__["valkey_acl.list"](connection=connection)
    if name not in held:
        return [_finding("valkey-acl-user-absent", f"Valkey has no ACL user {name}")]
    broken = []
    if not held[name]["enabled"]:
        broken.append(_finding("valkey-acl-user-disabled", f"The ACL user {name} is disabled"))
    if held[name]["nopass"]:
        broken.append(_finding("valkey-nopass", f"The ACL user {name} needs no password"))
    if held[name]["passwords"] > 1:
        seen = f"The ACL user {name} has a former password besides the present one"
        broken.append(_finding("valkey-former-password", seen, findings.apply("immich.app")))
    if settings["valkey"]["managed"] and held["default"]["enabled"] and held["default"]["nopass"]:
        broken.append(_finding("valkey-default-nopass", "The Valkey user default needs no password"))
    declared = valkey_users.fitted([own], __salt__["valkey_acl.server"](connection=connection))
    found = __salt__["valkey_acl.compare"](declared, scratch=False, connection=connection)
    broken += [_finding("valkey-acl-denied", problem) for problem in found["problems"]]
    if "password" in found["changes"].get(name, {}).get("new", {}):
        seen = f"is not the password of the ACL user {name} in Valkey"
        broken.append(_finding("valkey-password", seen, findings.apply(), VALKEY_PASSWORD))
    if found["unsaved"]:
        seen = "Valkey's ACL users are not saved as they are, a restart would change them"
        broken.append(_finding("valkey-acl-unsaved", seen))
    return broken


def obstacles(settings, listeners):
    """
    Return what keeps Valkey from being set up on this host, as findings: one that serves at another port, a port that
    is taken, a password that the pillar does not know, more data than its memory is to hold.

    settings
        The formula's settings, as of ``immich_settings.get``.
    listeners
        The sockets that listen on this host (``host_core.listeners``).

    Called by ``immich_preflight.obstacles``.
    """
    if not settings["valkey"]["here"]:
        return _tls_obstacles(settings["valkey"])
    port, lookup = settings["valkey"]["port"], settings["lookup"]["valkey"]
    configured = obstacles_of_valkey.configured_port(files.text(lookup["config_file"]))
    sockets = listeners.with_holders({port, configured})
    addresses = ["127.0.0.1", *settings["listen_addresses"]]
    found = obstacles_of_valkey.of_ports(port, lookup["service"], addresses, configured, sockets)
    if found or not obstacles_of_valkey.serves(port, lookup["service"], sockets):
        return found
    return _refusal(settings) or _memory_refusal(settings)


def _tls_obstacles(valkey):
    """Why Immich would not connect by TLS as declared: it would serve no more."""
    if not valkey["tls"]:
        return []
    why = server_certificate.refused(valkey["host"], valkey["port"], valkey["tls_ca"])
    remedy = "name its authority in immich:valkey:tls_ca, its port for TLS, or a host that its certificate names"
    return [obstacle("valkey-tls", "valkey:tls", why, remedy)] if why else []


def _refusal(settings):
    try:
        __salt__["valkey_acl.server"](connection=logins(settings))
    except SaltInvocationError as err:
        return [obstacles_of_valkey.not_asked(err)]
    except CommandExecutionError as err:
        # Whatever else is wrong, the states of Valkey say when they come to it.
        if getattr(err, "refused", False):
            return [obstacles_of_valkey.password_unknown()]
    return []


def _memory_refusal(settings):
    maxmemory = settings["valkey"]["maxmemory"]
    if maxmemory in (None, "0"):
        return []
    try:
        held = valkey_memory.limits(__salt__["valkey_acl.pipeline"], logins(settings))
    except CommandExecutionError:  # the states of Valkey say so
        return []
    refusal = valkey_memory.refusal(maxmemory, held)
    return [refusal] if refusal else []


def refusals(settings, connection=None):
    """
    Return what Valkey has denied to Immich's user since its server was started, for a day at most, as findings: a new
    release of Immich may need what is not granted yet.

    settings
        The formula's settings, as of ``immich_settings.get``.
    connection
        See :py:mod:`valkey_acl <_modules.valkey_acl>`. Defaults to the formula's logins.

    Raises CommandExecutionError if the server cannot be asked.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return valkey_refusals.found(settings, __salt__, connection)


def _finding(code, seen, remedy=APPLY, path=""):
    return findings.finding(code, PART, seen, remedy, path)
