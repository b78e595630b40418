"""Each fault is really caused on a deployed host: `immich.doctor` names it first, and its advice mends it."""

import contextlib
import itertools
import json
import re
import shlex
from types import SimpleNamespace

import pytest
import yaml

from tests.scenarios.conftest import FAILED, PASSWORDS, PILLAR, deployed, merged, pillar_with

PSQL = "runuser -u postgres -- psql -qd immich -c"
VALKEY = "REDISCLI_AUTH=$(cat /etc/immich-formula/valkey.password) valkey-cli --user immich-formula"
COMPOSE = "/opt/podman/immich/docker-compose.yml"
PING = "http://127.0.0.1:2283/api/server/ping"
UPLOAD = "/srv/immich/upload"
BACKUP_UNIT = "/etc/systemd/system/immich-backup.service.d"
EXTENSIONS = "/usr/share/postgresql/17/extension"
LIBRARIES = "/usr/lib/postgresql/17/lib"
AS_IMMICH = (
    'REDISCLI_AUTH="$(cat /opt/podman/immich/secrets/redis_password; printf x)"; export'
    ' REDISCLI_AUTH="${REDISCLI_AUTH%x}"; setsid valkey-cli --user immich'
)
# Until its busy-reply-threshold Valkey answers nothing at all.
ENDLESS = "EVAL 'while true do end' 0 >/dev/null 2>&1 & sleep 7"
ENDLESS_WRITER = "EVAL 'redis.call(\"set\", KEYS[1], 1) while true do end' 1 immich_bull:x >/dev/null 2>&1 & sleep 7"
FIREWALL = (
    "nft add table inet foreign;"
    " nft add chain inet foreign input '{{ type filter hook input priority -20; policy accept; }}';"
    " nft add rule inet foreign input iifname immich0 {} drop"
)
NO_FIREWALL = "nft delete table inet foreign"
# An extension with the name of VectorChord, which no Debian release has: see tests/functional/test_immich_postgres.py.
VCHORD = f"""
cat >{EXTENSIONS}/vchord.control <<END
default_version = '0.4.3'
requires = 'vector'
relocatable = true
superuser = true
END
echo "CREATE FUNCTION vchord_version() RETURNS int LANGUAGE sql AS 'SELECT 1';" >{EXTENSIONS}/vchord--0.4.3.sql
cp {LIBRARIES}/auto_explain.so {LIBRARIES}/vchord.so
{PSQL} 'CREATE EXTENSION vchord SCHEMA public'
"""
NO_VCHORD = f"""
{PSQL} 'DROP EXTENSION vchord'; {PSQL} 'ALTER SYSTEM RESET shared_preload_libraries'
rm {EXTENSIONS}/vchord* {LIBRARIES}/vchord.so; systemctl restart postgresql@17-main
"""
NEWER_VECTOR = f"""
cd {EXTENSIONS}; old=$(sed -n "s/^default_version = '\\(.*\\)'/\\1/p" vector.control)
echo 'SELECT 1;' >vector--$old--0.9.99.sql; sed -i "s/^default_version.*/default_version = '0.9.99'/" vector.control
"""

HANGING_PODMAN = """#!/bin/bash
case $(tr '\\0' ' ' </proc/$PPID/cmdline) in
  *immich.doctor*) exec -a asked-by-the-doctor sleep 1000 ;;
esac
exec /usr/bin/podman.away "$@"
"""


def fault(part, cause, words="", undo="", pillar=None, mends=True, quick=False):
    """``mends``: the advice is a command or a pillar line, and ends it. Else ``undo`` does."""
    return SimpleNamespace(part=part, cause=cause, words=words, undo=undo, pillar=pillar, mends=mends, quick=quick)


