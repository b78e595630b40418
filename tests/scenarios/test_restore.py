"""The database is put back to what it was when a backup was made, or stays as it is."""

import json
import re

import pytest

from tests.scenarios.conftest import get, on_terminal, pillar_with, post
from tests.scenarios.test_service import ids

PSQL = "runuser -u postgres -- psql -qAtX -v ON_ERROR_STOP=1"
HBA = "/etc/postgresql/17/main/pg_hba.conf"
# What the journal tells, or what can be seen otherwise, at the moment at which everything dies. Before the first of
# them nothing has changed.
TOLD = "grep -q '{line}' /tmp/told"
POINTS = {
    "database being made": TOLD.replace("{line}", "^Creating the database"),
    "rows being restored": "pgrep -f 'pg_restore [-][-]jobs' >/dev/null",
    "index being built": "pgrep -f '[p]ostgres:.*immich_restore_.* CREATE INDEX' >/dev/null",
    "Immich stopping": TOLD.replace("{line}", "^Stopping"),
    "names being swapped": TOLD.replace("{line}", "takes the place"),
    "Immich starting": TOLD.replace("{line}", "^Starting"),
    "old database being backed up": TOLD.replace("{line}", "^Backing up"),
    "old database being dropped": f"{TOLD.replace('{line}', '^Starting')}"
    f" && {PSQL} -c 'select datname from pg_database' | grep -q immich_drop_",
}
# With `only` the program is killed, and not what it has started.
AT = """
journalctl -t immich-restore -o cat --since @$(date +%s.%N) --follow --no-tail >/tmp/told 2>/dev/null &
trap "kill $!" EXIT
setsid salt-call --local {command} >/tmp/restore.out 2>&1 &
pid=$!
for i in $(seq 20000); do
  if {condition}; then {then}; exit; fi
  kill -0 $pid 2>/dev/null || {{ echo finished; cat /tmp/restore.out; exit; }}
  sleep 0.02
done
"""


def sql(host, statement, database="immich"):
    return host.run(f"{PSQL} -d {database}", stdin=statement).stdout.strip()


def databases(host):
    """All that have to do with Immich."""
    return sql(host, "SELECT datname FROM pg_database WHERE datname LIKE 'immich%' ORDER BY 1").split()


def backup(host):
    return host.salt("immich.backup")["name"]


def restore(host, name, **options):
    """What the restore answers: a dictionary, or the text of its error. The old database is dropped by default."""
    words = [f"{key}={value}" for key, value in {"confirm": "host", "keep_old": False, **options}.items()]
    done = host.salt_call("--local", "--out=json", "immich.restore", name, *words, check=False)
    return json.loads(done.stdout)["local"] if done.returncode == 0 else done.stdout + done.stderr


def restored(host, name):
    """Restore a backup, which has to work."""
    answer = restore(host, name)
    assert isinstance(answer, dict), answer


def at(host, point, command, then="pkill -9 -g $pid; echo killed"):
    """Run a command; do something at a point of it, by default kill it and all that it has started."""
    return host.out(AT.format(command=command, condition=POINTS[point], then=then), timeout=600)


def upload(host, number):
    for _ in range(number):
        post(host, "/standin/assets")


def seen(host):
    """What Immich tells of its rows, and of its files whether each is whole."""
    state = get(host, "/standin/state")
    return state["database"]["counts"], state["storage"]["files"], state["storage"]["intact_assets"]


def grown(host):
    """Make the database one that takes seconds to restore."""
    if rows(host) > 3000:
        return
    sql(
        host,
        """
        SET ROLE immich;
        INSERT INTO asset ("originalPath", "originalFileName", checksum)
            SELECT '/data/' || i, 'IMG_' || i || '.jpg', sha256(i::text::bytea) FROM generate_series(1, 3000) i;
        INSERT INTO smart_search ("assetId", embedding)
            SELECT a.id, (SELECT array_agg(random() + length(a.id::text) + i) FROM generate_series(1, 512) i)::vector
            FROM asset a WHERE NOT EXISTS (SELECT FROM smart_search s WHERE s."assetId" = a.id);
        """,
    )


