"""An apply killed with -9 at several points, and completed by a plain re-run."""

import pytest

from tests.scenarios.conftest import changed, get, post

PSQL = "runuser -u postgres -- psql -At"
# What is there at the moment at which everything dies.
POINTS = {
    "address held": "ip -4 address show dev lo | grep -q 10.88.0.1",
    "image being pulled": "pgrep -f '[p]odman pull' >/dev/null",
    "listen address written": "grep -q 10.88.0.1 /var/lib/postgresql/17/main/postgresql.auto.conf",
    "role made": f"{PSQL} -c \"select 1 from pg_roles where rolname = 'immich'\" | grep -q 1",
    "database made": f"{PSQL} -c \"select 1 from pg_database where datname = 'immich'\" | grep -q 1",
    "pg_hba.conf written": "grep -q ^host.*immich /etc/postgresql/17/main/pg_hba.conf",
    "ACL file written": "test -s /etc/valkey/users.acl",
    "valkey.conf written": "grep -q ^aclfile /etc/valkey/valkey.conf",
    "password of the formula's login written": "test -e /etc/immich-formula/valkey.password",
    "secret written": "test -e /opt/podman/immich/secrets/db_password",
    "unit written": "test -e /etc/systemd/system/immich.service",
    "container being made": "podman container exists immich-server",
}
KILL_AT = """
setsid salt-call --local state.apply immich >/dev/null 2>&1 &
pid=$!
for i in $(seq 10000); do
  if {condition}; then pkill -9 -g $pid || kill -9 $pid; wait $pid; echo killed; exit; fi
  kill -0 $pid 2>/dev/null || {{ echo finished; exit; }}
  sleep 0.05
done
"""


# Of these, whoever looks now and then misses none, and each lies behind the one before.
CUTS = ("address held", "ACL file written", "secret written", "container being made")


@pytest.mark.long
def test_killed_at_each_point_in_turn_then_completed(ready_host):
    """One host, killed further and further on: each run has to take up what the one before left."""
    killed = [name for name, there in POINTS.items() if ready_host.out(KILL_AT.format(condition=there)) == "killed"]
    assert len(killed) >= len(POINTS) - 2, killed
    ready_host.apply()
    assert changed(ready_host.apply()) == {}
    assert post(ready_host, "/standin/jobs")["denied"] == []


@pytest.mark.long
def test_power_cut_at_points_in_turn_then_completed(ready_host):
    """The whole host dies, with what was not yet on disk."""
    for point in CUTS:
        ready_host.run("setsid salt-call --local state.apply immich >/dev/null 2>&1 &")
        ready_host.wait_for(POINTS[point], 600)
        ready_host.crash()
        ready_host.boot()
    ready_host.apply()
    assert changed(ready_host.apply()) == {}
    assert get(ready_host, "/api/server/ping") == {"res": "pong"}