FAULTS = {
    # The formula
    "library missing": fault("Python libraries", "/opt/salt/bin/pip uninstall -qy redis", "redis"),
    "module missing": fault(
        "modules of the formula",
        "find /var/cache/salt/minion/extmods -name 'immich_gateway.*' -delete",
        "immich_gateway",
    ),
    "no pillar": fault("pillar", "echo '{}' >/srv/pillar/immich.sls", "no key `immich`", mends=False),
    "pillar with a typing error": fault("pillar", "echo '{{ x' >/srv/pillar/immich.sls", "render", mends=False),
    "pillar with a legacy time zone": fault(
        "pillar", "", "immich:timezone", pillar={"timezone": "Australia/ACT"}, mends=False, quick=True
    ),
    "port taken": fault(
        "pillar",
        "systemctl stop immich; (setsid python3 -m http.server 2283 >/dev/null 2>&1 &);"
        " until ss -ltn | grep -q ':2283 '; do sleep 0.2; done",
        "immich:port",
        undo="kill $(pgrep -f 'http[.]server 2283'); while ss -ltn | grep -q ':2283 '; do sleep 0.2; done;"
        " systemctl start immich",
        mends=False,
    ),
    # The host
    "time zone never set": fault(
        "time zone",
        "ln -sf /usr/share/zoneinfo/Europe/Berlin /etc/localtime",
        "Europe/Berlin",
        undo="ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime",
        pillar={"timezone": "Etc/UTC"},
    ),
    "uploads not mounted": fault(
        "mounts",
        f"systemctl stop immich; mv {UPLOAD} /srv/photos; mkdir {UPLOAD};"
        f" echo '/srv/photos {UPLOAD} none bind,noauto 0 0' >>/etc/fstab; systemctl daemon-reload",
        "is in /etc/fstab and is not mounted",
        undo=f"systemctl stop immich; umount {UPLOAD}; rmdir {UPLOAD}; mv /srv/photos {UPLOAD};"
        " sed -i '/photos/d' /etc/fstab; systemctl daemon-reload; systemctl start immich",
    ),
    "uploads not mounted, by no fstab": fault(
        "uploads",
        f"systemctl stop immich; mv {UPLOAD} /srv/photos; mkdir {UPLOAD}",
        "Immich has run before",
        undo=f"rmdir {UPLOAD}; mv /srv/photos {UPLOAD}; systemctl start immich",
        mends=False,
    ),
    "a marker gone": fault(
        "uploads",
        f"mv {UPLOAD}/thumbs/.immich /root",
        "thumbs",
        undo=f"mv /root/.immich {UPLOAD}/thumbs",
        mends=False,
    ),
    "uploads of another owner": fault(
        "uploads",
        f"chown -R 1000:1000 {UPLOAD}; systemctl restart --no-block immich",
        "1000:1000",
    ),
    "disk full": fault(
        "disk space",
        "mount -t tmpfs -o size=16m tmpfs /var/log",
        "/var/log",
        undo="umount /var/log",
        mends=False,
    ),
    "model cache of another owner": fault("model cache", "chown 4242:4242 /srv/immich/model-cache", "60884:60884"),
    # Podman
    "network removed": fault("network", "systemctl stop immich; podman network rm immich", "no network immich"),
    "network made by hand": fault(
        "network",
        "systemctl stop immich; podman network rm immich; podman network create --subnet 172.30.0.0/16 immich",
        "172.30.0.0",
    ),
    "gateway's address gone": fault("gateway and firewall", "ip address delete 10.88.0.1/32 dev lo", "10.88.0.1"),
    "gateway's firewall gone": fault("gateway and firewall", "nft delete table inet immich", "absent"),
    # PostgreSQL
    "PostgreSQL down": fault("PostgreSQL service", "systemctl stop postgresql@17-main", "inactive"),
    "PostgreSQL hangs": fault(
        "PostgreSQL",
        "kill -STOP $(head -n 1 /var/lib/postgresql/17/main/postmaster.pid)",
        "hangs",
        undo="kill -CONT $(head -n 1 /var/lib/postgresql/17/main/postmaster.pid)",
        mends=False,
    ),
    "database password changed on the server": fault(
        "database", f"{PSQL} \"ALTER ROLE immich PASSWORD 'another one'\"", "password of the role"
    ),
    "pg_hba.conf without the record": fault(
        "database",
        "sed -i '/^host.*immich/d' /etc/postgresql/17/main/pg_hba.conf; systemctl reload postgresql@17-main",
        "pg_hba.conf lacks the record",
    ),
    "extension that needs a superuser": fault(
        "database", f"{PSQL} 'DROP EXTENSION earthdistance CASCADE'", "The extension earthdistance is not"
    ),
    "vchord not preloaded": fault("database", VCHORD, "shared_preload_libraries", undo=NO_VCHORD),
    "role with too much": fault("database", f"{PSQL} 'ALTER ROLE immich SUPERUSER'", "NOSUPERUSER"),
    "vector extension moved": fault("database", NEWER_VECTOR, "the server offers 0.9.99"),
    # Valkey
    "Valkey down": fault("Valkey service", "systemctl stop valkey-server", "inactive", quick=True),
    "Valkey hangs": fault(
        "Valkey",
        "systemctl kill --signal=STOP valkey-server",
        "hangs",
        undo="systemctl kill --signal=CONT valkey-server",
        mends=False,
    ),
    "Valkey password changed on the server": fault(
        "Valkey user", f"{VALKEY} ACL SETUSER immich resetpass '>another-one'", "password of the ACL user"
    ),
    "Valkey rules without channels": fault("Valkey user", f"{VALKEY} ACL SETUSER immich resetchannels", "SUBSCRIBE"),
    "Valkey busy with a script": fault(
        "Valkey scripts", f"{AS_IMMICH} {ENDLESS}", "busy with a script that does not end"
    ),
    "Valkey busy with a script that has written": fault(
        "Valkey scripts",
        f"salt-call --local state.apply immich.valkey >/dev/null; {AS_IMMICH} {ENDLESS_WRITER}",
        "since ",
        pillar={"valkey": {"stop_timeout": 10}},
    ),
    "Valkey full": fault(
        "Valkey memory",
        f"{VALKEY} CONFIG SET maxmemory 1mb",
        "refuses every write",
        undo=f"{VALKEY} CONFIG SET maxmemory 0",
    ),
    "Valkey's ACL file gone": fault(
        "Valkey service", "rm /etc/valkey/users.acl; systemctl restart valkey-server || true", "users.acl is gone"
    ),
    "Valkey denies a command that Immich needs": fault(
        "refused by Valkey",
        'export REDISCLI_AUTH="$(cat /opt/podman/immich/secrets/redis_password; printf x)";'
        ' REDISCLI_AUTH="${REDISCLI_AUTH%x}"; valkey-cli --user immich ECHO x',
        "Valkey denied ECHO to the user immich",
        undo=f"{VALKEY} ACL LOG RESET",
    ),
    "Valkey user gone": fault("Valkey user", f"{VALKEY} ACL DELUSER immich", "no ACL user immich"),
    # The application
    "machine learning on ::": fault(
        "compose file",
        f"sed -i \"s/IMMICH_HOST: 0.0.0.0/IMMICH_HOST: '::'/\" {COMPOSE}; systemctl restart immich",
        '"::"',
    ),
    "Redis host by hand": fault(
        "compose file",
        f"sed -i 's/REDIS_HOSTNAME: .*/REDIS_HOSTNAME: redis/' {COMPOSE}; systemctl restart --no-block immich",
        "REDIS_HOSTNAME",
    ),
    "compose file broken": fault("compose file", f"echo '{{{{ broken' >{COMPOSE}", "not the one that Salt wrote"),
    # Named by the log as NOAUTH: it is looked for below.
    "no password for Valkey": fault(
        "compose file",
        f"sed -i '/REDIS_PASSWORD_FILE/d; /REDIS_USERNAME/d' {COMPOSE}; systemctl restart --no-block immich;"
        " until journalctl -u immich -n 100 -o cat | grep -q NOAUTH; do sleep 0.5; done",
        "REDIS_PASSWORD_FILE",
    ),
    "downgrade": fault("version", "", "is older than", pillar={"version": "v3.3.0"}),
    "database of a newer version": fault(
        "version",
        f"{PSQL} \"INSERT INTO kysely_migrations VALUES ('1793000000000-AddAssetRating', 'x')\"",
        "do not start v3.3.1 on it",
        undo=f"{PSQL} \"DELETE FROM kysely_migrations WHERE timestamp = 'x'\"",
        mends=False,
    ),
    "password file empty": fault("secrets", ": >/opt/podman/immich/secrets/redis_password", "missing or empty"),
    "password file changed": fault("secrets", "printf another >/opt/podman/immich/secrets/db_password", "db_password"),
    "password file not readable": fault(
        "secrets", "chown 4242 /opt/podman/immich/secrets/redis_password", "cannot be read"
    ),
    "image gone": fault("images", "systemctl stop immich; podman rmi --all --force", "immich-server:v3.3.1"),
    "Immich stopped": fault("immich.service", "systemctl stop immich", "inactive"),
    "container removed by hand": fault("containers", "podman rm --force immich-machine-learning", "does not exist"),
    "container paused": fault("containers", "podman pause immich-server", "paused"),
    # Between them
    "aardvark-dns killed": fault("DNS between containers", "pkill -x aardvark-dns", "aardvark-dns"),
    "firewall drops DNS": fault(
        "DNS between containers", FIREWALL.format("udp dport 53"), "UDP port 53", undo=NO_FIREWALL, mends=False
    ),
    "firewall drops Valkey": fault(
        "way to Valkey", FIREWALL.format("tcp dport 6379"), "ETIMEDOUT", undo=NO_FIREWALL, mends=False
    ),
    "Redis host not found": fault(
        "way to PostgreSQL",
        # The file that Podman mounts there: the container's own root is read-only.
        "hosts=$(podman inspect --format '{{.HostsPath}}' immich-server);"
        " grep -v host.containers $hosts >/run/hosts; cat /run/hosts >$hosts",
        "ENOTFOUND host.containers.internal",
    ),
    # Backups
    "restore killed": fault(
        "leftovers",
        "runuser -u postgres -- createdb immich_restore_20260101T000000Z",
        "has left immich_restore_20260101T000000Z",
    ),
    "database kept": fault(
        "leftovers",
        "runuser -u postgres -- createdb immich_kept_20260101T000000Z",
        "immich_kept_20260101T000000Z is the database that Immich had",
        undo="runuser -u postgres -- dropdb immich_kept_20260101T000000Z",
        mends=False,
    ),
    "update interrupted": fault(
        "leftovers",
        "names=$(runuser -u postgres -- psql -qAtc 'SELECT json_agg(name ORDER BY 1) FROM kysely_migrations' immich);"
        """ echo '{"from": "v3.3.1", "to": "v3.3.2", "image": "x:v3.3.2", "migrations": '"$names"', "compose": null,'"""
        """' "backup": null}' >/opt/podman/immich/update.json""",
        "the update from v3.3.1 to v3.3.2 has not been completed",
    ),
    "backup failed": fault(
        "backups",
        f"mkdir -p {BACKUP_UNIT}; printf '[Service]\\nExecStart=\\nExecStart=false\\n' >{BACKUP_UNIT}/fails.conf;"
        " systemctl daemon-reload; systemctl start immich-backup || true",
        "failed",
        undo=f"rm {BACKUP_UNIT}/fails.conf; systemctl daemon-reload; systemctl reset-failed immich-backup",
        mends=False,
    ),
}

