"""
Decide what Immich needs of PostgreSQL, and check that it has it.

Nothing here speaks to the server: the execution modules ``pgsql_*`` do.

Which extensions Immich needs is in ``immich_core/postgres_extensions.py``.
"""

import datetime
import os
import re
import zoneinfo
from pathlib import Path

from salt.exceptions import CommandExecutionError, SaltInvocationError

from host_core import pillar, terminal
from immich_core import containers, findings, untrusted
from immich_core import postgres_extensions as extensions
from immich_core.pillar_paths import POSTGRES_PASSWORD
from immich_core.postgres_extensions import OTHER_EXTENSIONS, SCHEMA, VECTOR_EXTENSIONS, VECTOR_VERSIONS
from pgsql_core import list_settings

# Immich sets it for its database by itself.
SEARCH_PATH = "search_path"
# What the server's log says where a role may not do something.
REFUSED = re.compile(
    r"permission denied|must be owner of|must be (?:a )?(?:superuser|member)|only (?:super|roles? with)"
)
SERVER_LOG = "podman logs --tail 100 immich-server"
# An escape of log_line_prefix, with its padding.
ESCAPE = re.compile(r"%(-?[0-9]*)([a-zA-Z%])")
MOMENT = r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\S* \S+"
LOG_SETTINGS = [
    "data_directory",
    "lc_messages",
    "log_line_prefix",
    "log_timezone",
    "logging_collector",
]
# So many of them are shown.
SHOWN = 3
# The doctor's rows.
DATABASE, REFUSED_PART = "database", "refused by PostgreSQL"
APPLY = findings.apply("immich.postgres")

ROLE = {
    "login": True,
    "superuser": False,
    "createdb": False,
    "createrole": False,
    "replication": False,
    "bypassrls": False,
}


def __virtual__():
    if "pgsql_server.version" not in __salt__:
        return False, "immich_postgres needs the execution module pgsql_server: is psycopg2 in Salt's Python?"
    return True


def vector_extension(database, preference="auto", connection=None):
    """
    Return the vector extension for a database, by PostgreSQL's name: ``vchord`` or ``vector``.

    What the database has is kept. Otherwise ``auto`` takes VectorChord where the server offers a version that
    Immich supports, else pgvector.

    database
        Name of the database, which need not be there yet.
    preference
        ``vectorchord``, ``pgvector`` or ``auto``. Defaults to ``auto``.
    connection
        As in ``pgsql_server``. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the server cannot be reached or does not offer what is wanted (the exception
    then has ``absent = "extension"``), and ``SaltInvocationError`` for another preference.

    CLI Example:

    .. code-block:: bash

        salt '*' immich_postgres.vector_extension immich
    """
    if preference not in ("auto", *VECTOR_EXTENSIONS):
        raise SaltInvocationError(f"There is no vector extension {preference}: say auto, vectorchord or pgvector.")
    known = _vector_extensions(database, connection)
    for extension in ("vchord", "vector"):
        if known[extension]["installed"]:
            return extension
    wanted = list(VECTOR_EXTENSIONS.values()) if preference == "auto" else [VECTOR_EXTENSIONS[preference]]
    for extension in wanted:
        if extensions.supported(extension, known[extension]["available"]):
            return extension
    acceptable = " or ".join(map(extensions.version_range, wanted))
    error = CommandExecutionError(
        f"The server does not offer {acceptable}: install its package. It offers {_offers(known)}."
    )
    error.absent = "extension"
    raise error


def password_differs(settings):
    """
    Return whether Immich's role has another password than the pillar declares.

    settings
        The formula's settings, as of ``immich_settings.get``.

    False if there is no such role or no server yet. Raises ``CommandExecutionError`` if the server cannot be asked.

    Called by ``immich_app.reasons_to_stop``.
    """
    postgres = settings["postgres"]
    password = pillar.value(__pillar__, POSTGRES_PASSWORD)
    try:
        role = __salt__["pgsql_role.get"](postgres["user"], password=password, connection=postgres["connection"])
    except CommandExecutionError as err:
        if getattr(err, "absent", None) != "server":
            raise
        return False
    return role is not None and not role["password_matches"]


