"""
What PostgreSQL has refused to Immich, by the server's log
==========================================================

A new release may need what the formula does not grant.
"""

import datetime
import os
import re
import zoneinfo
from pathlib import Path

from host_core import terminal
from immich_core import findings
from immich_core.postgres_extensions import OTHER_EXTENSIONS, VECTOR_VERSIONS
from immich_io import containers, untrusted

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
# The doctor's row.
PART = "refused by PostgreSQL"


def found(settings, salt, connection=None):
    """
    Return what PostgreSQL has refused to Immich's role since its server was started, for a day at most, by its log.

    As findings (``immich_core.findings``): an error if it is about an extension, which a new release of Immich may
    need, else a warning. A note says why the log does not show it: it is elsewhere, in another language than English,
    or its lines do not name role and time (``log_line_prefix``).

    settings
        The formula's settings.
    salt
        Salt's execution functions by name (``__salt__``).
    connection
        As in ``pgsql_server``. Defaults to that of the settings.

    Raises ``CommandExecutionError`` if the server cannot be asked.
    """
    postgres = settings["postgres"]
    if not postgres["managed"]:
        return _unknown("the log of a server that is managed elsewhere is not read")
    held = salt["pgsql_config.get"](LOG_SETTINGS, connection or postgres["connection"])
    said = {name: setting["running"] for name, setting in held.items()}
    line, unknown = _log_line(said, postgres["user"])
    if unknown:
        return _unknown(unknown)
    try:
        log = _log(said, settings["lookup"]["postgres"]["unit"])
    except OSError as error:
        return _unknown(f"the log cannot be read: {error}")
    refused = [match for match in map(line.match, log) if match and REFUSED.search(match["text"])]
    if refused:
        zone = zoneinfo.ZoneInfo(said["log_timezone"])
        since = datetime.datetime.fromtimestamp(containers.refusals_since(), zone)
        refused = [match for match in refused if match["time"] >= f"{since:%Y-%m-%d %H:%M:%S}"]
    texts = [terminal.one_line(match["text"], 200) for match in reversed(refused)]
    latest = list(dict.fromkeys(texts))[:SHOWN]
    return [_refusal(text, postgres["user"]) for text in latest]


def _unknown(reason):
    return [findings.finding("refusals-unknown", PART, f"not known: {reason}", severity=findings.NOTE)]


def _refusal(text, user):
    about_extension = "extension" in text
    if not about_extension:
        remedy = "report it if Immich's release notes ask for that right; else see what asks for it: " + SERVER_LOG
    elif any(name in text for name in (*OTHER_EXTENSIONS, *VECTOR_VERSIONS)):
        remedy = findings.apply("immich.postgres")
    else:
        remedy = "if Immich's release notes name that extension: create it as superuser, in the schema public"
    severity = findings.ERROR if about_extension else findings.WARNING
    seen = f"PostgreSQL refused the role {user}: {text}"
    return findings.finding("postgres-refused", PART, seen, remedy, severity=severity)


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
