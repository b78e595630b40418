"""PostgreSQL and Valkey on another host, managed there: only role, database, extensions and ACL user are ours."""

import pytest

from tests.host.machine import Host, HostError
from tests.host.registry import use_registry
from tests.scenarios.conftest import PASSWORDS, changed, get, merged, pillar_with, post

pytestmark = pytest.mark.long

ADMIN = "admin-password with ' \" $ % : \\ \\: #"
SETUP = """
set -eu
cd /root
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={address} \
    -addext subjectAltName=IP:{address},DNS:services.lan -keyout key.pem -out cert.pem 2>/dev/null
install -o postgres -g postgres -m 600 key.pem cert.pem /var/lib/postgresql/
install -o valkey -g valkey -m 600 key.pem cert.pem /var/lib/valkey/
cat >/etc/postgresql/17/main/conf.d/lan.conf <<END
listen_addresses = '*'
ssl = on
ssl_cert_file = '/var/lib/postgresql/cert.pem'
ssl_key_file = '/var/lib/postgresql/key.pem'
END
echo 'hostssl all all {network} scram-sha-256' >>/etc/postgresql/17/main/pg_hba.conf
cat >>/etc/valkey/valkey.conf <<END
bind 0.0.0.0
protected-mode no
aclfile /etc/valkey/users.acl
tls-port 6380
tls-cert-file /var/lib/valkey/cert.pem
tls-key-file /var/lib/valkey/key.pem
tls-auth-clients no
END
install -o valkey -g valkey -m 640 /dev/stdin /etc/valkey/users.acl </dev/null
systemctl restart postgresql valkey-server
systemctl start postgresql@17-main
"""


@pytest.fixture
def services(lan):
    with Host("services", lan=lan) as host:
        host.run(SETUP.format(address=host.address, network=f"{host.lan_gateway}/24"))
        host.write("/run/test/sql", f"create role boss superuser login password $a${ADMIN}$a$;\n", mode="0644")
        host.run("runuser -u postgres -- psql -qf /run/test/sql")
        digest = host.out(f"printf %s {sh(ADMIN)} | sha256sum | cut -d' ' -f1")
        host.run(
            f"valkey-cli ACL SETUSER boss on '#{digest}' '~*' '&*' +@all && valkey-cli ACL SETUSER default off && true"
        )
        yield host


def sh(text):
    return "'" + text.replace("'", "'\\''") + "'"