def hba_record(settings):
    """
    Return Immich's record for pg_hba.conf, as ``pgsql_hba.get`` takes it.

    settings
        The formula's settings, as of ``immich_settings.get``.

    Called by the SLS ``immich.postgres``.
    """
    return {
        "type": "host",
        "database": settings["postgres"]["database"],
        "user": settings["postgres"]["user"],
        "address": settings["network"]["subnet"],
        "method": "scram-sha-256",
    }


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
    if postgres["managed"]:
        broken += _broken_hba(settings, connection)
        broken += _broken_listening(settings["gateway_address"], connection)
    return broken


def _finding(code, seen, remedy=APPLY, path=""):
    return findings.finding(code, DATABASE, seen, remedy, path)


def refusals(settings, connection=None):
    """
    Return what PostgreSQL has refused to Immich's role since its server was started, for a day at most, by its log.

    ``{"found": findings, "unknown": reason}``; a finding is an error if it is about an extension, which a new release
    of Immich may need, else a warning. ``unknown`` is empty where the log shows it, and says why where it does not: it
    is elsewhere, in another language than English, or its lines do not name role and time (``log_line_prefix``).

    settings
        The formula's settings, as of ``immich_settings.get``.
    connection
        As in ``pgsql_server``. Defaults to that of the settings.

    Raises ``CommandExecutionError`` if the server cannot be asked.

    Called by ``immich_app.warnings`` and by ``immich.doctor``.
    """
    postgres = settings["postgres"]
    if not postgres["managed"]:
        return {"found": [], "unknown": "the log of a server that is managed elsewhere is not read"}
    held = __salt__["pgsql_config.get"](LOG_SETTINGS, connection or postgres["connection"])
    said = {name: setting["running"] for name, setting in held.items()}
    line, unknown = _log_line(said, postgres["user"])
    if unknown:
        return {"found": [], "unknown": unknown}
    try:
        log = _log(said, settings["lookup"]["postgres"]["unit"])
    except OSError as error:
        return {"found": [], "unknown": f"the log cannot be read: {error}"}
    refused = [match for match in map(line.match, log) if match and REFUSED.search(match["text"])]
    if refused:
        zone = zoneinfo.ZoneInfo(said["log_timezone"])
        since = datetime.datetime.fromtimestamp(containers.refusals_since(), zone)
        refused = [match for match in refused if match["time"] >= f"{since:%Y-%m-%d %H:%M:%S}"]
    texts = [terminal.one_line(match["text"], 200) for match in reversed(refused)]
    latest = list(dict.fromkeys(texts))[:SHOWN]
    return {"found": [_refusal(text, postgres["user"]) for text in latest], "unknown": ""}


def _refusal(text, user):
    about_extension = "extension" in text
    if not about_extension:
        remedy = "report it if Immich's release notes ask for that right; else see what asks for it: " + SERVER_LOG
    elif any(name in text for name in (*OTHER_EXTENSIONS, *VECTOR_VERSIONS)):
        remedy = APPLY
    else:
        remedy = "if Immich's release notes name that extension: create it as superuser, in the schema public"
    severity = findings.ERROR if about_extension else findings.WARNING
    seen = f"PostgreSQL refused the role {user}: {text}"
    return findings.finding("postgres-refused", REFUSED_PART, seen, remedy, severity=severity)


def _log_line(said, user):
    """What a line of the log about an error of a role looks like, or why that cannot be known."""
    prefix, language = said["log_line_prefix"], said["lc_messages"]
    if not language.startswith(("C", "POSIX", "en")) and language:
        return None, f"the server's log is in another language than English: lc_messages is {language}"
    escapes = {letter for _, letter in ESCAPE.findall(prefix)}
    if "u" not in escapes or not escapes & {"m", "t"}:
        return None, f"the lines of the server's log do not name role and time: log_line_prefix is {prefix!r}"
    known = {"u": re.escape(user), "m": MOMENT, "t": MOMENT, "q": "", "%": "%"}
    pattern, end = "", 0
    for found in ESCAPE.finditer(prefix):
        # Nothing in between may hold a space: the rest of a line is what the role has written.
        value = known.get(found[2], r"\S*")
        known.update(dict.fromkeys("mt", r"\S+ \S+ \S+") if found[2] in "mt" else {})  # a group has its name once
        pattern += re.escape(prefix[end : found.start()]) + (rf"\s*{value}\s*" if found[1] else value)
        end = found.end()
    return re.compile(rf"{pattern}{re.escape(prefix[end:])}(?:ERROR|FATAL): +(?P<text>.+)"), ""