def rows(host):
    """Rows of the database that Immich uses, which is whole at any moment."""
    return int(sql(host, "SELECT count(*) FROM asset"))


def test_a_backup_is_restored_and_what_was_there_is_kept(own_host):
    host = own_host
    # As on distributions whose pg_hba.conf lets nobody in with a password.
    host.run(f"sed -i '/127.0.0.1/d' {HBA}; systemctl reload postgresql")
    hba = host.read(HBA)
    host.pillar(pillar_with(postgres={"settings": {"work_mem": "5MB"}}))
    sql(host, "ALTER DATABASE immich SET work_mem = '5MB'; GRANT CONNECT ON DATABASE immich TO pg_monitor")
    upload(host, 2)
    name = backup(host)
    before = seen(host)
    upload(host, 1)
    containers = ids(host)
    assert "pass confirm=host" in restore(host, name, confirm="another")
    would = restore(host, name, test=True)
    assert would["would"][1:3] == ["stop immich.service", "swap its name with that of the database immich"]
    assert ids(host) == containers
    drill = host.salt("immich.restore_drill", name)
    assert drill["changed"]["public.asset"] == {"backup": 2, "now": 3}
    assert drill["warnings"] == []
    assert ids(host) == containers
    done = restore(host, name)
    assert (done["rows"], done["warnings"]) == (drill["rows"], [])
    assert 0 < done["down"] < done["seconds"]
    # The old database's backup counts as one from before the restored one was made.
    assert done["kept"]["backup"].endswith("_v3.3.1_immich.empty.dump"), "nobody has signed up here"
    drilled = host.salt("immich.restore_drill", done["kept"]["backup"])
    assert drilled["changed"]["public.asset"] == {"backup": 3, "now": 2}
    assert "the database was restored since" in drilled["warnings"][0]
    counts, files, intact = seen(host)
    assert counts == before[0]
    assert (files, intact) == (3, 2)
    assert databases(host) == ["immich"]
    assert host.read(HBA) == hba
    assert sql(host, "SHOW work_mem") == "5MB"
    assert "pg_monitor=c" in sql(host, "SELECT datacl FROM pg_database WHERE datname = 'immich'")
    # Immich that was stopped on purpose is not waited for.
    host.run("systemctl stop immich")
    # Its rows are others than those of the backup, and nobody has said that it may go.
    done = restore(host, done["kept"]["backup"], keep_old=None)
    assert done["seconds"] < 300
    kept = done["kept"]["database"]
    assert seen(host)[0]["assets"] == 3
    journal = host.out("journalctl --sync; journalctl -t immich-restore -o cat")
    assert "Restoring: building the indexes" in journal
    assert "creating INDEX" not in journal, "each took less than ten seconds"
    assert databases(host) == ["immich", kept]
    host.pillar(pillar_with(postgres={"settings": {"work_mem": "5MB"}}))
    assert changed_by_apply(host) == {}
    assert_a_poisoned_dump_reaches_nothing(host)


# What a comment in a dump was replaced by, to the same length. Restored by Immich's own role, all of it would work.
POISON = "COMMIT; ALTER ROLE immich PASSWORD 'owned'; ALTER DATABASE immich SET role = 'pg_monitor'; --"
CLUSTER = """
    SELECT (SELECT jsonb_agg(a ORDER BY a.oid) FROM pg_authid a),
        (SELECT jsonb_agg(s ORDER BY s.setdatabase, s.setrole) FROM pg_db_role_setting s)
    """


POISONER = """
import sys, pathlib
dump, (old, new) = pathlib.Path(sys.argv[1]), pathlib.Path("/tmp/poison").read_bytes().split(b"\\n")
data = dump.read_bytes()
assert old in data
dump.write_bytes(data.replace(old, new))
"""


