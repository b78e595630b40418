"""
Somebody has taken over the server's container, sits on the LAN, or in another container: what each of them tries.

The list for readers, with what remains possible, is docs/isolation.md.
"""

import json
import re
import shlex
import time
from pathlib import Path

import pytest

from tests.host.machine import Host
from tests.scenarios.conftest import deployed, found_by, pillar_with, post
from tests.scenarios.test_isolation import DENIED, valkey

pytestmark = pytest.mark.long

GATEWAY, NETWORK_GATEWAY = "10.88.0.1", "172.20.0.1"
INSIDE = (Path(__file__).parent / "inside.js").read_text(encoding="utf8")
ON_DEFAULT_NETWORK = "podman run --rm --network podman --rootfs /:O"
PSQL = "runuser -u postgres -- psql -qAtX -v ON_ERROR_STOP=1"
SSH = 2222  # something on the host that is nobody's business, at every address

# -- PostgreSQL ------------------------------------------------------------------------------------------

ROLES = """
SET ROLE postgres
SET ROLE tenant
SET SESSION AUTHORIZATION postgres
ALTER ROLE immich SUPERUSER
ALTER ROLE immich CREATEDB
ALTER ROLE immich CREATEROLE
ALTER ROLE immich REPLICATION
ALTER ROLE immich BYPASSRLS
ALTER ROLE postgres PASSWORD 'x'
ALTER ROLE postgres SET search_path = public
ALTER ROLE tenant PASSWORD 'x'
ALTER ROLE ALL SET search_path = public
CREATE ROLE evil
DROP ROLE tenant
GRANT postgres TO immich
GRANT tenant TO immich
GRANT pg_read_server_files TO immich
GRANT pg_execute_server_program TO immich
GRANT pg_read_all_data TO immich
REASSIGN OWNED BY postgres TO immich
UPDATE pg_authid SET rolsuper = true WHERE rolname = 'immich'
SELECT rolpassword FROM pg_authid
SELECT passwd FROM pg_shadow
SELECT umoptions FROM pg_catalog.pg_user_mapping
"""
FILES = """
COPY (SELECT 1) TO PROGRAM 'touch /tmp/loot'
CREATE TABLE loot (x text); COPY loot FROM PROGRAM 'id'
CREATE TABLE loot (x text); COPY loot FROM '/etc/passwd'
COPY (SELECT 1) TO '/tmp/loot'
SELECT pg_read_file('/etc/passwd')
SELECT pg_read_binary_file('/etc/passwd')
SELECT pg_ls_dir('/')
SELECT pg_stat_file('/etc/passwd')
SELECT pg_ls_logdir()
SELECT pg_ls_waldir()
SELECT lo_import('/etc/passwd')
SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/loot')
SELECT * FROM pg_hba_file_rules
SELECT * FROM pg_file_settings
CREATE FUNCTION evil(text) RETURNS int LANGUAGE c AS 'libc.so.6', 'system'
CREATE FUNCTION evil() RETURNS int LANGUAGE internal AS 'pg_backend_pid'
LOAD '/tmp/loot.so'
CREATE TABLESPACE evil LOCATION '/tmp'
"""
EXTENSIONS = """
CREATE EXTENSION dblink
CREATE EXTENSION file_fdw
CREATE EXTENSION postgres_fdw
CREATE EXTENSION pageinspect
CREATE EXTENSION pg_buffercache
CREATE EXTENSION pg_stat_statements
CREATE EXTENSION pg_walinspect
DROP EXTENSION vector CASCADE
ALTER EXTENSION vector UPDATE
ALTER EXTENSION earthdistance SET SCHEMA pg_catalog
CREATE FOREIGN DATA WRAPPER evil
CREATE EVENT TRIGGER evil ON ddl_command_end EXECUTE FUNCTION pg_backend_pid()
CREATE TYPE evil; CREATE TYPE evil (INPUT = int4in, OUTPUT = int4out)
CREATE CAST (text AS bytea) WITHOUT FUNCTION
CREATE ACCESS METHOD evil TYPE INDEX HANDLER bthandler
CREATE LANGUAGE evil HANDLER plpgsql_call_handler
"""
OTHERS = """
ALTER DATABASE postgres SET search_path = public
ALTER DATABASE template1 SET search_path = public
ALTER DATABASE template1 OWNER TO immich
ALTER DATABASE tenant RENAME TO mine
ALTER DATABASE immich SET session_preload_libraries = 'evil'
ALTER DATABASE immich SET session_replication_role = replica
ALTER DATABASE immich TABLESPACE pg_global
ALTER ROLE immich SET session_preload_libraries = 'evil'
DROP DATABASE tenant
CREATE DATABASE evil
CREATE FUNCTION pg_catalog.evil() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE OR REPLACE FUNCTION pg_catalog.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'
CREATE TABLE information_schema.evil (x int)
CREATE SCHEMA pg_evil
ALTER FUNCTION pg_catalog.pg_read_file(text) OWNER TO immich
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO immich
ALTER SYSTEM SET listen_addresses = '*'
SET session_replication_role = replica
SET session_preload_libraries = 'evil'
SET log_statement = 'none'
SET allow_system_table_mods = on
SELECT pg_reload_conf()
SELECT pg_switch_wal()
SELECT pg_create_physical_replication_slot('evil')
SELECT pg_create_logical_replication_slot('evil', 'pgoutput')
CREATE PUBLICATION evil FOR ALL TABLES
CREATE SUBSCRIPTION evil CONNECTION 'host=127.0.0.1 dbname=tenant' PUBLICATION p
SELECT pg_replication_origin_create('evil')
SELECT pg_stat_reset()
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tenant'
SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'tenant'
CHECKPOINT
SECURITY LABEL ON ROLE immich IS 'evil'
"""
REFUSED_BY_POSTGRESQL = re.compile(
    "permission denied|must be (superuser|owner)|is not allowed|unacceptable schema name|"
    "no security label providers|cannot change the tablespace"
)
LOGINS = [
    *({"database": database} for database in ("postgres", "template1", "template0", "tenant")),
    {"user": "postgres"},
    {"user": "tenant", "database": "tenant", "password": "tenant-password"},
    {"user": "tenant", "password": "tenant-password"},
    {"password": "postgres"},
    {"replication": "database"},
    {"replication": "true"},
]