def _log(said, unit):
    """The last lines of the server's log: a file of its own, the one that is its standard error, or the journal."""
    directory = Path(said["data_directory"])
    if said["logging_collector"] == "on":
        kinds = dict(line.split(" ", 1) for line in untrusted.tail(directory / "current_logfiles") if line)
        if "stderr" not in kinds:
            raise OSError(f"its formats are {', '.join(kinds)}, and not stderr")
        return untrusted.tail(directory / kinds["stderr"])
    process = untrusted.tail(directory / "postmaster.pid")[0]
    target = os.readlink(f"/proc/{int(process)}/fd/2")
    if target.startswith("/"):
        return untrusted.tail(target)
    command = ["journalctl", "--unit", unit, "--output=cat", "--since=-1day", "--lines=5000", "--no-pager"]
    return untrusted.output(command).split("\n")


def _vector_extensions(database, connection):
    names = list(VECTOR_VERSIONS)
    try:
        return __salt__["pgsql_extension.list"](database, names, connection)
    except CommandExecutionError as err:
        if getattr(err, "absent", None) != "database":
            raise
    offered = __salt__["pgsql_extension.list"](None, names, connection)
    return {name: {**extension, "installed": None} for name, extension in offered.items()}


def _offers(known):
    offers = [f"{name} {extension['available']}" for name, extension in known.items() if extension["available"]]
    return ", ".join(offers) or "neither"


def _broken_role(user, role):
    wrong = [attribute for attribute, value in ROLE.items() if role[attribute] != value]
    words = [attribute.upper() if ROLE[attribute] else f"NO{attribute.upper()}" for attribute in wrong]
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
    if limit != -1:
        seen = f"The database {database} has a limit of {limit} connections, which its owner can set"
        broken.append(_finding("postgres-connection-limit", seen))
    public = owned["privileges"].get("PUBLIC", [])
    if public:
        seen = f"Every role has {', '.join(public)} on the database {database}"
        broken.append(_finding("postgres-public-privileges", seen))
    return broken


def _broken_settings(postgres, role, database):
    """Undeclared settings, by which the application can change every session in its database."""
    declared = {name.lower() for name in postgres["settings"]} | {SEARCH_PATH}
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
        vector = vector_extension(database, vector, connection)
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
                f"{extension['available']}, to which Immich may not update it"
            )
            broken.append(_finding("postgres-extension-outdated", seen))
    return broken


def _moved(name, extension):
    """At its start Immich updates the vector extension to what the server offers, and without superuser it fails."""
    return extension["available"] != extension["installed"] and extensions.supported(name, extension["available"])


def _broken_hba(settings, connection):
    database = settings["postgres"]["database"]
    state = __salt__["pgsql_hba.get"](database, hba_record(settings), connection)
    if state["lines"] != [state["wanted"]] or not state["loaded"]:
        seen = f"pg_hba.conf lacks the record `{state['wanted']}`, or was not read since"
        return [_finding("postgres-hba-record", seen)]
    if state["ahead"]:
        seen = f"In pg_hba.conf wider records precede that of {database}: {'; '.join(state['ahead'])}"
        return [_finding("postgres-hba-order", seen)]
    return []


def _broken_listening(address, connection):
    setting = __salt__["pgsql_config.get"](["listen_addresses"], connection)["listen_addresses"]["running"]
    without = list_settings.including("listen_addresses", setting, [])
    if list_settings.including("listen_addresses", setting, [address]) != without:
        return [_finding("postgres-listen-address", f"PostgreSQL does not listen at {address}, only at {setting}")]
    return []