def test_only_role_database_extensions_and_acl_user_are_managed(lan, services):
    with Host("host", lan=lan) as host:
        use_registry(host)
        host.write("/etc/ssl/services.pem", services.read("/root/cert.pem"))
        host.run("systemctl disable --now postgresql valkey-server")
        host.run(f"echo '{services.address} services.lan' >>/etc/hosts")
        admin = {"host": services.address, "password": ADMIN}
        changes = {
            "postgres": {
                "managed": False,
                "host": "services.lan",
                "sslmode": "verify-full",
                "sslrootcert": "/etc/ssl/services.pem",
                "admin": {**admin, "user": "boss", "sslmode": "verify-full", "sslrootcert": "/etc/ssl/services.pem"},
            },
            "valkey": {
                "managed": False,
                "host": services.address,
                "port": 6380,
                "tls": True,
                "tls_ca": "/etc/ssl/services.pem",
                "admin": {**admin, "username": "boss", "tls": True, "tls_ca": "/etc/ssl/services.pem"},
            },
            "server": {"hosts": {"services.lan": services.address}},
        }
        host.run("apt-get -qq remove postgresql-common postgresql-client-common >/dev/null")
        before = services.out("cat /etc/postgresql/17/main/pg_hba.conf /etc/valkey/valkey.conf")
        pids = services.out("systemctl show -p MainPID --value postgresql@17-main valkey-server")
        # An authority that has not signed the server's certificate is found before anything changes.
        other = "/etc/ssl/certs/ISRG_Root_X1.pem"
        wrong = {"postgres": {"sslrootcert": other}, "valkey": {"tls_ca": other}}
        host.pillar(pillar_with(**merged(changes, wrong)))
        states = host.apply(check=False)
        # The modules that find it.
        assert all("are synced" in name for name in changed(states)), states
        assert states[-1]["comment"].count("has a certificate that Immich would refuse") == 2
        host.pillar(pillar_with(**changes))
        host.apply()
        assert changed(host.apply()) == {}
        encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'immich'"
        assert of_sessions(host, services, encrypted) == "t"
        clients = services.out(f"REDISCLI_AUTH={sh(ADMIN)} valkey-cli --user boss CLIENT LIST").splitlines()
        immichs = [client for client in clients if " user=immich " in client]
        assert immichs
        assert all(f" laddr={services.address}:6380 " in client for client in immichs)
        # Neither the file that everybody can read nor Podman has a password.
        for text in (host.read("/opt/podman/immich/docker-compose.yml"), host.out("podman inspect immich-server")):
            assert "ioredis://" not in text
            assert PASSWORDS["valkey"] not in text
        assert get(host, "/api/server/ping") == {"res": "pong"}
        assert post(host, "/standin/jobs")["denied"] == []
        assert services.out("cat /etc/postgresql/17/main/pg_hba.conf /etc/valkey/valkey.conf") == before
        assert services.out("systemctl show -p MainPID --value postgresql@17-main valkey-server") == pids
        assert host.out("systemctl is-active postgresql@17-main valkey-server", check=False).split() == ["inactive"] * 2
        users = services.out(f"REDISCLI_AUTH={sh(ADMIN)} valkey-cli --user boss ACL USERS").splitlines()
        assert sorted(users) == ["boss", "default", "immich"]
        assert host.salt("immich.backup")["tables"] > 5
        assert [backup["verified"] for backup in host.salt("immich.backups", "verify=True")] == ["ok"]
        assert host.out("stat -c '%a %U' /etc/immich-formula/backup.pgpass /var/backups/immich").split() == [
            "600", "root", "700", "root",
        ]  # fmt: skip
        assert ADMIN not in host.out("journalctl -u immich-backup; cat /etc/immich-formula/backup.json")
        restores(host, services)


def of_sessions(host, services, query):
    """What a query about Immich's sessions says while there are any: it closes those that were idle for seconds."""
    for _ in range(30):
        get(host, "/standin/state")
        if said := services.out(f'runuser -u postgres -- psql -Atc "{query}"'):
            return said
    raise AssertionError("Immich has no session")


def restores(host, services):
    """Put the database of the other host back, and rehearse it: nothing but that database changes there."""
    databases = """runuser -u postgres -- psql -Atc "SELECT datname FROM pg_database WHERE datname LIKE 'immich%'" """
    post(host, "/standin/assets")
    name = host.salt("immich.backup")["name"]
    before = get(host, "/standin/state")["database"]["counts"]
    post(host, "/standin/assets")
    drill = host.salt("immich.restore_drill")
    assert drill["changed"]["public.asset"] == {"backup": 1, "now": 2}
    assert services.out(databases) == "immich"
    services.run("runuser -u postgres -- createdb immich_drill_20260101T000000Z")
    rows = host.salt("immich.doctor", "timeout=40")
    assert [row for row in rows if row["result"] == "failed"] == []
    left = next(row for row in rows if row["part"] == "leftovers")
    assert "immich_drill_20260101T000000Z" in left["seen"]
    assert {row["part"]: row["result"] for row in rows}["backups"] == "ok"
    done = host.salt("immich.restore", name, "confirm=host", "keep_old=True")
    assert get(host, "/standin/state")["database"]["counts"] == before
    kept = done["kept"]["database"]
    assert services.out(databases).split() == ["immich", kept]
    # What the doctor says of it, typed as it says.
    advice = next(row["remedy"] for row in host.salt("immich.doctor", "timeout=40") if kept in row["seen"])
    host.run(advice.partition(": ")[2])
    assert services.out(databases) == "immich"
    assert changed(host.apply()) == {}
    # A server that does not let the role in from here, as one whose records are narrower.
    services.run(r"sed -i 's/^hostssl all all/hostssl all boss/' /etc/postgresql/17/main/pg_hba.conf")
    services.run("systemctl reload postgresql@17-main")
    with pytest.raises(HostError, match="refuses immich from this host"):
        host.salt("immich.restore", name, "confirm=host")
    assert services.out(databases) == "immich"