# -- Valkey ------------------------------------------------------------------------------------------

# Beyond what `ACL DRYRUN` tells: what a script does shows when it runs.
VALKEY = [
    *(line.split() for line in DENIED.replace("\n", ";").split(";") if line.strip()),
    ["eval", "return redis.call('get', 'tenant:a')", "0"],
    ["eval", "return redis.call('set', 'tenant:a', '0')", "0"],
    ["eval", "return redis.call('flushall')", "0"],
    ["eval", "return redis.call('config', 'get', '*')", "0"],
    ["eval", "return redis.call('publish', 'tenant:x', '1')", "0"],
    ["eval", "return redis.call('keys', '*')", "0"],
    ["eval", "return loadstring('return os')().execute('id')", "0"],
    ["eval", "return redis.pcall('acl', 'setuser', 'immich', '+@all')", "0"],
    *(["get tenant:a", "getdel tenant:a", "dump tenant:a", "exists tenant:a", "type tenant:a", "ttl tenant:a",
       "expire tenant:a 1", "del tenant:a", "unlink tenant:a", "touch tenant:a", "append tenant:a x",
       "object encoding tenant:a", "memory usage tenant:a", "watch tenant:a", "mget immich_bull:a tenant:a",
       "mset immich_bull:a 1 tenant:a 1", "rename immich_bull:a tenant:a", "rename tenant:a immich_bull:a",
       "bitop or immich_bull:b tenant:a", "lcs immich_bull:a tenant:a", "smove immich_bull:s tenant:s x",
       "lmove tenant:l immich_bull:l left left", "sunionstore immich_bull:s tenant:s",
       "zrangestore immich_bull:z tenant:z 0 -1", "georadius immich_bull:g 0 0 1 m store tenant:g",
       "sort immich_bull:l by tenant:* get tenant:*", "sort_ro immich_bull:l get tenant:a",
       "xread streams tenant:a 0", "copy tenant:a immich_bull:a", "restore tenant:b 0 x",
       "subscribe tenant:x", "psubscribe t*", "ssubscribe tenant:x", "publish tenant:x 1", "spublish tenant:x 1",
       "pubsub shardchannels", "acl setuser immich +@all", "acl getuser default", "acl log", "acl save",
       "config set dir /tmp", "config rewrite", "module load /tmp/loot.so", "module list", "replicaof 127.0.0.1 1",
       "save", "bgsave", "bgrewriteaof", "lastsave", "slowlog get", "latency latest", "cluster info", "role",
       "failover", "psync ? -1", "function load x", "fcall x 0", "script kill", "client no-evict on",
       "client reply off", "client unblock 1", "auth default wrong", "auth immich-formula wrong",
       "swapdb 0 1", "flushdb async", "flushall async"]),
]  # fmt: skip
VALKEY = [command.split() if isinstance(command, str) else command for command in VALKEY]
REFUSED_BY_VALKEY = re.compile("NOPERM|ACL failure|WRONGPASS|not allowed|a nil value")