def assert_a_poisoned_dump_reaches_nothing(host):
    comment = f"COMMENT ON TABLE public.asset IS '{'x' * (len(POISON) - 36)}';"
    sql(host, f"COMMENT ON TABLE asset IS '{'x' * (len(POISON) - 36)}'")
    name = backup(host)
    path = f"/var/backups/immich/{name}"
    host.write("/tmp/poison", f"{comment}\n{POISON.ljust(len(comment))}")
    host.write("/tmp/poison.py", POISONER)
    host.run(f"python3 /tmp/poison.py {path}; rm {path}.sha256")
    before, counts = sql(host, CLUSTER), seen(host)
    told = host.run(f"salt-call --local immich.restore_drill {name}", check=False)
    assert told.returncode
    assert "must be able to" in told.stdout + told.stderr or "permission denied" in told.stdout + told.stderr
    assert "permission denied" in restore(host, name)
    host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 300)
    assert (sql(host, CLUSTER), seen(host)) == (before, counts)
    assert [each for each in databases(host) if "_kept_" not in each] == ["immich"]


def changed_by_apply(host):
    return {state["id"]: state["changes"] for state in host.apply() if state["changes"]}


def told_by_drill(host):
    """What the journal has of the drill, with what journald has been told and has not looked at yet."""
    return host.out("journalctl --sync; journalctl -u immich-restore-drill -o cat")


@pytest.mark.long
def test_the_drill_runs_on_a_timer_if_asked_and_fails_loudly(host):
    hook = 'echo "$IMMICH_BACKUP_ERROR" >/srv/told'
    host.pillar(pillar_with(backup={"restore_drill": "monthly", "on_failure": hook}))
    host.apply()
    assert changed_by_apply(host) == {}
    assert host.out("systemctl is-active immich-restore-drill.timer") == "active"
    assert host.out("systemctl show --property=MemoryMax --value immich-restore-drill") not in ("", "infinity")
    name = backup(host)
    host.run("systemctl start immich-restore-drill", timeout=300)
    assert f"{name} can be restored" in told_by_drill(host)
    # What Immich does not explain is a difference, and no damage.
    sql(host, "SET ROLE immich; CREATE TABLE planted (id int)")
    assert host.run("systemctl start immich-restore-drill", check=False).returncode
    host.wait_for("grep -q 'exit-code.*journalctl -u immich-restore-drill' /srv/told", 120)
    assert "It lacks tables of Immich's database: public.planted." in told_by_drill(host)
    assert "the last restore drill failed" in host.out("salt-call --local immich.doctor", check=False)
    sql(host, "DROP TABLE planted")
    host.run("rm /srv/told")
    # A version that never was does not keep it from working, and is named.
    sql(host, "INSERT INTO version_history (version) VALUES ('999.0.0')")
    assert "_v3.3.1_" in backup(host)
    host.run("systemctl start immich-restore-drill", timeout=300)
    assert "says that it is of Immich v999.0.0: " in told_by_drill(host)
    sql(host, "DELETE FROM version_history WHERE version = '999.0.0'")
    name = backup(host)
    host.run(f"truncate -s 20000 /var/backups/immich/{name}")
    assert host.run("systemctl start immich-restore-drill", check=False).returncode
    host.wait_for("grep -q 'exit-code.*journalctl -u immich-restore-drill' /srv/told", 120)
    host.pillar(pillar_with())
    host.apply()
    assert "restore-drill" not in host.out("ls /etc/systemd/system; systemctl list-timers --all")
    assert databases(host) == ["immich"]


def cut(host, path):
    host.run(f"truncate -s 20000 {path}")
    return "is not a complete backup"


def flipped(host, path):
    host.run(f"printf x | dd of={path} bs=1 seek=9000 conv=notrunc")
    return "SHA-256"


def text(host, path):
    host.run(f"echo 'SELECT 1;' >{path}; rm {path}.sha256")
    return "is not a complete backup"


def absent(host, path):
    host.run(f"rm {path}*")
    return "There is no backup"


