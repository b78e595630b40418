"""The test host's PostgreSQL, seen past the formula's own modules, and Salt's loaders over them."""

import contextlib
import os
import pwd
import subprocess
import time
from pathlib import Path

import psycopg2
from psycopg2 import sql

from tests.functional.release import POSTGRES

SOCKET_DIR = "/var/run/postgresql"
UNIT = f"postgresql@{POSTGRES}-main"
CONFIG = Path(f"/etc/postgresql/{POSTGRES}/main")
EXTENSIONS = Path(f"/usr/share/postgresql/{POSTGRES}/extension")
LIBRARIES = Path(f"/usr/lib/postgresql/{POSTGRES}/lib")
EVERY_CHARACTER = "".join(chr(code) for code in range(32, 127))


class Pg:
    """Everything that tests make is called ``t_…`` and is gone after ``sweep``."""

    def __init__(self, loaders):
        self.loaders = loaders
        self.pillar = loaders.opts["pillar"]
        self.modules = loaders.modules

    def state(self, function, *args, test=False, **kwargs):
        return self.loaders.quick[test][function](*args, **kwargs)

    def new_run(self):
        """What a run of Salt keeps is gone."""
        self.modules.pgsql_server.disconnect()
        self.loaders.context.clear()

    @contextlib.contextmanager
    def read_only(self):
        """Whatever the module would write now is refused by the server."""
        self.new_run()
        os.environ["PGOPTIONS"] = "-c default_transaction_read_only=on"
        try:
            yield
        finally:
            del os.environ["PGOPTIONS"]
            self.new_run()

    def sql(self, statement, arguments=None, database="postgres"):
        """Run a statement as superuser; return the rows if there are any."""
        with self.superuser(database) as session, session.cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchall() if cursor.description else None

    def reload(self):
        """Have the server read its files, and wait until it has: a new session says when that was."""
        before, deadline = self.value("SELECT clock_timestamp()"), time.monotonic() + 120
        self.sql("SELECT pg_reload_conf()")
        while self.value("SELECT pg_conf_load_time()") < before:
            assert time.monotonic() < deadline, "PostgreSQL does not read its files"
            time.sleep(0.02)

    def value(self, statement, arguments=None, database="postgres"):
        return self.sql(statement, arguments, database)[0][0]

    def at_last(self, statement, expected):
        """The rows of a query about sessions, at the latest after two minutes: one that its client has closed is there
        until its process has ended."""
        deadline = time.monotonic() + 120
        while (rows := self.sql(statement)) != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        return rows

    @contextlib.contextmanager
    def superuser(self, database="postgres"):
        root = os.geteuid()
        os.seteuid(pwd.getpwnam("postgres").pw_uid)
        try:
            session = psycopg2.connect(host=SOCKET_DIR, user="postgres", dbname=database)
        finally:
            os.seteuid(root)
        session.autocommit = True
        with contextlib.closing(session):
            yield session

    def logs_in(self, user, password, database="postgres"):
        """Whether the server lets somebody in over TCP, where it asks for SCRAM."""
        try:
            psycopg2.connect(host="127.0.0.1", user=user, password=password, dbname=database).close()
        except psycopg2.OperationalError as err:
            assert "password authentication failed" in str(err)  # noqa: PT017  any other reason is a broken test
            return False
        return True

    def verifier(self, role):
        return self.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (role,))

    def roles(self):
        return {row[0] for row in self.sql("SELECT rolname FROM pg_roles")}

    def databases(self):
        return {row[0] for row in self.sql("SELECT datname FROM pg_database")}

    def everything(self):
        """A fingerprint of all roles and databases, to show that somebody else's are untouched."""
        statement = """
            SELECT (SELECT jsonb_agg(a ORDER BY a.oid) FROM pg_authid a),
                (SELECT jsonb_agg(m ORDER BY m.roleid, m.member, m.grantor) FROM pg_auth_members m),
                (SELECT jsonb_agg(s ORDER BY s.setdatabase, s.setrole) FROM pg_db_role_setting s),
                (SELECT jsonb_agg(to_jsonb(d) - 'datfrozenxid' - 'datminmxid' ORDER BY d.oid) FROM pg_database d)
            """
        return self.sql(statement)

    def sweep(self):
        self.new_run()
        self.pillar.clear()
        with self.superuser() as session, session.cursor() as cursor:
            for named, drop in (
                ("datname FROM pg_database", "DROP DATABASE {} WITH (FORCE)"),
                ("rolname FROM pg_roles", "DROP OWNED BY {0}; DROP ROLE {0}"),
            ):
                cursor.execute(f"SELECT {named}")
                for (name,) in cursor.fetchall():
                    if name.startswith("t_"):
                        cursor.execute(sql.SQL(drop).format(sql.Identifier(name)))


def systemctl(*arguments):
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def restarts():
    """A value that changes whenever the server restarts, once systemd knows the new one."""
    systemctl("start", UNIT)
    return systemctl("show", "-p", "ExecMainStartTimestampMonotonic", UNIT)