# The first writes, so that nothing but the end of the server ends it.
ENDLESS = ["eval", "redis.call('set', KEYS[1], 1) while true do end", "1", "immich_bull:x"]
FILLING = ["eval", "for i = 1, 80 do redis.call('append', KEYS[1], string.rep('x', 1e6)) end", "1", "immich_bull:y"]

# -- files ------------------------------------------------------------------------------------------

UNREADABLE = ["/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmsg", "/dev/sda"]
UNWRITABLE = [
    "/loot", "/usr/src/app/loot", "/etc/passwd", "/run/secrets/db_password", "/run/secrets/redis_password",
    "/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run",
    "/sys/fs/cgroup/loot",
]  # fmt: skip


def lines(*lists):
    return [line for each in lists for line in each.strip().splitlines()]


def taken_over(host, **attempts):
    """What comes of attempts from inside the server's container, in their order."""
    argument = shlex.quote(json.dumps(attempts))
    command = f"podman exec -i -w /usr/src/app/server immich-server node - {argument}"
    return json.loads(host.run(command, stdin=INSIDE, timeout=300).stdout)


@pytest.fixture(scope="module")
def host(first_run):
    """A deployed host with a second tenant on its servers, in his own container, and a listener on every address."""
    with deployed(first_run) as host:
        host.run(
            f"{PSQL} -c \"create role tenant login password 'tenant-password'\" "
            "-c 'create database tenant owner tenant' && "
            f"{PSQL} -d tenant -c 'create table t (x int)' -c 'insert into t values (42)'"
        )
        valkey(host, "ACL SETUSER tenant on '>tenant-password' '~tenant:*' '&tenant:*' +@all")
        host.run("valkey-cli --no-auth-warning --user tenant --pass tenant-password set tenant:a 42")
        host.run(
            "podman network create --subnet 172.30.0.0/24 --interface-name tenant0 tenant && "
            "podman run --detach --name tenant --network tenant --publish 8080:8000 --rootfs /:O "
            "python3 -m http.server 8000"
        )
        listen = f"socket.create_server(('::', {SSH}), family=socket.AF_INET6, dualstack_ipv6=True)"
        host.run(
            "systemd-run --unit=tenant-at-work --setenv=PGPASSWORD=tenant-password "
            "psql -h 127.0.0.1 -U tenant -d tenant -c 'select pg_sleep(10000)' && "
            f'systemd-run --unit=listener python3 -c "import socket, time; s = {listen}; time.sleep(10000)"'
        )
        host.wait_for(f"ss -ltn | grep -q :{SSH}")
        host.wait_for(f"{PSQL} -c \"select 1 from pg_stat_activity where usename = 'tenant'\" | grep -q 1")
        yield host


@pytest.fixture(scope="module")
def outcomes(host):
    """All that is tried from inside the container, at once: outcomes by attempt."""
    attempts = {
        "postgres": [{"sql": sql} for sql in lines(ROLES, FILES, EXTENSIONS, OTHERS)],
        "valkey": VALKEY,
        "read": UNREADABLE,
        "write": UNWRITABLE,
    }
    attempts["postgres"] += [{"sql": "SELECT 1", "options": options} for options in LOGINS]
    found = taken_over(host, **attempts)
    return {json.dumps(each): got for kind in attempts for each, got in zip(attempts[kind], found[kind])}


@pytest.mark.parametrize("sql", lines(ROLES, FILES, EXTENSIONS, OTHERS))
def test_postgresql_refuses(outcomes, sql):
    assert REFUSED_BY_POSTGRESQL.search(outcomes[json.dumps({"sql": sql})].get("error", "it worked"))


@pytest.mark.parametrize("options", LOGINS, ids=json.dumps)
def test_postgresql_lets_nobody_in_as(outcomes, options):
    error = outcomes[json.dumps({"sql": "SELECT 1", "options": options})].get("error", "it worked")
    assert re.search("no pg_hba.conf entry|password authentication failed|permission denied to start WAL sender", error)