def of_another_database(host, path):
    host.run(f"runuser -u postgres -- pg_dump --format=custom postgres >{path}; rm {path}.sha256")
    return "dump of another database"


@pytest.mark.long
@pytest.mark.parametrize("damage", (cut, flipped, text, absent, of_another_database))
def test_a_damaged_backup_is_refused_before_anything_changes(host, damage):
    upload(host, 1)
    name = backup(host)
    upload(host, 1)
    before, containers = seen(host), ids(host)
    told = damage(host, f"/var/backups/immich/{name}")
    assert told in restore(host, name)
    assert seen(host) == before
    assert ids(host) == containers
    assert databases(host) == ["immich"]


@pytest.mark.long
def test_a_backup_of_a_newer_version_and_a_role_of_another_password_are_refused(host):
    sql(host, "INSERT INTO version_history (version) VALUES ('999.0.0')")
    claiming = backup(host)
    sql(host, "DELETE FROM version_history WHERE version = '999.0.0'")
    name = backup(host).replace("v3.3.1", "v3.5.0")
    host.run(f"cp /var/backups/immich/{name.replace('v3.5.0', 'v3.3.1')} /var/backups/immich/{name}")
    sql(host, "INSERT INTO kysely_migrations VALUES ('1793000000000-AddAssetRating', 'x')")
    migrated = backup(host)
    sql(host, "DELETE FROM kysely_migrations WHERE timestamp = 'x'")
    before = ids(host)
    assert "v3.3.1 is older than v3.5.0, the version of the backup" in restore(host, name)
    assert "Next step: immich:version: v3.3.2, apply, then restore" in restore(host, migrated)
    refused = restore(host, claiming)
    assert "no newer image than v3.3.1 is known to have run on it" in refused
    assert f"salt-call immich.restore /var/backups/immich/{claiming} version=v3.3.1 confirm=host" in refused
    assert "would" in restore(host, claiming, version="v3.3.1", test=True)
    # With a digest it is the same version.
    image = f"ghcr.io/immich-app/immich-server:v3.3.1@sha256:{'0' * 64}"
    host.pillar(pillar_with(server={"image": image}))
    assert "v3.3.1 is older than v3.5.0, the version of the backup" in restore(host, name)
    host.pillar(pillar_with())
    sql(host, "ALTER ROLE immich PASSWORD 'another'")
    assert "no role immich with the pillar's password" in restore(host, backup(host))
    assert ids(host) == before


@pytest.mark.long
def test_the_old_database_is_put_back_if_immich_does_not_serve_from_the_restored_one(host):
    upload(host, 1)
    # Of no release, and older than the newest.
    sql(host, "INSERT INTO kysely_migrations VALUES ('1790000000000-OfMine', 'x')")
    name = backup(host)
    sql(host, "DELETE FROM kysely_migrations WHERE timestamp = 'x'")
    upload(host, 1)
    before = seen(host)
    told = restore(host, name)
    assert "corrupted migrations" in told
    assert "the old one was put back" in told
    assert seen(host) == before
    assert databases(host) == ["immich"]


@pytest.mark.long
def test_a_planted_function_gains_nothing(host):
    upload(host, 1)
    sql(
        host,
        """
        SET ROLE immich;
        CREATE FUNCTION trap(text) RETURNS boolean VOLATILE LANGUAGE plpgsql AS $$
        BEGIN
          BEGIN EXECUTE 'ALTER ROLE immich SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
          BEGIN EXECUTE $x$COPY (SELECT 1) TO PROGRAM 'touch /tmp/loot'$x$; EXCEPTION WHEN OTHERS THEN NULL; END;
          RETURN true;
        END $$;
        ALTER TABLE asset ADD CHECK (trap("originalPath"));
        CREATE FUNCTION calm(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN public.trap($1); END';
        CREATE INDEX trapped ON asset (calm("originalPath"));
        """,
    )
    assets = rows(host)
    restore(host, backup(host))
    host.apply()
    assert rows(host) == assets
    assert sql(host, "SELECT rolsuper FROM pg_roles WHERE rolname = 'immich'") == "f"
    assert host.run("find / /tmp -xdev -name loot", check=False).stdout == ""
    sql(host, "DROP FUNCTION IF EXISTS calm(text) CASCADE; DROP FUNCTION IF EXISTS trap(text) CASCADE")


