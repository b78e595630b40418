"""
Why Immich has to be stopped before a run changes what it uses
===============================================================
"""

from salt.exceptions import CommandExecutionError

from host_core import command
from host_core import pillar as pillars
from immich_core import findings
from immich_core.pillar_paths import POSTGRES_PASSWORD
from immich_host import identity
from immich_io import containers

# Of what changes in an installation: the part, a row of the doctor's table, and the reason.
IDENTITY = {
    "network": ("network", "the network {new} takes the place of {old}"),
    "project_dir": ("compose file", "the compose project moves from {old} to {new}"),
    "role": ("database", "PostgreSQL's role {new} takes over from {old}"),
    "valkey_database": ("Valkey user", "the queues move from Valkey's database {old} to {new}"),
    "server_user": ("uploads", "the server's files change their owner from {old} to {new}"),
    "machine_learning_user": ("model cache", "the models change their owner from {old} to {new}"),
}


def found(settings, changes, salt, pillar):
    """
    Return why Immich has to be stopped before this run changes what it uses, as findings; none if it may go on.

    Podman cannot change a network that containers use, and PostgreSQL's role has one password at a time: an Immich
    that runs on would be refused. A network that others use too is no reason, as it stays.

    settings
        The formula's settings.
    changes
        What changes of the installation, as of ``identity.plan``.
    salt, pillar
        Salt's execution functions by name (``__salt__``), and the whole pillar.

    Raises CommandExecutionError if Podman or PostgreSQL does not answer.
    """
    reasons = _network_reasons(settings, salt) + _identity_reasons(changes)
    if password_differs(settings["postgres"], salt, pillar):
        seen = f"PostgreSQL's password of the role {settings['postgres']['user']} changes"
        reasons.append(_reason("password", "database", seen))
    return reasons


def _reason(what, part, seen):
    return findings.finding(f"{what}-changes", part, seen, severity=findings.WARNING)


def _network_reasons(settings, salt):
    said = {key: value for key, value in settings["network"].items() if value is not None}
    name = said["name"]
    if not salt["podman_network.exists"](name):
        return []
    differs = salt["podman_network.diff"](**said)
    if "interface_name" in differs and not salt["podman_network.supports"]("interface_name"):
        del differs["interface_name"]
    if not differs:
        return []
    users = salt["podman_network.containers"](name)
    with command.raised_as(CommandExecutionError):
        own = containers.names(identity.project_dir(settings))
    if not users or set(users) - set(own):
        return []
    return [_reason("network", "network", f"the network {name} is recreated ({', '.join(differs)})")]


def _identity_reasons(changes):
    found = [(what, *IDENTITY[what], change) for what, change in changes.items() if what in IDENTITY]
    return [_reason(what.replace("_", "-"), part, seen.format(**change)) for what, part, seen, change in found]


def password_differs(postgres, salt, pillar):
    """Whether Immich's role has another password than the pillar declares. Without role or server it has none yet."""
    password = pillars.value(pillar, POSTGRES_PASSWORD)
    try:
        role = salt["pgsql_role.get"](postgres["user"], password=password, connection=postgres["connection"])
    except CommandExecutionError as err:
        if getattr(err, "absent", None) != "server":
            raise
        return False
    return role is not None and not role["password_matches"]
