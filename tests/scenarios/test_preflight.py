"""What stands in Immich's way on a host is found in one check, before anything changes, with the lines that cure it."""

import pytest

from tests.host.machine import Host
from tests.scenarios.conftest import PASSWORDS, PILLAR, changed, pillar_with

LISTEN = "setsid python3 -m http.server --bind 127.0.0.1 {port} >/dev/null 2>&1 &"
CONFIGURATION = "/etc/valkey/valkey.conf"


@pytest.fixture(scope="module")
def occupied():
    """A host with Debian's PostgreSQL and Valkey and the formula's modules, on which nothing was applied."""
    with Host("host") as host:
        host.salt("saltutil.sync_all")
        yield host


def refusal(host, sls="immich", **changes):
    """What one red state says, with nothing else run: of a plan, and of the apply after it."""
    host.pillar(pillar_with(**changes))
    texts = set()
    for test in (True, False):
        states = host.apply(sls, test=test, check=False)
        assert changed(states) == {}
        assert [state["id"] for state in states] == ["The pillar is valid", "This host is ready for Immich"], states
        assert [state["result"] for state in states] == [True, False]
        texts.add(states[1]["comment"])
    (text,) = texts
    assert not any(password in text for password in PASSWORDS.values())
    return text


def taken(host, port):
    """Let another program listen on a port."""
    host.run(LISTEN.format(port=port))
    host.wait_for(f"curl -s http://127.0.0.1:{port}/ >/dev/null")


def test_a_valkey_with_a_password_that_the_pillar_does_not_know(occupied):
    occupied.run(f"echo 'requirepass of-another-service' >>{CONFIGURATION}; systemctl restart valkey-server")
    assert "immich:valkey:admin_password: this host's Valkey has another password" in refusal(occupied)
    occupied.pillar(pillar_with(valkey={"admin_password": "of-another-service"}))
    occupied.apply("immich.valkey")
    occupied.pillar(PILLAR)
    assert list(changed(occupied.apply("immich.valkey"))) == ["The Valkey users are as listed"]


def test_a_port_that_valkey_cannot_have(occupied):
    occupied.run("systemctl stop valkey-server")
    taken(occupied, 6379)
    text = refusal(occupied, "immich.valkey")
    assert "immich:valkey:port: 6379 is taken by python3" in text
    assert "`immich:valkey:port: 6380`" in text


def test_a_port_that_postgresql_cannot_have(occupied):
    occupied.run("systemctl stop postgresql@17-main")
    taken(occupied, 5432)
    text = refusal(occupied, "immich.postgres")
    assert "immich:postgres:port: 5432 is taken by python3" in text
    assert "`immich:postgres:port: 5433`" in text
    # The port belongs to somebody else, the cluster to another one.
    occupied.run("pg_conftool 17 main set port 5433; systemctl start postgresql@17-main")
    assert "cluster 17/main is at port 5433, not at 5432. Next step: write `immich:postgres:port: 5433`" in refusal(
        occupied
    )
    occupied.run("pg_dropcluster --stop 17 main; pg_createcluster 17 other --port 5433 --start")
    text = refusal(occupied)
    assert "immich:lookup:postgres:unit: PostgreSQL has no cluster 17/main on this host, only 17/other" in text
    assert "`immich:lookup:postgres:unit: postgresql@17-other` and `immich:postgres:port: 5433`" in text


def test_everything_in_the_way_is_named_at_once(occupied):
    taken(occupied, 2283)
    text = refusal(occupied, bind_address=["127.0.0.1", "10.8.0.1"])
    assert [line.partition(": ")[0] for line in text.splitlines()[1:]] == [
        "immich:lookup:postgres:unit",
        "immich:valkey:port",
        "immich:bind_address",
        "immich:port",
    ]
    occupied.run("pkill -f '[h]ttp.server --bind 127.0.0.1 2283'")


def test_the_lines_that_it_names_cure_it(occupied):
    """PostgreSQL's other cluster is used, and Valkey, which does not serve, gets another port."""
    lookup = {"postgres": {"unit": "postgresql@17-other"}}
    cured = {"postgres": {"port": 5433}, "valkey": {"port": 6380}, "lookup": lookup}
    occupied.pillar(pillar_with(**cured))
    for sls in ("immich.postgres", "immich.valkey"):
        occupied.apply(sls)
        assert changed(occupied.apply(sls)) == {}
    assert "immich" in occupied.out("runuser -u postgres -- psql -p 5433 -Atc 'SELECT datname FROM pg_database'")
    assert "NOAUTH" in occupied.out("valkey-cli -p 6380 PING 2>&1")
    # From now on others use that Valkey: it is not moved by a pillar.
    cured["valkey"] = {"port": 6381}
    assert "this host's Valkey is at port 6380. Next step: write `immich:valkey:port: 6380`" in refusal(
        occupied, **cured
    )


def test_a_host_of_postgresql_alone_needs_that_alone():
    """It has never had another role, so no gateway's address either. Immich's port is taken: none of its business."""
    with Host("postgres") as host:
        taken(host, 2283)
        host.pillar({"roles": ["postgres"], "postgres": PILLAR["postgres"]})
        host.apply()
        again = host.apply()
        assert changed(again) == {}
        assert (again[-1]["id"], again[-1]["comment"]) == ("Immich is as declared", "Everything is as declared")
        listens = host.out("runuser -u postgres -- psql -Atc 'SHOW listen_addresses'")
        assert "10.88.0.1" not in listens
        assert "immich" not in host.out("cat /etc/postgresql/17/main/pg_hba.conf")
        host.salt("immich.backup")
        rows = host.salt("immich.doctor", "timeout=60")
        assert [row for row in rows if row["result"] == "failed"] == []
        assert {"PostgreSQL", "database", "backups"} <= {row["part"] for row in rows}
        for test in (True, False):
            states = host.apply("immich.app", test=test, check=False)
            assert changed(states) == {}
            failed = [state for state in states if state["result"] is False]
            assert [state["id"] for state in failed] == ["The roles of this host include immich.app"]
            assert "immich:roles: this host is postgres, and has no component app" in failed[0]["comment"]