@pytest.mark.long
def test_killed_at_each_point_in_turn_then_completed(host):
    """Whenever it dies, Immich's database is the old or the new one, whole, and serves; the last run completes it."""
    upload(host, 2)
    grown(host)
    files = seen(host)[1]
    name = backup(host)
    old = rows(host)
    killed = []
    for point in POINTS:
        upload(host, 1)
        there = {old, rows(host)}
        if at(host, point, f"immich.restore {name} confirm=host keep_old=False") == "killed":
            killed.append(point)
        host.wait_for("! pgrep pg_restore && ! systemctl is-active immich-backup | grep activating", 300)
        assert rows(host) in there, point
        host.run("systemctl start immich", timeout=300)
        assert get(host, "/api/server/ping") == {"res": "pong"}
    restored(host, name)
    assert rows(host) == old
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert [each for each in databases(host) if each != "immich" and "_kept_" not in each] == []
    assert host.run(f"grep 'Salt: immich restore' {HBA}", check=False).returncode == 1
    assert len(killed) >= len(POINTS) - 1, killed
    assert seen(host)[1] == files + len(POINTS)
    for kept in set(databases(host)) - {"immich"}:
        sql(host, f'DROP DATABASE "{kept}"', "postgres")


@pytest.mark.long
def test_killed_alone_it_takes_its_children_along_and_recover_clears_up(host):
    grown(host)
    name = backup(host)
    before = rows(host)
    assert at(host, "index being built", f"immich.restore {name} confirm=host", "kill -9 $pid; echo killed") == "killed"
    host.wait_for("! pgrep pg_restore", 60)
    # Immich has not been stopped yet.
    assert get(host, "/api/server/ping") == {"res": "pong"}
    would = host.salt("immich.restore_recover", "test=True")["would"]
    assert databases(host) == ["immich", *would["drop"]]
    assert host.salt("immich.restore_recover")["drop"] == would["drop"]
    assert databases(host) == ["immich"]
    assert rows(host) == before
    assert get(host, "/api/server/ping") == {"res": "pong"}


@pytest.mark.long
@pytest.mark.parametrize("command", ("restore", "restore_drill"))
def test_how_far_it_is_is_shown_on_the_terminal_and_in_the_journal(host, command):
    """PostgreSQL is held for a while: the host is too quick for ten seconds of work."""
    grown(host)
    name = backup(host)
    running = "pgrep -f '[p]ostgres:.*immich_(restore|drill)_.* COPY'"
    # What copies may be done with it before it is held: then the next is waited for.
    held = f"{running} >/tmp/pid && kill -STOP $(cat /tmp/pid) && {running} >/dev/null"
    hold = f"until {held}; do kill -CONT $(cat /tmp/pid); sleep 0.02; done; sleep 12; kill -CONT $(cat /tmp/pid)"
    host.run(f"({hold}) >/dev/null 2>&1 &")
    confirm = "confirm=host" if command == "restore" else ""
    began = host.out("date +%s")
    seen = on_terminal(host, f"salt-call --local immich.{command} {name} {confirm}")
    for told in (seen, host.out(f"journalctl --sync; journalctl -t immich-restore -o cat --since @{began}")):
        assert re.search(r"Restoring: [\d.]+ MB of [\d.]+ MB, \d+ %, ([\d.]+ MB/s, )?[1-9]\d s", told), told
        assert "Counting rows" in told
        assert ("Stopping immich.service" in told) is (command == "restore")
    if command == "restore":
        assert re.search("Backing up the old database.*Backup, dumping: ", seen, re.DOTALL), seen