@pytest.mark.parametrize("command", VALKEY, ids=" ".join)
def test_valkey_refuses(outcomes, command):
    assert REFUSED_BY_VALKEY.search(outcomes[json.dumps(command)].get("error", "it worked"))


@pytest.mark.parametrize("path", (*UNREADABLE, *UNWRITABLE))
def test_the_container_has_no_way_to_the_host_by_a_file(outcomes, path):
    assert re.search("EACCES|EPERM|ENOENT|EROFS", outcomes[json.dumps(path)].get("error", "it worked"))


@pytest.mark.parametrize("container", ("immich-server", "immich-machine-learning"))
def test_what_is_written_to_memory_has_a_size(host, container):
    mounts = [line.split() for line in host.out(f"podman exec {container} cat /proc/mounts").splitlines()]
    written = {
        point: options for _, point, kind, options, *_ in mounts if kind == "tmpfs" and "rw" in options.split(",")
    }
    assert {"/tmp", "/run", "/var/tmp"} <= set(written)
    assert [point for point, options in written.items() if "size=" not in options] == []


def test_the_tenant_has_noticed_nothing(host, outcomes):
    assert len(outcomes) > 200
    assert host.out(f"{PSQL} -d tenant -c 'select x from t'") == "42"
    assert tenants_value(host) == "42"
    assert host.out("systemctl is-active tenant-at-work") == "active"
    assert host.out(f"{PSQL} -c \"select rolname from pg_roles where rolsuper or rolname = 'evil'\"") == "postgres"
    assert host.run("find / /tmp -xdev -name 'loot*'").stdout == ""
    assert post(host, "/standin/jobs")["errors"] == []


def tenants_value(host):
    return host.out("valkey-cli --no-auth-warning --user tenant --pass tenant-password get tenant:a")


def test_what_a_script_writes_is_bounded(host):
    valkey(host, "CONFIG SET maxmemory 64mb")
    # Lua looks at the limit as the script begins.
    first, second = taken_over(host, valkey=[FILLING, FILLING])["valkey"]
    assert "OOM command not allowed" in second["error"], first
    rows = host.salt("immich.doctor", "timeout=40")
    assert next(row for row in rows if row["result"] == "failed")["part"] == "Valkey memory", rows
    assert tenants_value(host) == "42"
    taken_over(host, valkey=[["del", "immich_bull:y"]])
    host.apply("immich.valkey")


def test_an_endless_script_does_not_keep_valkey_from_its_restart(host):
    host.pillar(pillar_with(valkey={"stop_timeout": 10}))
    host.apply("immich.valkey")
    valkey(host, "ACL SAVE")
    host.run("valkey-cli --no-auth-warning --user tenant --pass tenant-password save")
    taken_over(host, valkey=[ENDLESS])
    began = time.monotonic()
    host.run("systemctl restart valkey-server", timeout=120)
    assert 9 < time.monotonic() - began < 60
    assert tenants_value(host) == "42"
    host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 120)


@pytest.mark.parametrize("unit", ("immich-backup", "immich-gateway"))
def test_units_that_read_what_immich_writes_have_a_memory_limit(host, unit):
    """Whether the kernel heeds it, a test host cannot show: its cgroups have no controllers."""
    assert host.out(f"systemctl show --property=MemoryMax --value {unit}") not in ("", "infinity")


@pytest.mark.parametrize(("unit", "most"), (("immich-backup", 1), ("immich-gateway", 2), ("immich", 8.5)))
def test_exposure_of_the_units(host, unit, most):
    """As systemd rates it, from 0 to 10. A backup is made in test_backup.py, and the address is reached above."""
    assert float(host.out(f"systemd-analyze security {unit} | tail -n 1").split(": ")[1].split()[0]) <= most


# -- the network ------------------------------------------------------------------------------------------


def reached(host, prefix, targets, meant=()):
    """Those of the ``address/port`` that a command prefix gets a connection to, all tried at the same time.

    Tried again while one is missing that is ``meant`` to be reached: a busy machine may take longer than two seconds.
    """
    tries = " ".join(f"(timeout 2 bash -c '</dev/tcp/{target}' 2>/dev/null && echo {target}) &" for target in targets)
    return found_by(host, f"{prefix} sh -c {shlex.quote(f'{tries} wait')}", meant)