# Those of a group hide nothing of each other.
TOGETHER = {
    "what Immich bears": (
        "time zone never set",
        "a marker gone",
        "disk full",
        "model cache of another owner",
        "gateway's firewall gone",
        "database password changed on the server",
        "extension that needs a superuser",
        "role with too much",
        "vector extension moved",
        "Valkey rules without channels",
        "password file changed",
        "password file not readable",
        "restore killed",
        "database kept",
        "update interrupted",
        "backup failed",
    ),
    "what keeps Immich from its services": (
        "machine learning on ::",
        "pg_hba.conf without the record",
        "Valkey user gone",
        "container removed by hand",
    ),
}


class Patients:
    """A deployed host for the tests of this file, until one of them fails: the next one gets another."""

    def __init__(self, first_run):
        self._first_run, self._host, self._life = first_run, None, contextlib.ExitStack()

    def host(self):
        if self._host is None:
            self._host = self._life.enter_context(deployed(self._first_run))
        return self._host

    def dismiss(self):
        self._host = None
        self._life.close()


@pytest.fixture(scope="module")
def patients(first_run):
    patients = Patients(first_run)
    yield patients
    patients.dismiss()


@pytest.fixture
def deployed_host(patients, request):
    file = request.node.parent
    if file.stash.get(FAILED, False):
        patients.dismiss()
    file.stash[FAILED] = False
    return patients.host()


