"""What Immich can't do to its neighbours on the shared services, and who can't read its secrets."""

import json
import shlex

import pytest

from tests.scenarios.conftest import PASSWORDS, PRINTABLE, changed, pillar_with, post

GATEWAY = "10.88.0.1"
# The promises of the role's README, and more.
DENIED = """
flushdb; flushall; swapdb 0 1; keys *; scan 0; randomkey; dbsize; config get *; monitor; debug sleep 0; shutdown
acl list; migrate h 1 k 0 1; restore immich_bull:a 0 x; sort immich_bull:a; move immich_bull:a 1; script flush
copy immich_bull:a immich_bull:b; function list; pubsub channels; client tracking on; client kill addr 1:1
client pause 1
get other:a; set other:a 1; publish other 1; subscribe other; psubscribe *; blpop other:a 0; eval x 1 other:a
"""
LOGIN = {"username": "immich-formula", "password_file": "/etc/immich-formula/valkey.password"}


def valkey(host, command, user="immich-formula"):
    """valkey-cli as the formula's own login; the password goes through the environment of that process alone."""
    return host.out(f"REDISCLI_AUTH=$(cat /etc/immich-formula/valkey.password) valkey-cli --user {user} {command}")


@pytest.mark.parametrize("command", [line.strip() for line in DENIED.replace("\n", ";").split(";") if line.strip()])
def test_denied(deployed_host, command):
    answer = valkey(deployed_host, f"ACL DRYRUN immich {command.replace('*', chr(39) + '*' + chr(39))}")
    assert "no permissions" in answer, answer


def test_role_and_database_are_as_promised(deployed_host):
    row = deployed_host.out(
        'runuser -u postgres -- psql -Atc "select rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, '
        "rolbypassrls, rolpassword like 'SCRAM-SHA-256%' from pg_authid where rolname = 'immich'\""
    )
    assert row == "t|f|f|f|f|f|t"
    row = deployed_host.out(
        "runuser -u postgres -- psql -Atc \"select pg_get_userbyid(datdba), has_database_privilege('public', oid, "
        "'connect') from pg_database where datname = 'immich'\""
    )
    assert row == "immich|f"
    rules = deployed_host.out(
        'runuser -u postgres -- psql -Atc "select type, database, user_name, address, auth_method, error '
        "from pg_hba_file_rules where 'immich' = any(database)\""
    )
    assert rules.splitlines() == ["host|{immich}|{immich}|172.20.0.0|scram-sha-256|"]


def test_passwords_of_every_printable_character_arrive(deployed_host):
    read = deployed_host.run("podman exec immich-server cat /run/secrets/db_password").stdout
    assert read == PASSWORDS["postgres"]
    read = deployed_host.run("podman exec immich-server cat /run/secrets/redis_password").stdout
    assert read == PASSWORDS["valkey"]
    # Over the network, with the password from the pillar, as a client on the Immich network does.
    for user, password in (("immich", PASSWORDS["valkey"]), ("default", PASSWORDS["admin"])):
        deployed_host.write("/run/test/password", password, mode="0600")
        answer = deployed_host.out(
            f'REDISCLI_AUTH="$(cat /run/test/password; printf x)"; export REDISCLI_AUTH="${{REDISCLI_AUTH%x}}"; '
            f"valkey-cli --user {user} acl whoami"
        )
        assert user in answer or "NOPERM" in answer


def test_no_secret_where_somebody_can_read_it(deployed_host):
    host = deployed_host
    debug = "-l debug --log-file=/root/debug.log --log-file-level=debug"
    host.run("salt-call --local " + debug + " state.apply immich >/root/out 2>&1")
    places = {
        "compose file": host.read("/opt/podman/immich/docker-compose.yml"),
        "inspect": host.out("podman inspect immich-server immich-machine-learning"),
        "processes": host.out("for i in 1 2 3; do cat /proc/[0-9]*/cmdline | tr '\\0' ' '; done"),
        "journal": host.out("journalctl --no-pager"),
        "debug log and output": host.out("cat /root/debug.log /root/out"),
        "log": host.out("cat /var/log/salt/* 2>/dev/null; true"),
        "postgresql log": host.out("cat /var/log/postgresql/*"),
        "valkey log and users": host.out("cat /var/log/valkey/* /etc/valkey/users.acl"),
    }
    own = host.read("/etc/immich-formula/valkey.password")
    for place, text in places.items():
        for password in (*PASSWORDS.values(), own):
            pieces = {password, json.dumps(password)[1:-1], shlex.quote(password), password[20:40]}
            assert not [piece for piece in pieces if piece in text], place
    readable = host.out(
        "find / -xdev -perm -o=r -type f -size -2M ! -path '/proc/*' ! -path '/sys/*' ! -path '/srv/formula/*' "
        "-newer /etc/hostname -print0 | xargs -0 grep -lF -e " + shlex.quote(PRINTABLE[20:40]) + " 2>/dev/null; true"
    )
    assert readable == ""


