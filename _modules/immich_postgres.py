"""
Check that PostgreSQL has what Immich needs.

Nothing here connects to the server: only the execution modules ``pgsql_*`` do.

What Immich's role and database have to be is in ``immich_core/postgres_declared.py``, which extensions Immich needs in
``immich_core/postgres_extensions.py``.
"""

from salt.exceptions import CommandExecutionError

from host_core import pillar, terminal
from immich_core import findings, postgres_declared
from immich_core import postgres_extensions as extensions
from immich_core.obstacles import obstacle, postgres_cluster
from immich_core.pillar_paths import POSTGRES_PASSWORD
from immich_core.postgres_extensions import SCHEMA, VECTOR_VERSIONS
from immich_host import (
    debian_clusters,
    postgres_refusals,
    postgres_tuning,
    server_certificate,
    vector_extension,
    vectorchord_package,
)
from pgsql_core import list_settings

# The doctor's row.
PART = "database"
APPLY = findings.apply("immich.postgres")


def __virtual__():
    if "pgsql_server.version" not in __salt__:
        return False, "immich_postgres needs the execution module pgsql_server: is psycopg2 in Salt's Python?"
    return True


def declared(settings):
    """
    Return what Immich's role, its database and its record in pg_hba.conf have to be: ``role``, ``database`` and
    ``hba_record``, as arguments of the states ``pgsql_role.present``, ``pgsql_database.present`` and
    ``pgsql_hba.present``.

    settings
        The formula's settings, as of ``immich_settings.get``.

    Called by the SLS ``immich.postgres``.
    """
    return {
        "role": postgres_declared.role(),
        "database": postgres_declared.database(settings),
        "hba_record": postgres_declared.hba_record(settings),
    }


def obstacles(settings, listeners):
    """
    Return what keeps PostgreSQL from being set up on this host, as findings: another cluster, a port that is taken.

    settings
        The formula's settings, as of ``immich_settings.get``.
    listeners
        The sockets that listen on this host (``host_core.listeners``).

    Called by ``immich_preflight.obstacles``.
    """
    if not settings["postgres"]["here"]:
        return _tls_obstacles(settings["postgres"])
    port, unit = settings["postgres"]["port"], settings["lookup"]["postgres"]["unit"]
    sockets = listeners.with_holders({port})
    addresses, clusters = ["127.0.0.1", *settings["listen_addresses"]], debian_clusters.ports()
    found = postgres_cluster.found(port, unit, addresses, sockets, clusters, debian_clusters.installed)
    return [*found, *_package_obstacles(settings["postgres"]["vectorchord"])]


def _tls_obstacles(postgres):
    """Why Immich would not connect by TLS as declared: it would serve no more."""
    if postgres["sslmode"] == "verify-full":
        why = server_certificate.refused(
            postgres["host"], postgres["port"], postgres["sslrootcert"], server_certificate.POSTGRES
        )
        remedy = "name its authority in immich:postgres:sslrootcert, or a host that its certificate names"
        return [obstacle("postgres-tls", "postgres:sslmode", why, remedy)] if why else []
    return []


def _package_obstacles(declared):
    """What is wrong with the file of a package. One that Salt downloads is looked at when it is there."""
    path, expected = declared["package"], declared["hash"]
    if not path or not path.startswith("/"):
        return []
    try:
        if vectorchord_package.installed(expected):
            return []
        vectorchord_package.file_of(path, expected, __salt__)
    except (CommandExecutionError, OSError) as err:
        return [obstacle("vectorchord-package", "postgres:vectorchord:package", str(err), "see that file")]
    return []