def doctor(host):
    """The rows. Time is not what is tested here: a busy machine gets more of it."""
    return host.salt("immich.doctor", "timeout=40")


def failed(rows):
    return [row for row in rows if row["result"] == "failed"]


def first(rows, part):
    """The first row that is of that kind which the fault is: nothing failed before it."""
    return next(row for row in rows if row["result"] == "failed" or (row["part"], row["result"]) == (part, "warning"))


def follow(host, advice):
    """Do what a row says: run its command, or put its line into the pillar and apply."""
    if advice.startswith("immich:"):
        path, value = advice.split(": ", 1)
        change = yaml.safe_load(value)
        for key in reversed(path.split(":")[1:]):
            change = {key: change}
        host.pillar(merged(PILLAR, change))
        host.apply()
        return
    for command in advice.split(" && "):
        if command.startswith("salt-call "):
            host.salt_call(*shlex.split(command)[1:])
        else:
            host.run(command, timeout=300)


def left(rows):
    """What the rows say that are not in order."""
    return json.dumps([row["seen"] for row in rows if row["result"] != "ok"])


def mend(host, rows):
    """Follow the first advice again and again, as people would, until nothing is failed; return the last rows."""
    for _ in range(5):
        if not failed(rows):
            return rows
        follow(host, failed(rows)[0]["remedy"])
        # What exited a few times is started again after a pause that grows.
        host.wait_for(f"curl -sf {PING} || ! systemctl is-active immich", 300)
        rows = doctor(host)
    raise AssertionError(failed(rows))


