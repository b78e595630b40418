"""Passwords changed by pillar while clients are at work: nobody is refused, and the old ones are worth nothing then."""

import pytest

from tests.scenarios.conftest import PASSWORDS, PRINTABLE, changed, pillar_with, post
from tests.scenarios.test_interrupted import KILL_AT
from tests.scenarios.test_service import ids

NEW = {
    "postgres": PRINTABLE[7:] + PRINTABLE[:7],
    "valkey": PRINTABLE[9:] + PRINTABLE[:9],
    "admin": PRINTABLE[11:] + PRINTABLE[:11],
}
# Jobs through all queues, assets with their rows, and whatever else a page asks for, over and over.
LOAD = """
setsid sh -c '
  while [ ! -e /tmp/enough ]; do
    curl -s -X POST http://127.0.0.1:2283/standin/jobs >/dev/null
    curl -s -X POST http://127.0.0.1:2283/standin/assets >/dev/null
    curl -s http://127.0.0.1:2283/standin/state >/dev/null
  done' >/dev/null 2>&1 &
"""
VALKEY = "valkey-cli --no-auth-warning --user immich-formula --pass $(cat /etc/immich-formula/valkey.password)"
REFUSALS = "journalctl -u immich | grep -cE 'WRONGPASS|NOAUTH|NOPERM|authentication failed|no password' || true"


def pillar(*which, new=NEW):
    """The scenarios' pillar with some of the passwords changed."""
    passwords = {name: new[name] if name in which else PASSWORDS[name] for name in PASSWORDS}
    return pillar_with(
        postgres={"password": passwords["postgres"]},
        valkey={"password": passwords["valkey"], "admin_password": passwords["admin"]},
    )


def refusals(host):
    """How often each service has refused somebody, by its own account."""
    info = host.out(f"{VALKEY} INFO | tr -d '\\r'")
    counted = {
        line.split(":")[0]: line.split(":", 1)[1]
        for line in info.splitlines()
        if line.startswith(("acl_access_denied", "errorstat_NOAUTH", "errorstat_WRONGPASS", "errorstat_NOPERM"))
    }
    return {
        **counted,
        "acl log": host.out(f"{VALKEY} ACL LOG 128"),
        "postgresql": host.out("cat /var/log/postgresql/*.log | grep -c 'authentication failed' || true"),
        "immich": host.out(REFUSALS),
    }


def logs_in(host, service, password):
    """Whether a service lets somebody in with a password, which no argument list holds."""
    user = {"valkey": "immich", "admin": "default"}.get(service)
    ask = (
        f"valkey-cli --user {user} PING | grep -q PONG" if user else "psql -h 127.0.0.1 -U immich immich -c 'SELECT 1'"
    )
    # The role's own subnet is not the host's; the server's stock record for 127.0.0.1 asks for the same proof.
    script = f'IFS= read -r password; export PGPASSWORD="$password" REDISCLI_AUTH="$password"; {ask} >/dev/null 2>&1'
    return host.run(script, check=False, stdin=f"{password}\n").returncode == 0


def assert_changed(host, which):
    for service in PASSWORDS:
        assert logs_in(host, service, NEW[service]) is (service in which), service
        assert logs_in(host, service, PASSWORDS[service]) is (service not in which), service
    jobs = post(host, "/standin/jobs")
    assert (jobs["denied"], jobs["errors"]) == ([], [])


def rotate(host, *which):
    host.run(f"rm -f /tmp/enough; {LOAD}")
    host.pillar(pillar(*which))
    planned = host.apply(test=True)
    host.run(f"{VALKEY} ACL LOG RESET")  # what a test before was refused there gets older
    before = refusals(host)
    done = host.apply()
    after = refusals(host)
    host.run("touch /tmp/enough")
    assert after == before
    assert {name: set(changes) for name, changes in changed(planned).items()} == {
        name: set(changes) for name, changes in changed(done).items()
    }
    assert changed(host.apply()) == {}
    assert_changed(host, which)


def test_all_at_once_under_load(own_host):
    rotate(own_host, *PASSWORDS)


@pytest.mark.long
def test_each_in_turn_under_load(own_host):
    """A container is recreated only for what it reads, and all while PostgreSQL's role, which has one password, has no
    other."""
    before = ids(own_host)
    rotate(own_host, "admin")
    assert ids(own_host) == before
    rotate(own_host, "admin", "valkey")
    after = ids(own_host)
    assert after["immich-machine-learning"] == before["immich-machine-learning"]
    assert after["immich-server"] != before["immich-server"]
    rotate(own_host, "admin", "valkey", "postgres")
    assert not set(ids(own_host).values()) & set(after.values())


# What is there at the moment at which the run is killed.
CREATED = "$(podman inspect --format '{{.Created.Unix}}' immich-server)"
MADE = f"test {CREATED} -ge $(stat -c %Y /tmp/began)"
POINTS = {
    # The old container is gone, or the new one is there already: between the two are moments.
    "stopped": f"! podman container exists immich-server || {MADE}",
    "two passwords in Valkey": "grep -qE '^user immich .*#[0-9a-f]{64} #[0-9a-f]{64} ' /etc/valkey/users.acl",
    "secrets written": "test /opt/podman/immich/secrets/redis_password -nt /tmp/began",
    "containers made": f"podman container exists immich-server && {MADE}",
}


@pytest.mark.long
def test_killed_at_each_point_in_turn_then_completed(own_host):
    host, before = own_host, refusals(own_host)
    for number, (point, there) in enumerate(POINTS.items(), 1):
        # Others each time, the last those of NEW: a kill that comes late has done the work of the next point too.
        turned = {name: password[number:] + password[:number] for name, password in NEW.items()}
        last = number == len(POINTS)
        host.pillar(pillar(*PASSWORDS, new=NEW if last else turned))
        assert host.out(f"touch /tmp/began; sleep 1.1; {KILL_AT.format(condition=there)}") == "killed", point
    host.apply()
    assert refusals(host) == before
    assert changed(host.apply()) == {}
    assert_changed(host, PASSWORDS)


@pytest.mark.long
def test_a_run_that_fails_in_between_says_that_immich_is_stopped(own_host):
    host = own_host
    psql = "runuser -u postgres -- psql -c"
    host.run(f"{psql} 'ALTER SYSTEM SET default_transaction_read_only = on' && {psql} 'SELECT pg_reload_conf()'")
    host.pillar(pillar("postgres"))
    failed = [state for state in host.apply(check=False) if state["result"] is False]
    assert "read-only transaction" in failed[0]["comment"]
    (told,) = [state["comment"] for state in failed if "immich.service is stopped" in state["comment"]]
    assert "apply again" in told
    host.run(f"{psql} 'ALTER SYSTEM RESET default_transaction_read_only'")
    host.run(f"{psql} 'SELECT pg_reload_conf()'")
    host.apply()
    assert changed(host.apply()) == {}
    assert_changed(host, ["postgres"])
