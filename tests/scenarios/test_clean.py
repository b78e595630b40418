"""`immich.clean` removes what the formula made and keeps what a person would miss."""

import re

import pytest

from tests.scenarios.conftest import PASSWORDS, changed, get, pillar_with, post
from tests.scenarios.test_backup import listed

PSQL = "runuser -u postgres -- psql -Atc"


def test_clean_keeps_library_and_database_and_closes_nothing_open(host):
    post(host, "/standin/assets")
    # The server notes its version some seconds after it serves.
    host.wait_for("runuser -u postgres -- psql -At immich -c 'SELECT 1 FROM version_history' | grep -q 1")
    before = get(host, "/standin/state")
    backup = host.salt("immich.backup")
    planned = {state["id"] for state in host.apply("immich.clean", test=True) if state["result"] is None}
    assert get(host, "/api/server/ping") == {"res": "pong"}
    done = changed(host.apply("immich.clean"))
    assert set(done) == planned
    assert changed(host.apply("immich.clean")) == {}

    gone = [
        "systemctl cat immich.service",
        "systemctl cat immich-gateway.service",
        "systemctl cat immich-backup.timer immich-backup.service",
        "ls -d /usr/local/lib/immich-formula/* /etc/tmpfiles.d/immich-formula.conf",
        "test -e /etc/immich-formula/backup.json",
        "test -e /opt/podman/immich",
        "test -e /etc/immich-formula/valkey.password",
        "ls /etc/systemd/system/valkey-server.service.d/immich-stop.conf",
        "systemctl show --property=TimeoutStopUSec valkey-server | grep -v infinity",
        "podman network exists immich",
        "nft list table inet immich",
        "ip address show dev lo | grep 10.88.0.1",
        "grep -q immich /etc/postgresql/17/main/pg_hba.conf",
        "grep -q 'user immich' /etc/valkey/users.acl",
        "podman ps -a --format '{{.Names}}' | grep immich",
    ]
    assert [command for command in gone if host.run(command, check=False).returncode == 0] == []
    assert host.out("systemctl is-active postgresql@17-main valkey-server").split() == ["active", "active"]
    assert "NOAUTH" in host.out("valkey-cli ping")
    host.write("/run/test/password", PASSWORDS["admin"], mode="0600")
    login = 'REDISCLI_AUTH="$(cat /run/test/password; printf x)"; export REDISCLI_AUTH="${REDISCLI_AUTH%x}"'
    assert host.out(f"{login}; valkey-cli ping") == "PONG"
    assert "10.88.0.1" not in host.out(f"{login}; valkey-cli config get bind")
    assert host.out(f"{login}; valkey-cli config get maxmemory").split() == ["maxmemory", "0"]
    assert host.out(f"{PSQL} \"select count(*) from pg_database where datname = 'immich'\"") == "1"
    host.run("systemctl restart valkey-server postgresql@17-main")
    assert "NOAUTH" in host.out("valkey-cli ping")

    host.apply()
    assert host.salt("immich.backups", "verify=True") == [{**listed(backup), "verified": "ok"}]
    assert get(host, "/standin/state") == before
    assert changed(host.apply()) == {}


@pytest.mark.long
def test_clean_deletes_data_only_when_told_by_name(own_host):
    host = own_host
    doomed = ("/srv/immich/upload", "/var/backups/immich")
    meant = {"delete_database": "immich", "delete_uploads": doomed[0], "delete_backups": doomed[1]}
    # Of roles that were narrowed since: what they no longer ask for is removed all the same.
    host.pillar(pillar_with(clean=meant, roles=["postgres"]))
    post(host, "/standin/assets")
    host.salt("immich.backup")
    plan = "\n".join(state["comment"] for state in host.apply("immich.clean", test=True))
    for path in doomed:
        assert re.search(rf"{path} would be deleted, with [1-9]\d* files of [\d.]+ MiB", plan), plan
    assert re.search(r"Database immich would be dropped, with \d+ \wB of data", plan), plan
    host.run(f"test -d {doomed[0]} && test -d {doomed[1]}")
    host.apply("immich.clean")
    assert host.run(f"test -e {doomed[0]} || test -e {doomed[1]}", check=False).returncode != 0
    assert host.run("test -d /srv/immich/model-cache", check=False).returncode == 0
    left = [
        "systemctl cat immich.service",
        "test -e /etc/immich-gateway.nft",
        "podman network exists immich",
        "grep -q 'user immich' /etc/valkey/users.acl",
    ]
    assert [command for command in left if host.run(command, check=False).returncode == 0] == []
    # Users go with what they own.
    assert host.out("getent passwd immich-server immich-ml | cut -d : -f 1", check=False) == "immich-ml"
    assert host.run("getent group immich-server", check=False).stdout == ""
    assert host.out(f"{PSQL} \"select count(*) from pg_database where datname = 'immich'\"") == "0"


HOLDING = """
import sys, time
sys.path.insert(0, "/srv/formula/_utils")
from immich_io import lock
with lock.held("restore"):
    time.sleep(86400)
"""


@pytest.mark.long
def test_nothing_is_removed_beneath_a_restore(host):
    host.run(f"systemd-run --quiet --unit=t-restore /usr/bin/python3 -c '{HOLDING}'")
    try:
        host.wait_for("grep -q restore /run/immich-formula/lock")
        for component in COMPONENTS:
            for test in (True, False):
                states = host.apply(f"{component}clean", test=test, check=False)
                assert states[0]["result"] is False, component
                assert "Restore under way since" in states[0]["comment"], component
                # A dry run tells beside that what would go.
                assert test or changed(states) == {}, component
        # Nor is Immich started on a database that is about to be replaced.
        host.run("systemctl stop immich")
        failed = [state for state in host.apply(check=False) if state["result"] is False]
        assert "Restore under way since" in failed[0]["comment"]
        assert host.out("systemctl is-active immich", check=False) == "inactive"
    finally:
        host.run("systemctl stop t-restore")
    host.apply()
    assert get(host, "/api/server/ping") == {"res": "pong"}


COMPONENTS = (
    "immich.",
    *(f"immich.{name}." for name in ("backup", "app", "valkey", "postgres", "gateway", "podman", "programs")),
)


@pytest.mark.long
@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_is_removed_as_planned_and_comes_back(host, component):
    planned = {state["id"] for state in host.apply(f"{component}clean", test=True) if state["result"] is None}
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert set(changed(host.apply(f"{component}clean"))) == planned != set()
    assert changed(host.apply(f"{component}clean")) == {}
    host.apply()
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert changed(host.apply()) == {}


@pytest.mark.long
def test_components_clean_alone(host):
    assert changed(host.apply("immich.app.clean"))
    assert "inactive" in host.out("systemctl is-active immich", check=False)
    assert host.out(f"{PSQL} \"select count(*) from pg_hba_file_rules where 'immich' = any(database)\"") == "1"
    host.apply("immich.app")
    assert get(host, "/api/server/ping") == {"res": "pong"}