CASES = [
    pytest.param(each, id=name, marks=() if each.quick else pytest.mark.long)
    for name, each in FAULTS.items()
    if name not in itertools.chain(*TOGETHER.values())
]


@pytest.mark.parametrize("fault", CASES)
def test_fault_is_named_first_and_mended(deployed_host, fault):
    host = deployed_host
    # Whatever the fault before has done to the containers is over.
    host.wait_for(f"systemctl is-active immich && curl -sf {PING}", 300)
    if fault.pillar:
        host.pillar(pillar_with(**fault.pillar))
    host.run(fault.cause)
    try:
        rows = doctor(host)
        found = first(rows, fault.part)
        assert found["part"] == fault.part, rows
        assert fault.words in found["seen"], found
        assert found["remedy"], found
        if fault.mends:
            follow(host, found["remedy"])
            rows = mend(host, doctor(host))
            assert fault.words not in left(rows)
    finally:
        host.run(fault.undo or "true")
        host.pillar(PILLAR)
        if fault.mends and (fault.undo or fault.pillar):
            host.apply()


@pytest.mark.long
@pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)
def test_faults_beside_each_other_are_all_named_and_mended(deployed_host, names):
    host, faults = deployed_host, [FAULTS[name] for name in names]
    host.pillar(pillar_with(**{key: value for fault in faults for key, value in (fault.pillar or {}).items()}))
    for fault in faults:
        host.run(fault.cause)
    advice = []
    try:
        rows = doctor(host)
        for fault in faults:
            found = [row for row in rows if row["part"] == fault.part and fault.words in row["seen"]]
            assert found, (fault.part, fault.words, rows)
            assert found[0]["result"] != "ok", found
            assert found[0]["remedy"], found
            advice += [found[0]["remedy"]] if fault.mends else []
    finally:
        host.run("; ".join(fault.undo for fault in faults if fault.undo) or "true")
    for each in dict.fromkeys(advice):
        follow(host, each)
    rows = mend(host, doctor(host))
    assert [fault.words for fault in faults if fault.words in left(rows)] == []
    host.pillar(PILLAR)
    host.apply()