def address(host, container, network="immich"):
    return host.out(f"podman inspect --format '{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}' {container}")


def containers(host):
    """The doors of Immich's containers themselves, past the published port."""
    return {
        f"{address(host, name)}/{port}" for name, port in (("immich-server", 2283), ("immich-machine-learning", 3003))
    }


def test_of_the_host_the_container_reaches_what_is_meant_for_it(host):
    own = f"{host.out('ip -6 -o address show dev immich0 scope link').split()[3].split('/')[0]}%eth0"
    everywhere = (GATEWAY, NETWORK_GATEWAY, host.address, own, "127.0.0.1")
    ports = (SSH, 5432, 6379, 8080)
    targets = [[place, port] for place in everywhere for port in ports]
    targets += [[address(host, "tenant", "tenant"), 8000], ["172.30.0.1", SSH]]
    meant = [[GATEWAY, 5432], [GATEWAY, 6379], [NETWORK_GATEWAY, 53], ["immich-machine-learning", 3003]]
    found = taken_over(host, connect=[*targets, *meant[2:]])["connect"]
    assert [t for t, got in zip([*targets, *meant[2:]], found) if got == {"answer": "connected"}] == meant
    # The listeners do listen: it is the firewall that stands between.
    host.wait_for(f"bash -c '</dev/tcp/{host.address}/{SSH}'")


def test_a_neighbour_with_routes_reaches_the_published_port_alone(host):
    services = {f"{place}/{port}" for place in (GATEWAY, NETWORK_GATEWAY, host.address) for port in (5432, 6379)}
    published = f"{host.address}/2283"
    with Host("neighbour", lan=host.lan) as neighbour:
        for route in (f"{GATEWAY}/32", "172.20.0.0/16"):
            neighbour.run(f"ip route add {route} via {host.address}")
        assert reached(neighbour, "", {*services, *containers(host), published}, {published}) == {published}
        # Without the table he gets to the containers, and to PostgreSQL and Valkey: the routes are good.
        host.run("nft delete table inet immich")
        there = {*containers(host), f"{GATEWAY}/5432", f"{GATEWAY}/6379"}
        assert reached(neighbour, "", {*services, *there}, there) == there
        host.apply("immich.gateway")
        assert reached(neighbour, "", there) == set()


@pytest.mark.parametrize("prefix", (ON_DEFAULT_NETWORK, "podman exec tenant"), ids=("default network", "tenant's"))
def test_other_containers_reach_neither_the_services_nor_immich(host, prefix):
    services = {f"{place}/{port}" for place in (GATEWAY, NETWORK_GATEWAY, host.address) for port in (5432, 6379)}
    meant = {f"{GATEWAY}/{SSH}"}
    assert reached(host, prefix, {*services, *containers(host), *meant}, meant) == meant


def test_a_port_of_the_host_opens_by_its_setting(host):
    def open_to_immich(*ports):
        host.pillar(pillar_with(host_ports=list(ports)))
        host.apply("immich.gateway")
        tries = [[place, SSH] for place in (GATEWAY, host.address)]
        return [got.get("answer") for got in taken_over(host, connect=tries)["connect"]]

    assert open_to_immich(SSH) == ["connected", "connected"]
    assert open_to_immich() == [None, None]


# -- what the host reads of it -------------------------------------------------------------------------

# It stops the program that the doctor runs in the container, and writes into the answer of that.
INTO_THE_ANSWER = r"""
known=
while :; do
  for p in /proc/[0-9]*; do
    case "$known /proc/$$ " in *" $p "*) continue; esac
    if grep -qa ENOTFOUND $p/cmdline && ! grep -qa known= $p/cmdline; then
      known="$known $p"; kill -STOP ${p#/proc/}; yes $p >$p/fd/1 &
    fi
  done
done 2>/dev/null
"""
LIBRARY = "/var/cache/salt/minion/extmods/utils"
LAST_WORDS = f"PYTHONPATH={LIBRARY} python3 -c 'from immich_io import last_words; print(last_words.of())'"
# How much memory the question takes.
MEASURED = """
import resource, sys
sys.path.insert(0, "/var/cache/salt/minion/extmods/utils")
from host_core.command import CommandError
from immich_io import containers
try:
    said = containers.reach("immich-server", ["a:1"])
except CommandError as error:
    said = error
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "kB:", said)
"""


