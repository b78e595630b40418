"""
The role that restores, and its record in pg_hba.conf
=====================================================
"""

import contextlib
import secrets

from salt.exceptions import CommandExecutionError

from immich_core import findings, postgres_declared
from immich_restore import names
from immich_restore.backup_file import refuse


def role_name(target):
    """Name of the role that restores."""
    return f"{target.user}{names.ROLE_SUFFIX}"


@contextlib.contextmanager
def temporary_role(target, database):
    """
    A role for one restore, with how to log in as it: it will own the database, and has no right to another.

    When the block is over, what it made belongs to Immich's role, and it is gone.
    """
    password = secrets.token_urlsafe(32)
    target.salt["pgsql_role.set"](
        role_name(target),
        **postgres_declared.ATTRIBUTES,
        member_of=[],
        password=password,
        connection=target.connection,
    )
    login = {**target.owner(database), "user": role_name(target), "password": password}
    del login["password_pillar"]
    try:
        if not target.managed:
            refuse(_refused(target, login))
        yield login
    except BaseException:
        with contextlib.suppress(CommandExecutionError):  # the next run does it
            drop_role(target)
        raise
    drop_role(target)


def _refused(target, login):
    """Why the role of a restore cannot log in at a server that the formula does not manage, as findings."""
    role, maintenance = login["user"], target.connection["maintenance_db"]
    if target.salt["pgsql_role.login_works"](role, login["password"], login, maintenance):
        return []
    return [login_refused(login, f"the role {role}, which a restore creates and drops", f"{target.user},{role}")]


def login_refused(login, whom, roles):
    """The finding that a server managed elsewhere refuses a role, with the record that it needs for some roles."""
    seen = f"PostgreSQL at {login['host']} refuses {whom}"
    remedy = f"its pg_hba.conf needs a record `host all {roles} ADDRESS-OF-THIS-HOST scram-sha-256`"
    return findings.finding("login-refused", "database", seen, remedy)


def drop_role(target):
    """Drop the role of a restore; what it still owns goes to Immich's."""
    target.salt["pgsql_server.disconnect"]()
    if target.salt["pgsql_role.get"](role_name(target), connection=target.connection):
        target.salt["pgsql_role.drop"](role_name(target), reassign_to=target.user, connection=target.connection)


@contextlib.contextmanager
def hba_record(target, database, user):
    """Have pg_hba.conf let a role into a database from this host, which not every distribution's does."""
    if not target.managed:
        yield
        return
    record = {
        "type": "host",
        "database": database,
        "user": user,
        "address": "127.0.0.1/32",
        "method": "scram-sha-256",
    }
    target.salt["pgsql_hba.set"](names.HBA_RECORD, record, target.connection)
    try:
        yield
    finally:
        with contextlib.suppress(CommandExecutionError):  # the next run takes it back
            remove_hba_record(target)


def remove_hba_record(target):
    """Take back what :py:func:`hba_record` has written."""
    target.salt["pgsql_hba.set"](names.HBA_RECORD, connection=target.connection)


def hba_record_left(target):
    """Whether pg_hba.conf still has the record of a restore."""
    if not target.managed:
        return False
    return bool(target.salt["pgsql_hba.get"](names.HBA_RECORD, connection=target.connection)["lines"])