def test_of_a_deployed_host_with_every_printable_character_in_its_passwords_nothing_is_wrong(host):
    # For a minute after a container has exited, as in another test, the unit says so.
    host.wait_for("systemctl show --property=StatusText --value immich | grep -q ^Serving", 300)
    rows = doctor(host)
    assert failed(rows) == []
    assert {row["part"] for row in rows if row["result"] == "warning"} <= {"exposure", "backups", "disk space"}
    assert not any(password in json.dumps(rows) for password in PASSWORDS.values())
    table = host.out("salt-call --local immich.doctor timeout=40")
    assert "way to Valkey           ok" in table
    assert "0 failed" in table


def test_while_a_restore_is_under_way_nothing_is_to_be_started(host):
    """The lock as a restore holds it, with Immich stopped; the restore itself is told of in test_restore.py."""
    host.run(
        "systemctl stop immich; cd /usr/local/lib/immich-formula; setsid python3 -B -c "
        "'from immich_io import lock\nimport time\nwith lock.held(\"restore\"): time.sleep(600)' >/dev/null 2>&1 &"
        " echo $! >/run/restore-of-the-test; until grep -q restore /run/immich-formula/lock; do sleep 0.1; done"
    )
    try:
        rows = doctor(host)
    finally:
        host.run("kill $(cat /run/restore-of-the-test)")
        host.wait_for("! kill -0 $(cat /run/restore-of-the-test)")
    assert failed(rows) == []
    (stopped,) = [row for row in rows if row["part"] == "immich.service"]
    assert "restore under way since" in stopped["seen"]
    assert "do not start Immich" in stopped["remedy"]
    assert not any("systemctl" in row["remedy"] for row in rows)


def test_it_changes_nothing(host):
    kept = "ip address | sed 's/tentative //'; nft list ruleset | sed s/counter.*//"
    state = f"{kept}; podman ps --no-trunc --format '{{{{.ID}}}} {{{{.Image}}}}'"
    written = "find /etc /opt /srv/immich /usr/local -newer /run/test/before -type f"
    host.write("/run/test/before", "")
    before = host.out(state)
    doctor(host)
    assert host.out(state) == before
    assert host.out(written) == ""


@pytest.mark.long
def test_podman_that_hangs(host):
    """A script takes Podman's place and hangs for the doctor alone: what makes the real one hang is beyond reach."""
    # At no moment is there none: Immich's own program asks it too.
    host.write("/usr/bin/podman.hangs", HANGING_PODMAN, mode="0755")
    host.run("ln /usr/bin/podman /usr/bin/podman.away && mv /usr/bin/podman.hangs /usr/bin/podman")
    try:
        rows = host.salt("immich.doctor")
    finally:
        host.run("mv /usr/bin/podman.away /usr/bin/podman")
    # What is asked of Podman for the pillar stands above. On a busy host silence is a warning.
    silent = [row["part"] for row in rows if re.search("no answer within|took longer than", row["seen"])]
    assert next(part for part in silent if part != "pillar") == "Podman", rows
    host.wait_for("! pgrep -f [a]sked-by-the-doctor")


@pytest.mark.long
def test_everything_is_broken_at_once(host):
    """The last test of this file: nothing is mended."""
    host.run(
        "systemctl stop immich postgresql@17-main valkey-server immich-gateway; nft delete table inet immich",
        check=False,
    )
    host.run("/opt/salt/bin/pip uninstall -qy redis psycopg2-binary jsonschema; echo '{{ x' >/srv/pillar/immich.sls")
    done = host.run("salt-call --local --log-level=quiet immich.doctor timeout=40", check=False)
    assert done.returncode == 1
    assert "begin with Python libraries" in done.stdout
    for part in ("pillar", "PostgreSQL service", "Valkey service", "immich.service", "Immich"):
        assert any(
            line.split("  ")[2:] and line.strip().startswith(part) and "failed" in line
            for line in done.stdout.splitlines()
        ), part
    host.run(
        "mv /usr/bin/podman /usr/bin/podman.away; find /var/cache/salt/minion/extmods -name 'immich_[agpsv]*' -delete"
    )
    rows = doctor(host)
    assert [row["part"] for row in failed(rows)][:3] == ["Python libraries", "modules of the formula", "pillar"]