def test_what_the_container_says_is_short_and_in_its_own_name(host):
    host.run(r"""podman exec immich-server sh -c 'printf "x\0immich-stack: forged\n" >/proc/1/fd/1'""")
    host.wait_for("journalctl -u immich -o cat | grep -q 'immich-server | x immich-stack: forged'")
    assert host.out(LAST_WORDS) == ""
    host.run(f"podman exec --detach immich-server bash -c {shlex.quote(INTO_THE_ANSWER)}")
    try:
        host.write("/run/test/measured.py", MEASURED)
        # It does not stop each of them in time.
        peak, _ = host.wait_for("python3 /run/test/measured.py | grep ' kB: .*did not end within'").split(" kB: ")
        assert int(peak) < 200_000
    finally:
        host.run("pkill -9 -f 'known[=]'", check=False)


# -- what a superuser would run later ------------------------------------------------------------------

# Every thing by which a function of the database's owner runs in somebody else's statement.
TRAPS = r"""
CREATE FUNCTION spring() RETURNS int VOLATILE LANGUAGE plpgsql AS $f$
DECLARE attempt text;
BEGIN
  FOREACH attempt IN ARRAY ARRAY[
    'RESET ROLE', 'SET ROLE postgres', 'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION postgres',
    'ALTER ROLE immich SUPERUSER', 'CREATE ROLE loot SUPERUSER', 'GRANT pg_execute_server_program TO immich',
    $x$COPY (SELECT 1) TO PROGRAM 'touch /tmp/loot'$x$, $x$COPY (SELECT 1) TO '/tmp/loot2'$x$]
  LOOP
    BEGIN EXECUTE attempt; EXCEPTION WHEN OTHERS THEN NULL; END;
  END LOOP;
  RETURN 1;
END $f$;
CREATE FUNCTION calm(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN public.spring(); END';
CREATE FUNCTION sprung() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.spring(); RETURN NEW; END';
CREATE FUNCTION place(int) RETURNS vector IMMUTABLE LANGUAGE plpgsql AS
  $f$BEGIN PERFORM public.spring(); RETURN '[1,2,3]'::public.vector; END$f$;
CREATE DOMAIN trapped AS int CHECK (public.calm(VALUE) > 0);
CREATE TABLE bait (
  x int DEFAULT spring() CHECK (calm(x) > 0), y int GENERATED ALWAYS AS (calm(x)) STORED, d trapped DEFAULT 1);
CREATE INDEX ON bait (calm(x));
CREATE INDEX ON bait (x) WHERE calm(x) > 0;
CREATE INDEX bait_point ON bait USING hnsw ((public.place(x)::public.vector(3)) public.vector_l2_ops);
CREATE STATISTICS bait_statistics ON calm(x), calm(y) FROM bait;
CREATE TRIGGER sprung BEFORE INSERT OR UPDATE ON bait FOR EACH ROW EXECUTE FUNCTION sprung();
CREATE POLICY bait ON bait USING (spring() > 0);
ALTER TABLE bait ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
INSERT INTO bait VALUES (1);
CREATE VIEW seen AS SELECT spring();
CREATE MATERIALIZED VIEW kept AS SELECT spring();
CREATE RULE bait AS ON DELETE TO bait DO ALSO SELECT spring();
CREATE TABLE "\! touch /tmp/loot
\! touch /tmp/loot" (x int);
ALTER DATABASE immich IS_TEMPLATE true CONNECTION LIMIT 0;
COMMENT ON TABLE bait IS E'
\! touch /tmp/loot
$(touch /tmp/loot)';
"""
# Of these, what no backup brings back, taken away again.
NOT_IN_BACKUPS = """
DROP VIEW seen; DROP MATERIALIZED VIEW kept; DROP RULE bait ON bait;
ALTER TABLE bait DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
"""
# What the formula asks for, under the same name but ahead in the path. Immich itself does not survive that.
AHEAD = """
CREATE SCHEMA ahead;
CREATE FUNCTION ahead.pg_get_userbyid(oid) RETURNS name LANGUAGE sql AS 'SELECT public.spring()::text::name';
CREATE FUNCTION ahead.concat_ws(text, VARIADIC name[]) RETURNS text LANGUAGE sql AS 'SELECT public.spring()::text';
CREATE FUNCTION ahead.current_database() RETURNS name LANGUAGE sql AS 'SELECT public.spring()::text::name';
CREATE VIEW ahead.pg_class AS SELECT c.*, public.spring() AS spring FROM pg_catalog.pg_class c;
CREATE VIEW ahead.pg_extension AS SELECT e.*, public.spring() AS spring FROM pg_catalog.pg_extension e;
CREATE FUNCTION ahead.same(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT public.spring() > 0';
CREATE OPERATOR ahead.= (LEFTARG = name, RIGHTARG = text, FUNCTION = ahead.same);
ALTER DATABASE immich SET search_path = ahead, pg_catalog, public;
ALTER TABLE version_history RENAME TO real_history;
CREATE VIEW version_history AS SELECT h.*, public.spring() AS spring FROM real_history h;
"""