def verify(settings, connection=None):
    """
    Return what of Immich's role and database is not as declared on the server, as findings (``immich_core.findings``).

    settings
        The formula's settings, as of ``immich_settings.get``.
    connection
        As in ``pgsql_server``. Defaults to that of the settings.

    The role's password is compared where the pillar has one.

    Raises ``CommandExecutionError`` if the server cannot be asked.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    postgres = settings["postgres"]
    connection = connection or postgres["connection"]
    user, database = postgres["user"], postgres["database"]
    password = pillar.value(__pillar__, POSTGRES_PASSWORD)
    role = __salt__["pgsql_role.get"](user, password=password, connection=connection)
    if role is None:
        return [_finding("postgres-role-absent", f"PostgreSQL has no role {user}")]
    held = __salt__["pgsql_database.get"](database, connection)
    if held is None:
        return [_finding("postgres-database-absent", f"PostgreSQL has no database {database}")]
    broken = _broken_role(user, role) + _broken_database(database, user, held)
    broken += _broken_settings(postgres, role, held)
    powerful = __salt__["pgsql_role.powers"](user, connection)
    broken += [_finding("postgres-role-member", f"The role {user} is a member of {name}") for name in powerful]
    broken += _broken_extensions(database, postgres["vector_extension"], connection)
    if postgres["tuning"] != "none":
        broken += _broken_tuning(postgres["tuning"], connection)
    declared = postgres["vectorchord"]
    if declared["package"] and not vectorchord_package.installed(declared["hash"]):
        seen = f"{declared['package']} is not what this host has installed"
        broken.append(_finding("postgres-vectorchord-package", seen, path="immich:postgres:vectorchord"))
    if postgres["managed"] and settings["listen_addresses"]:
        broken += _broken_hba(settings, connection)
        broken += _broken_listening(settings["listen_addresses"], connection)
    return broken


def refusals(settings, connection=None):
    """
    Return what PostgreSQL has refused to Immich's role since its server was started, for a day at most, as findings: a
    new release of Immich may need what is not granted yet.

    settings
        The formula's settings, as of ``immich_settings.get``.
    connection
        As in ``pgsql_server``. Defaults to that of the settings.

    Raises ``CommandExecutionError`` if the server cannot be asked.

    Called by the state ``immich_app.verified`` and by ``immich.doctor``.
    """
    return postgres_refusals.found(settings, __salt__, connection)


def _finding(code, seen, remedy=APPLY, path=""):
    return findings.finding(code, PART, seen, remedy, path)


def _broken_role(user, role):
    attributes = postgres_declared.ATTRIBUTES
    wrong = [attribute for attribute, value in attributes.items() if role[attribute] != value]
    words = [attribute.upper() if attributes[attribute] else f"NO{attribute.upper()}" for attribute in wrong]
    broken = [_finding("postgres-role-attributes", f"The role {user} is not {' '.join(words)}")] if wrong else []
    if not role.get("password_matches", True):
        seen = f"is not the password of the role {user} in PostgreSQL"
        broken.append(_finding("postgres-password", seen, findings.apply(), POSTGRES_PASSWORD))
    return broken


def _broken_database(database, user, owned):
    broken = []
    if owned["owner"] != user:
        seen = f"The database {database} belongs to {owned['owner']}, not to {user}"
        broken.append(_finding("postgres-database-owner", seen))
    limit = owned["connection_limit"]
    if limit != postgres_declared.CONNECTION_LIMIT:
        seen = f"The database {database} has a limit of {limit} connections, which its owner can set"
        broken.append(_finding("postgres-connection-limit", seen))
    public = set(owned["privileges"].get("PUBLIC", [])) - set(postgres_declared.PRIVILEGES["PUBLIC"])
    if public:
        seen = f"Every role has {', '.join(sorted(public))} on the database {database}"
        broken.append(_finding("postgres-public-privileges", seen))
    return broken


def _broken_settings(postgres, role, database):
    """Undeclared settings, by which the application can change every session in its database."""
    declared = {name.lower() for name in postgres["settings"]} | {postgres_declared.SEARCH_PATH}
    owners = [(f"database {postgres['database']}", set(database["settings"]) - declared)]
    owners.append((f"role {postgres['user']}", set(role["settings"])))
    for name, settings in role["database_settings"].items():
        owners.append((f"role {postgres['user']} in the database {name}", set(settings)))
    remedy = f"{APPLY}, which resets them, or declare them"
    return [
        _finding(
            "postgres-settings-undeclared",
            f"The {owner} has settings that immich:postgres:settings does not declare: "
            f"{', '.join(map(terminal.plain, sorted(names)))}",
            remedy,
        )
        for owner, names in owners
        if names
    ]


def _broken_extensions(database, vector, connection):
    try:
        vector = vector_extension.of(database, vector, connection, __salt__)
    except CommandExecutionError as err:
        if getattr(err, "absent", None) != "extension":
            raise
        return [_finding("postgres-vector-extension-absent", str(err))]
    broken = []
    for name, extension in __salt__["pgsql_extension.list"](database, extensions.needed(vector), connection).items():
        where = f"in the database {database}"
        if extension["available"]:
            broken += [_finding("postgres-extension-blocked", each.rstrip(".")) for each in extension["not_yet"]]
        if not extension["installed"]:
            broken.append(_finding("postgres-extension-absent", f"The extension {name} is not {where}"))
        elif extension["schema"] != SCHEMA:
            seen = f"The extension {name} is in the schema {extension['schema']} {where}, not in {SCHEMA}"
            broken.append(_finding("postgres-extension-schema", seen))
        elif name in VECTOR_VERSIONS and not extensions.supported(name, extension["installed"]):
            acceptable = extensions.version_range(name)
            seen = f"The extension {name} has version {extension['installed']} {where}, not {acceptable}"
            broken.append(_finding("postgres-extension-version", seen))
        elif name in VECTOR_VERSIONS and _moved(name, extension):
            seen = (
                f"The extension {name} has version {extension['installed']} {where}, and the server offers "
                f"{extension['available']}, to which Immich has no right to update it"
            )
            broken.append(_finding("postgres-extension-outdated", seen))
    return broken


def _moved(name, extension):
    """At its start Immich updates the vector extension to what the server offers, and without superuser it fails."""
    return extension["available"] != extension["installed"] and extensions.supported(name, extension["available"])


def _broken_tuning(profile, connection):
    differing = postgres_tuning.differing(profile, __grains__["mem_total"], connection, __salt__)
    if not differing:
        return []
    said = ", ".join(f"{name} {change['new']}" for name, change in sorted(differing.items()))
    return [_finding("postgres-tuning", f"PostgreSQL does not run with {said}", path="immich:postgres:tuning")]


def _broken_hba(settings, connection):
    database = settings["postgres"]["database"]
    state = __salt__["pgsql_hba.get"](database, postgres_declared.hba_record(settings), connection)
    if state["lines"] != [state["desired"]] or not state["loaded"]:
        seen = f"pg_hba.conf lacks the record `{state['desired']}`, or PostgreSQL has not reloaded it since"
        return [_finding("postgres-hba-record", seen)]
    if state["ahead"]:
        seen = f"In pg_hba.conf wider records precede that of {database}: {'; '.join(state['ahead'])}"
        return [_finding("postgres-hba-order", seen)]
    return []


def _broken_listening(addresses, connection):
    setting = __salt__["pgsql_config.get"](["listen_addresses"], connection)["listen_addresses"]["running"]
    without = list_settings.including("listen_addresses", setting, [])
    if list_settings.including("listen_addresses", setting, addresses) != without:
        seen = f"PostgreSQL does not listen at {', '.join(addresses)}, only at {setting}"
        return [_finding("postgres-listen-address", seen)]
    return []