def test_secret_files_belong_to_the_containers_user(deployed_host):
    modes = deployed_host.out("stat -c '%a %u %n' /opt/podman/immich/secrets /opt/podman/immich/secrets/*")
    assert modes.splitlines() == [
        "700 0 /opt/podman/immich/secrets",
        "400 60883 /opt/podman/immich/secrets/db_password",
        "400 60883 /opt/podman/immich/secrets/redis_password",
    ]
    assert deployed_host.out("stat -c '%a %U' /etc/immich-formula/valkey.password") == "600 root"


def test_containers_have_no_capability_and_no_new_privileges(deployed_host):
    for container in ("immich-server", "immich-machine-learning"):
        status = deployed_host.out(f"podman exec {container} cat /proc/1/status")
        lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(lines["CapEff"], 16) == 0
        assert int(lines["CapBnd"], 16) == 0
        assert lines["NoNewPrivs"] == "1"
        assert lines["Uid"].split() == [{"immich-server": "60883"}.get(container, "60884")] * 4


def test_a_second_tenant_is_out_of_reach(host):
    """Another service on the same PostgreSQL and Valkey, whom Immich's credentials must not touch."""
    host.run(
        "runuser -u postgres -- psql -qc \"create role tenant login password 'tenant-password'\" "
        "-c 'create database tenant owner tenant' && "
        "runuser -u postgres -- psql -qd tenant -c 'create table t (x int)' -c 'insert into t values (42)'"
    )
    host.run("podman network create --subnet 172.30.0.0/24 tenant")
    valkey(host, "ACL SETUSER tenant on '>tenant-password' '~tenant:*' '&tenant:*' +@all")
    valkey(host, "ACL SAVE")
    tenant = "valkey-cli --no-auth-warning --user tenant --pass tenant-password"
    host.run(f"{tenant} set tenant:a 42")
    before = {
        "users": valkey(host, "ACL LIST | grep -w 'user tenant'"),
        "networks": host.out("podman network inspect tenant"),
        "roles": host.out("runuser -u postgres -- psql -Atc \"select * from pg_authid where rolname = 'tenant'\""),
    }
    # A change that touches users, role and network component: foreign things stay as they were.
    host.pillar(pillar_with(valkey={"acl_users": [{"name": "third", "password": "p" * 12, "rules": "~third:* +get"}]}))
    assert changed(host.apply())
    assert before == {
        "users": valkey(host, "ACL LIST | grep -w 'user tenant'"),
        "networks": host.out("podman network inspect tenant"),
        "roles": host.out("runuser -u postgres -- psql -Atc \"select * from pg_authid where rolname = 'tenant'\""),
    }
    for command in ("get tenant:a", "set tenant:a 1", "del tenant:a", "publish tenant:x 1", "subscribe tenant:x",
                    "keys '*'", "scan 0", "flushall", "flushdb", "pubsub channels"):  # fmt: skip
        assert "no permissions" in valkey(host, f"ACL DRYRUN immich {command}"), command
    host.write("/run/test/password", PASSWORDS["postgres"], mode="0600")
    for database in ("tenant", "postgres"):
        refused = host.run(
            'export PGPASSWORD="$(cat /run/test/password; printf x)"; export PGPASSWORD="${PGPASSWORD%x}"; '
            f"nsenter -t $(podman inspect --format '{{{{.State.Pid}}}}' immich-server) -n "
            f"psql -h {GATEWAY} -U immich -d {database} -Atc 'select 1'",
            check=False,
        )
        assert refused.returncode != 0
        assert "no pg_hba.conf entry" in refused.stderr
    allowed = host.out(
        'export PGPASSWORD="$(cat /run/test/password; printf x)"; export PGPASSWORD="${PGPASSWORD%x}"; '
        "nsenter -t $(podman inspect --format '{{.State.Pid}}' immich-server) -n "
        f"psql -h {GATEWAY} -U immich -d immich -Atc 'select 1'"
    )
    assert allowed == "1"
    assert host.out(f"{tenant} get tenant:a") == "42"
    assert post(host, "/standin/jobs")["denied"] == []