def gained(host):
    """What the traps have brought their owner."""
    mighty = "rolsuper or rolname = 'loot' or pg_has_role(oid, 'pg_execute_server_program', 'member')"
    roles = host.out(f"{PSQL} -c \"select rolname from pg_roles where rolname !~ '^(postgres$|pg_)' and ({mighty})\"")
    return {*roles.split(), *host.out("find / /tmp -xdev -name 'loot*'").split()}


def looked_at(host):
    """All that the formula does as a superuser, or lets one see, except backups and restores."""
    host.apply()
    host.salt("pgsql_extension.update", "vector", "immich", "version=True", "reindex=True", check=False)
    host.salt("immich.doctor")
    assert (
        "holds objects that no restore can recreate" in host.run("salt-call --local immich.backup", check=False).stderr
    )


def test_what_is_planted_in_the_database_gains_nothing(own_host):
    host, planted = own_host, {"postgres": [{"answer": []}]}
    assert taken_over(host, postgres=[{"sql": TRAPS}]) == planted
    looked_at(host)
    assert taken_over(host, postgres=[{"sql": NOT_IN_BACKUPS}]) == planted
    made = host.salt("immich.backup")
    assert {backup["verified"] for backup in host.salt("immich.backups", "verify=True")} == {"ok"}
    host.salt("immich.restore_drill")
    host.salt("immich.restore", made["name"], "confirm=host")
    assert taken_over(host, postgres=[{"sql": AHEAD}]) == planted
    looked_at(host)
    # It compares, and the owner's view in the place of a table is no table.
    drill = host.run("salt-call --local immich.restore_drill", check=False).stderr
    assert "lacks tables of it: public.version_history" in drill
    assert gained(host) == set()
    # The traps are some: a superuser who merely looks falls for one.
    host.run(f"{PSQL} -d immich -c 'select public.spring()'")
    assert gained(host) >= {"immich", "loot", "/tmp/loot"}


# -- what is left in the folders for others on the host ------------------------------------------------------


def test_root_of_a_container_makes_no_root_of_a_local_user_unseen(host):
    """`chmod 4755` on a program in /data: where its folder is open, and the container's user is root."""
    planted = "/srv/immich/upload/id"
    plant = "podman exec immich-server sh -c 'cp $(command -v id) /data/id && chmod 4755 /data/id'"
    as_a_local_user = f"cd / && runuser -u nobody -- {planted} -u"

    def warned():
        states = {state["id"]: state for state in host.apply()}
        return "immich:server:user: is root, and" in json.dumps(states["The pillar is valid"].get("warnings", []))

    # As the server runs by default nobody gets there, and who does becomes the server's user.
    host.run(plant)
    assert host.run(as_a_local_user, check=False).returncode != 0
    host.run("chmod o+x /srv/immich/upload")
    assert host.out(as_a_local_user) == "60883"
    assert not warned()

    # Root it is where the pillar says root. That is said, the doctor finds it, and its remedy ends it.
    host.pillar(pillar_with(server={"user": "root"}))
    assert warned()
    assert host.run(as_a_local_user).stdout != "0\n"
    host.run(plant)
    assert host.out(as_a_local_user) == "0"
    (row,) = [row for row in host.salt("immich.doctor", "timeout=40") if row["part"] == "planted files"]
    assert (row["result"], planted in row["seen"]) == ("failed", True)
    host.run(row["remedy"])
    assert host.out(as_a_local_user) == host.out("id -u nobody")
    host.run("chmod o-x /srv/immich/upload")
    assert not warned()
    host.run(f"rm {planted}")
    host.pillar(pillar_with(server={"user": "own"}))
    host.apply()
