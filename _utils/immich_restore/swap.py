"""
A restored database takes the place of Immich's, or gives it back
=================================================================
"""

import contextlib

from salt.exceptions import CommandExecutionError

from immich_core import findings, units
from immich_io import last_words
from immich_restore import names, reporting
from immich_restore.fill import drop


def systemctl(target, verb, *options):
    """Start or stop Immich."""
    target.salt["systemd_unit.call"](verb, *options, units.IMMICH)


def take_over(target, fresh, before):
    """Give Immich's database another name, and its own to a fresh one, in one transaction."""
    reporting.say(f"{fresh} takes the place of {target.database}")
    there = target.salt["pgsql_database.exists"](target.database, target.connection)
    renamed = {**({target.database: before} if there else {}), fresh: target.database}
    try:
        target.salt["pgsql_database.rename"](renamed, target.connection)
    except CommandExecutionError:
        # The server may have done it, and the connection may have been lost before it said so.
        target.salt["pgsql_server.wait_until_ready"](target.connection)
        if target.salt["pgsql_database.exists"](fresh, target.connection):
            raise


@contextlib.contextmanager
def unchanged_if_it_fails(target, fresh):
    """
    Until the swap, what Immich used is as it was: whatever ends the block before, Immich starts on it again.

    The block adds to the list that it is given whether Immich served, right before it stops Immich.
    """
    complete, stopped = False, []
    try:
        yield stopped
        complete = True
    except CommandExecutionError as error:
        reporting.say(f"The restore failed: {error}")
        again = " and Immich is started again" if any(stopped) else ""
        unchanged = f"the database {target.database} is as it was{again}"
        raise CommandExecutionError(f"Not restored; {unchanged}: {error}") from error
    finally:
        if not complete:
            with contextlib.suppress(CommandExecutionError):  # the next run drops it
                target.salt["pgsql_server.wait_until_ready"](target.connection)
                drop(target, fresh)
        if not complete and any(stopped):
            systemctl(target, "start", "--no-block")


def broken(target, **options):
    """
    What does not hold of application and database, as findings. ``patience`` is for how long the application may still
    start.
    """
    found = []
    for module, given in (("immich_app", options), ("immich_postgres", {})):
        try:
            found += target.salt[f"{module}.verify"](target.settings, **given)
        except CommandExecutionError as error:
            found.append(findings.not_verified(module, error))
    return found


def start_and_verify(target, known):
    """
    Start Immich on the restored database; return as findings what is wrong with it and, by the findings ``known``, was
    not wrong before.
    """
    reporting.say(f"Starting {units.IMMICH}")
    try:
        systemctl(target, "start")
    except CommandExecutionError as error:
        return [findings.finding("not-started", units.IMMICH, last_words.of(units.IMMICH) or str(error))]
    return findings.new(broken(target), known)


def revert(target, before, served, trouble):
    """Give Immich its old database again, and raise ``CommandExecutionError`` with why, the findings ``trouble``."""
    why = [findings.sentence(each) for each in trouble]
    reporting.say(f"Immich does not serve from it: {'; '.join(why)}")
    systemctl(target, "stop")
    there = target.salt["pgsql_database.exists"](before, target.connection)
    dropped = names.beside(target.database, "drop")
    renamed = {target.database: dropped, **({before: target.database} if there else {})}
    target.salt["pgsql_database.rename"](renamed, target.connection)
    if served:
        systemctl(target, "start")
    drop(target, dropped)
    raise CommandExecutionError(
        "Not restored: Immich did not serve from the restored database, so the old one was put back"
        f"{' and Immich is started again' if served else ''}. {' '.join(why)}"
    )


def keep_or_drop(target, before, keep_old):
    """Drop the old database or keep it, out of the reach of Immich's role; its name then."""
    connection = target.connection
    if not target.salt["pgsql_database.exists"](before, connection):
        return None
    if keep_old:
        # It may be all that there is of what it holds, and whoever owns a database can drop it.
        target.salt["pgsql_database.set"](before, owner=connection["user"], connection=connection)
    name = names.as_kind(before, "kept" if keep_old else "drop")
    # A database whose dropping was cut short can no longer be renamed: its name says first what becomes of it.
    target.salt["pgsql_database.rename"]({before: name}, connection)
    if keep_old:
        return name
    drop(target, name)
    return None