@pytest.mark.long
def test_two_at_once_are_one(host):
    grown(host)
    name = backup(host)
    both = f"salt-call --local immich.restore {name} confirm=host; salt-call --local immich.restore_drill"
    hold = "held=$(pgrep -f '[p]ostgres:.*immich_restore_'); kill -STOP $held"
    asked = "curl -sf http://127.0.0.1:2283/api/server/ping"
    then = f"{hold}; {asked}; ({both}) 2>&1; kill -CONT $held; wait $pid"
    told = at(host, "index being built", f"immich.restore {name} confirm=host", then)
    assert told.count("under way since") == 2
    assert "pong" in told, "Immich serves while the backup is restored"
    host.wait_for("grep -q rows: /tmp/restore.out", 300)
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert databases(host) == ["immich"]


@pytest.mark.long
def test_an_old_database_that_cannot_be_backed_up_is_kept(host):
    name = backup(host)
    upload(host, 1)
    before = rows(host)
    sql(host, "CREATE VIEW planted AS SELECT 1")
    done = restore(host, name, keep_old=False)
    assert "no restore can recreate" in done["warnings"][0]
    kept = done["kept"]
    assert kept["backup"] is None
    assert sql(host, "SELECT count(*) FROM asset", kept["database"]) == str(before)
    assert rows(host) == before - 1
    sql(host, f'DROP DATABASE "{kept["database"]}"', "postgres")


@pytest.mark.long
def test_a_full_disk_leaves_everything_as_it_was(host):
    """The database's own tablespace fills up: the restored one is made in the same."""
    grown(host)
    name = backup(host)
    host.run("mkdir /srv/small; mount -t tmpfs -o size=60m tmpfs /srv/small; install -d -o postgres /srv/small/pg")
    sql(host, "CREATE TABLESPACE small LOCATION '/srv/small/pg'", "postgres")
    moved_to(host, "small")
    used = int(host.out("df --output=used -k /srv/small | tail -n 1"))
    host.run(f"mount -o remount,size={used + 20000}k /srv/small")
    before = seen(host)
    assert "No space left on device" in restore(host, name)
    host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 300)
    assert seen(host) == before
    assert databases(host) == ["immich"]
    moved_to(host, "pg_default")
    sql(host, "DROP TABLESPACE small", "postgres")
    host.run("umount --lazy /srv/small")


def moved_to(host, tablespace):
    """With the database in that tablespace, and Immich started again."""
    host.run("systemctl stop immich")
    sql(host, f"ALTER DATABASE immich SET TABLESPACE {tablespace}", "postgres")
    host.run("systemctl start immich")


@pytest.mark.long
def test_postgresql_killed_in_the_middle(host):
    grown(host)
    name = backup(host)
    before = rows(host)
    for victim in ("pkill -9 -f '[p]ostgres:.*immich_restore_'", "systemctl kill -s KILL postgresql@17-main"):
        then = f"{victim}; wait $pid; cat /tmp/restore.out"
        told = at(host, "index being built", f"immich.restore {name} confirm=host", then)
        assert "as it was" in told
        host.run("systemctl start postgresql@17-main")
        host.wait_for(f"{PSQL} -c 'select 1'", 120)
        assert rows(host) == before
        host.salt("immich.restore_recover")
        # It starts again where its database was gone.
        host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 300)
        assert databases(host) == ["immich"]
    restored(host, name)


@pytest.mark.long
def test_power_cut_then_completed(host):
    grown(host)
    name = backup(host)
    old = rows(host)
    upload(host, 1)
    before = seen(host)
    command = f"immich.restore {name} confirm=host"
    for point, there in (("index being built", old + 1), ("Immich starting", old)):
        assert at(host, point, command, "echo reached") == "reached"
        host.crash()
        host.boot()
        host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 300)
        assert rows(host) == there
        assert seen(host)[1] == before[1]
    restored(host, name)
    assert rows(host) == old
    assert [each for each in databases(host) if "_kept_" not in each] == ["immich"]
