"""
The program that makes backups, on the test host's PostgreSQL: whole or not at all, whatever ends it.

How its unit, the states and Salt's functions go with it is in ``tests/scenarios/test_backup.py``.
"""

import json
import random
import re
import subprocess
import time
from types import SimpleNamespace

import pytest

DATABASE = "t_backup"
SCHEMA = """
CREATE TABLE asset (id int, note text);
INSERT INTO asset SELECT g, md5(g::text) FROM generate_series(1, 3000) g;
CREATE TABLE "of Ana's | TABLE DATA" (id int);
CREATE TABLE "user" (id int, name text);
INSERT INTO "user" VALUES (1, E'Ana\\t\\\\.\\n\\\\.');
CREATE TABLE version_history (id serial, "createdAt" timestamptz NOT NULL, version varchar NOT NULL);
INSERT INTO version_history ("createdAt", version) VALUES ('2026-02-01', '3.3.1'), ('2026-01-01', '2.9.0');
CREATE EXTENSION cube;
"""
# As the formula writes it.
COMPOSE = """# This file is managed by Salt (immich-formula). It holds no secret.
services:
  immich-machine-learning:
    image: ghcr.io/immich-app/immich-machine-learning:v9.9.9
  immich-server:
    cap_drop:
    - ALL
    image: ghcr.io/immich-app/immich-server:{version}
    networks:
    - immich
"""
# The program as it is, with its files elsewhere. KILL_AT is the number of the step at which it dies by SIGKILL: a step
# is whatever Python tells its audit hooks about the directory of the backups, or about a program that is started.
RUNNER = """
import importlib.machinery, importlib.util, os, signal, sys
sys.dont_write_bytecode = True
sys.path.insert(0, "/srv/formula/_utils")
loader = importlib.machinery.SourceFileLoader("program", "/srv/formula/immich/backup/files/immich-backup")
program = importlib.util.module_from_spec(importlib.util.spec_from_loader("program", loader))
loader.exec_module(program)
from immich_io import lock
work = os.environ["WORK"]
if os.environ["PATH"].startswith(work):  # programs of a test's own take the place of the server's
    program.connection.client_folders = lambda major: []
program.LOCK_SECONDS = float(os.environ.get("LOCK_SECONDS", program.LOCK_SECONDS))
program.WAIT_SECONDS = float(os.environ.get("WAIT_SECONDS", program.WAIT_SECONDS))
program.backups.CONFIG, program.backup_files.STATUS = f"{work}/backup.json", f"{work}/status.json"
program.held = lambda what, **options: lock.held(what, path=f"{work}/lock", **options)
steps = 0
def hook(event, arguments):
    global steps
    told = event in ("subprocess.Popen", "open", "os.rename", "os.remove", "os.chmod", "os.listdir", "os.scandir")
    if told and (event == "subprocess.Popen" or f"{work}/backups" in str(arguments)):
        steps += 1
        if steps == int(os.environ.get("KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
code = program.main()
print(f"steps: {steps}", file=sys.stderr)
if os.environ.get("MEASURE"):
    import resource
    print(f"peak kB: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}", file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def pg(pg_server):
    pg = pg_server
    pg.sweep()
    pg.sql(f"CREATE DATABASE {DATABASE}")
    pg.sql(SCHEMA, database=DATABASE)
    yield pg
    pg.sweep()


@pytest.fixture
def host(pg):
    """A directory of backups with the program's configuration, and the program as whom the server knows."""
    work = subprocess.run(
        ["runuser", "-u", "postgres", "--", "mktemp", "-d"], check=True, capture_output=True, text=True
    )
    host = SimpleNamespace(work=work.stdout.strip(), directory=f"{work.stdout.strip()}/backups")
    run("mkdir", "-m", "700", host.directory)

    def configure(**changes):
        config = {
            "directory": host.directory,
            "user": "postgres",
            "keep": 14,
            "keep_days": None,
            "extensions": ["plpgsql", "cube"],
            "environment": {"PGHOST": "/var/run/postgresql", "PGUSER": "postgres", "PGDATABASE": DATABASE},
            **changes,
        }
        with open(f"{host.work}/backup.json", "w", encoding="utf8") as file:
            json.dump(config, file)

    def program(*arguments, seconds=None, **environment):
        """The completed program, ended if it takes longer; ``said`` is the last line that it printed."""
        assigned = [f"{name}={value}" for name, value in {"WORK": host.work, **environment}.items()]
        limit = ["timeout", "-k", "1", str(seconds)] if seconds else []
        done = run("env", *assigned, *limit, "/usr/bin/python3", "-c", RUNNER, *arguments, check=False)
        done.said = (done.stdout.splitlines() or [""])[-1]
        return done

    def begin(*arguments, **environment):
        """The program while it runs."""
        assigned = [f"{name}={value}" for name, value in {"WORK": host.work, **environment}.items()]
        command = ["runuser", "-u", "postgres", "--", "env", *assigned, "/usr/bin/python3", "-c", RUNNER, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")

    def listed(*arguments):
        return json.loads(program("list", *arguments).stdout)

    host.configure, host.program, host.begin, host.listed = configure, program, begin, listed
    host.files = lambda: set(run("ls", "-A", host.directory).stdout.split())
    configure()
    yield host
    subprocess.run(["rm", "-rf", host.work], check=True)


def run(*command, check=True):
    return subprocess.run(
        ["runuser", "-u", "postgres", "--", *command], check=check, capture_output=True, text=True, cwd="/"
    )


def made(host, **environment):
    done = host.program("run", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return host.listed()[0]


def planted(host, *names):
    for name in names:
        run("sh", "-c", f"echo old >{host.directory}/{name}; echo sum >{host.directory}/{name}.sha256")


def stamp(days_ago):
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - days_ago * 86400))


def test_a_backup_is_whole_private_and_says_its_version(host):
    backup = made(host)
    assert (backup["version"], backup["database"], backup["empty"]) == ("v3.3.1", DATABASE, False)
    assert backup["path"] == f"{host.directory}/{backup['name']}"
    assert host.files() == {backup["name"], f"{backup['name']}.sha256"}
    assert run("stat", "-c", "%a %U", backup["path"]).stdout.split() == ["600", "postgres"]
    run("sh", "-c", f"cd {host.directory} && sha256sum --check --strict {backup['name']}.sha256")
    assert host.listed("--verify") == [{**backup, "verified": "ok"}]
    status = json.loads(run("cat", f"{host.work}/status.json").stdout)
    assert status["state"] == "done"
    assert status["result"].items() >= {**backup, "tables": 4}.items()


@pytest.mark.parametrize("version", ("../../etc/passwd", "3.3.1; rm", "", "release", "3.4.0/../x"))
def test_a_version_that_is_none_stays_out_of_the_name(host, pg, version):
    pg.sql("INSERT INTO version_history (\"createdAt\", version) VALUES ('2026-03-01', %s)", (version,), DATABASE)
    try:
        assert made(host)["version"] == "v3.3.1"
        pg.sql("UPDATE version_history SET version = 'x' WHERE \"createdAt\" < '2026-03-01'", database=DATABASE)
        assert made(host)["version"] == "unknown"
    finally:
        pg.sql("TRUNCATE version_history", database=DATABASE)
        pg.sql("INSERT INTO version_history (\"createdAt\", version) VALUES ('2026-02-01', '3.3.1')", database=DATABASE)


def test_a_database_that_was_migrated_is_of_the_new_version_before_that_is_noted(host, pg):
    """As in the seconds after an update, and for good where the new version did not serve."""
    pg.sql("CREATE TABLE kysely_migrations (name varchar, timestamp varchar)", database=DATABASE)
    try:
        pg.sql("INSERT INTO kysely_migrations VALUES ('1793000000000-AddAssetRating', 'x')", database=DATABASE)
        compose = f"{host.work}/docker-compose.yml"
        host.configure(compose_file=compose)
        assert made(host)["version"] == "v3.3.2"
        run("sh", "-c", f"cat >{compose} <<'END'\n{COMPOSE.format(version='v3.4.0')}END\n")
        assert made(host)["version"] == "v3.4.0"
        run("sed", "-i", "s/v3.4.0/v3.3.1/", compose)
        assert made(host)["version"] == "v3.3.2"
    finally:
        pg.sql("DROP TABLE kysely_migrations", database=DATABASE)


def test_a_version_that_cannot_be_true_stays_out_of_the_name_and_is_named(host, pg):
    pg.sql("INSERT INTO version_history (\"createdAt\", version) VALUES ('2026-03-01', '999.0.0')", database=DATABASE)
    compose = f"{host.work}/docker-compose.yml"
    run("sh", "-c", f"cat >{compose} <<'END'\n{COMPOSE.format(version='v3.3.1')}END\n")
    host.configure(compose_file=compose)
    try:
        done = host.program("run")
        assert "says v999.0.0: no newer image than v3.3.1" in done.stdout
        assert host.listed()[0]["version"] == "v3.3.1"
    finally:
        pg.sql("DELETE FROM version_history WHERE version = '999.0.0'", database=DATABASE)


def test_two_within_a_second_have_names_of_their_own(host):
    names = {made(host)["name"] for _ in range(3)}
    assert len(names) == 3
    assert len(host.listed()) == 3


def test_the_newest_are_kept(host):
    names = [f"immich_{stamp(day)}_v3.3.0.dump" for day in range(1, 6)]
    planted(host, *names)
    others = {"notes.txt", "immich_copy.dump", "immich_20260230T250000Z_v3.3.1.dump"}
    run("touch", *(f"{host.directory}/{name}" for name in others))
    host.configure(keep=3)
    new = made(host)
    assert [backup["name"] for backup in host.listed()] == [new["name"], *names[:2]]
    assert host.files() == {
        *(f"{name}{end}" for name in (new["name"], *names[:2]) for end in ("", ".sha256")),
        *others,
    }


def test_what_is_too_old_goes_but_never_the_newest(host):
    names = [f"immich_{stamp(day)}_v3.3.0.dump" for day in (1, 6, 8, 400)]
    planted(host, *names)
    host.configure(keep_days=7)
    new = made(host)
    assert [backup["name"] for backup in host.listed()] == [new["name"], *names[:2]]


def test_no_backup_of_another_database_is_removed(host):
    others = [f"immich_{stamp(day)}_v3.3.0_photos{end}.dump" for day, end in ((9, ""), (8, ".empty"), (7, ""))]
    own = [f"immich_{stamp(day)}_v3.3.0{end}.dump" for day, end in ((6, ""), (5, f"_{DATABASE}"))]
    planted(host, *others, *own)
    host.configure(keep=2, keep_days=1)
    names = [made(host)["name"] for _ in range(3)]
    assert {backup["name"] for backup in host.listed()} == {*others, *names[1:]}
    assert [backup["database"] for backup in host.listed()] == [DATABASE] * 2 + ["photos"] * 3
    assert [backup["empty"] for backup in host.listed()] == [False] * 3 + [True, False]


def test_a_database_in_which_nobody_has_signed_up_pushes_out_none_with_users(host, pg):
    full = [f"immich_{stamp(5)}_v3.3.0.dump", made(host)["name"]]
    planted(host, full[0])
    host.configure(keep=2)
    pg.sql("""ALTER TABLE "user" RENAME TO kept; CREATE TABLE "user" (id int)""", database=DATABASE)
    try:
        empty = [made(host)["name"] for _ in range(4)]
        assert all(name.endswith(f"_{DATABASE}.empty.dump") for name in empty)
        assert {backup["name"] for backup in host.listed()} == {*full, *empty[2:]}
    finally:
        pg.sql("""DROP TABLE "user"; ALTER TABLE kept RENAME TO "user" """, database=DATABASE)
    # Nor do the empty ones count afterwards.
    last = made(host)["name"]
    assert {backup["name"] for backup in host.listed()} == {last, full[1], *empty[2:]}


def test_a_backup_from_the_future_does_not_push_out_the_one_just_made(host):
    ahead = [f"immich_{stamp(-day)}_v3.3.0.dump" for day in (300, 200)]
    planted(host, *ahead)
    host.configure(keep=1)
    assert host.program("run").returncode == 0
    assert [backup["version"] for backup in host.listed()] == ["v3.3.0", "v3.3.1"]
    assert host.listed("--verify")[1]["verified"] == "ok"


def test_nothing_is_removed_when_there_is_no_new_one(host):
    names = [f"immich_{stamp(day)}_v3.3.0.dump" for day in (1, 2, 400)]
    planted(host, *names)
    host.configure(keep=1, keep_days=1, environment={"PGHOST": "/var/run/postgresql", "PGDATABASE": "t_absent"})
    done = host.program("run")
    assert done.returncode == 1
    assert 'database "t_absent" does not exist' in done.said
    assert [backup["name"] for backup in host.listed()] == names
    status = json.loads(run("cat", f"{host.work}/status.json").stdout)
    assert status["state"] == "failed"
    assert "t_absent" in status["error"]


def test_what_is_damaged_is_told(host):
    """Most flipped bits are in compressed data, where pg_restore may see them; the others need the checksum."""
    backup = made(host)
    with open(backup["path"], "rb") as file:
        whole = file.read()
    rng = random.Random(4)
    damaged = {f"cut to {size}": whole[:size] for size in (0, 1, 100, len(whole) // 2, len(whole) - 1)}
    for bit in rng.sample(range(len(whole) * 8), 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged[f"bit {bit}"] = bytes(flipped)
    damaged["longer"] = whole + b"\0"
    found = {}
    for how, content in damaged.items():
        with open(backup["path"], "wb") as file:
            file.write(content)
        found[how] = host.listed("--verify")[0]["verified"]
    assert [how for how, told in found.items() if "SHA-256 differs" not in told] == []
    run("rm", f"{backup['path']}.sha256")
    assert "no checksum" in host.listed("--verify")[0]["verified"]


def test_a_dump_that_lacks_a_table_is_refused(host):
    """A pg_dump that leaves a table out and ends well: no fault of the real one does that at will."""
    run("sh", "-c", f"mkdir {host.work}/bin && cat >{host.work}/bin/pg_dump <<'END'\n"
        "#!/bin/sh\nexec /usr/bin/pg_dump --exclude-table=public.asset \"$@\"\nEND\n"
        f"chmod 755 {host.work}/bin/pg_dump")  # fmt: skip
    done = host.program("run", PATH=f"{host.work}/bin:/usr/bin:/bin")
    assert done.returncode == 1
    assert "lacks tables of the database: public asset postgres" in done.said
    assert host.files() == set()


def test_a_directory_that_is_gone_is_told(host):
    run("rmdir", host.directory)
    done = host.program("run")
    assert done.returncode == 1
    assert host.directory in done.said
    assert "No such file" in done.said


def test_the_owner_of_the_database_decides_nothing_in_the_programs_session(host, pg):
    """What he sets for his database would otherwise hold for the superuser too."""
    pg.sql(
        """
        CREATE SCHEMA trap;
        CREATE TABLE trap.gained (who text);
        CREATE FUNCTION trap.concat_ws(text, VARIADIC name[]) RETURNS text LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO trap.gained VALUES (current_user); RETURN ''; END $$;
        """,
        database=DATABASE,
    )
    pg.sql(f"ALTER DATABASE {DATABASE} SET search_path = trap, pg_catalog, public")
    try:
        assert host.program("run").returncode == 0
        assert pg.sql("SELECT * FROM trap.gained", database=DATABASE) == []
    finally:
        pg.sql(f"ALTER DATABASE {DATABASE} RESET search_path")
        pg.sql("DROP SCHEMA trap CASCADE", database=DATABASE)


@pytest.mark.long
def test_killed_at_every_step_nothing_half_looks_whole(host):
    """Whatever the step, what is listed is whole, what was there is still there, and the next run ends well."""
    first = made(host)
    steps = int(host.program("run").stderr.split("steps: ")[1])
    assert steps > 10
    published, before = 0, host.listed()
    for step in range(1, 10 * steps):
        killed = host.program("run", KILL_AT=step)
        if "steps: " in killed.stderr and int(killed.stderr.split("steps: ")[1]) < step:
            break  # its end lies before that; a run that takes more time notes its progress more often
        assert killed.returncode == 128 + 9, (step, killed.stderr)
        there = host.listed("--verify")
        assert {backup["verified"] for backup in there} == {"ok"}, step
        assert len(there) - len(before) in (0, 1), step
        assert first["name"] in {backup["name"] for backup in there}
        published += len(there) - len(before)
        for backup in there:
            if backup["name"] not in (first["name"], there[0]["name"]):
                run("sh", "-c", f"rm {backup['path']}*")
        before = [backup for backup in there if backup["name"] in (first["name"], there[0]["name"])]
    assert published, "no step lies behind the renaming"
    made(host)
    assert {name for name in host.files() if not name.endswith((".dump", ".sha256"))} == set()


def test_what_a_killed_run_left_is_swept_by_the_next(host):
    old = f"immich_{stamp(1)}_v3.3.0.dump"
    planted(host, old)
    run("touch", f"{host.directory}/.immich_{stamp(2)}.part", f"{host.directory}/immich_{stamp(2)}_v3.3.0.dump.sha256")
    run("touch", f"{host.directory}/.other.part")
    new = made(host)
    assert host.files() == {
        ".other.part",
        *(f"{name}{end}" for name in (old, new["name"]) for end in ("", ".sha256")),
    }


# What the owner of a database can do so that a dump of it lacks something, and what the backup says then.
HIDING = {
    "CREATE EXTENSION hstore; ALTER EXTENSION hstore ADD TABLE asset": "table public.asset belongs to the extension",
    "CREATE EXTENSION hstore; ALTER TABLE asset ADD COLUMN tags hstore": "extension hstore is none that Immich needs",
    "CREATE EXTENSION hstore; ALTER EXTENSION hstore ADD FUNCTION helper(int)": "function public.helper(integer)",
    "ALTER TABLE asset RENAME TO hidden; CREATE VIEW asset AS SELECT * FROM hidden": "public.asset is no table but",
    "CREATE MATERIALIZED VIEW seen AS TABLE asset": "public.seen is no table but another kind of relation (m)",
    "CREATE TABLE parts (id int) PARTITION BY LIST (id)": "public.parts is no table but another kind of relation (p)",
    "CREATE RULE nothing AS ON INSERT TO asset DO INSTEAD NOTHING": "the table public.asset has a rule (nothing)",
    "ALTER TABLE asset ENABLE ROW LEVEL SECURITY": "the table public.asset has row security",
}


@pytest.fixture
def owned(pg, host):
    """A database that belongs to a role without rights, as Immich's does; a function that runs statements as that."""
    for statement in ("CREATE ROLE t_app", "CREATE DATABASE t_owned OWNER t_app"):
        pg.sql(statement)

    def as_owner(statements):
        pg.sql(f"SET SESSION AUTHORIZATION t_app; {statements}", database="t_owned")

    as_owner(
        """
        CREATE TABLE asset (id int); INSERT INTO asset SELECT generate_series(1, 10);
        CREATE FUNCTION helper(i int) RETURNS int LANGUAGE sql AS 'SELECT i';
        """
    )
    host.configure(environment={"PGHOST": "/var/run/postgresql", "PGUSER": "postgres", "PGDATABASE": "t_owned"})
    yield as_owner
    pg.sql("DROP DATABASE t_owned WITH (FORCE)")
    pg.sql("DROP ROLE t_app")


@pytest.mark.parametrize("statements", HIDING)
def test_what_a_dump_would_lack_fails_the_backup(owned, host, statements):
    made(host)
    owned(statements)
    done = host.program("run")
    assert done.returncode == 1
    assert HIDING[statements] in done.said, done.said
    assert len(host.listed()) == 1


def test_no_setting_of_the_owner_keeps_a_backup_from_being_made(owned, host, pg):
    known = {row[0] for row in pg.sql("SELECT name FROM pg_settings")}
    settings = {
        "local_preload_libraries": "'nosuch'", "idle_session_timeout": "'1ms'", "statement_timeout": "'1ms'",
        "transaction_timeout": "'1ms'", "default_transaction_read_only": "on", "bytea_output": "'escape'",
    }  # fmt: skip
    owned(
        "; ".join(f"ALTER DATABASE t_owned SET {name} = {value}" for name, value in settings.items() if name in known)
    )
    assert made(host)["name"]


def test_rows_of_any_size_take_little_memory(owned, host):
    owned(
        """
        CREATE TABLE version_history (id serial, "createdAt" timestamptz DEFAULT now(), version varchar NOT NULL);
        INSERT INTO version_history (version) SELECT repeat('9', 30000000) FROM generate_series(1, 4);
        INSERT INTO version_history (version) VALUES ('3.3.1');
        """
    )
    done = host.program("run", MEASURE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    peak = int(done.stderr.rpartition("peak kB: ")[2].split()[0])
    assert peak < 60_000


# What a session of the owner can hold so that a dump waits: at its beginning, and once it has its locks on tables.
HELD_LOCKS = {
    "LOCK TABLE asset IN ACCESS EXCLUSIVE MODE": "AccessExclusiveLock on public.asset",
    "DROP SEQUENCE numbers": "AccessExclusiveLock on public.numbers",
}


@pytest.mark.parametrize("statement", HELD_LOCKS)
def test_a_lock_that_is_not_given_back_fails_the_backup_by_name(owned, host, pg, statement):
    owned("CREATE SEQUENCE numbers")
    with pg.superuser("t_owned") as session, session.cursor() as cursor:
        cursor.execute("SET SESSION AUTHORIZATION t_app; BEGIN")
        cursor.execute(statement)
        pid = session.info.backend_pid
        began = time.monotonic()
        done = host.program("run", LOCK_SECONDS="2", WAIT_SECONDS="0.5")
        assert time.monotonic() - began < 300
        # Nor does the session of the dump wait on, with the locks that it has got.
        while pg.value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'immich-backup-%'"):
            assert time.monotonic() - began < 300
            time.sleep(0.1)
    assert done.returncode == 1, done.stdout
    # The role as which a session has logged in.
    assert f"process {pid} of the role postgres (idle in transaction" in done.said
    assert f"holds {HELD_LOCKS[statement]}" in done.said
    assert f"SELECT pg_terminate_backend({pid})" in done.said
    assert host.files() == set()
    made(host)


def test_a_lock_that_is_given_back_is_waited_for(owned, host, pg):
    with pg.superuser("t_owned") as session, session.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE asset IN ACCESS EXCLUSIVE MODE")
        process = host.begin("run", LOCK_SECONDS="300", WAIT_SECONDS="0.5")
        told = next(line for line in process.stdout if line.startswith("Waiting for a lock"))
        cursor.execute("ROLLBACK")
        output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    assert "Waiting for a lock, for up to 300.0 s: process" in told


# A program of that name ahead of the real one, which does as the owner of the database could at that very moment.
AT_THE_MOMENT = """
mkdir -p {work}/bin && cat >{work}/bin/{name} <<'END'
#!/bin/sh
real() {{ PATH=/usr/bin:/bin {name} "$@"; }}
case "$*" in *--jobs=*) real "$@"; exit;; esac  # is asked for what it knows, and dumps nothing
as_owner() {{ PGOPTIONS= PATH=/usr/bin:/bin psql -qX -d t_owned -c "SET SESSION AUTHORIZATION t_app; $1"; }}
{script}
END
chmod 755 {work}/bin/{name}
"""
ADDED = """
case "$*" in *concat_ws*) test -e {work}/added ||
  as_owner 'CREATE EXTENSION hstore; ALTER EXTENSION hstore ADD TABLE asset'; touch {work}/added;; esac
real "$@"
"""
REMOVED = """
real "$@" || exit
as_owner 'ALTER EXTENSION hstore DROP TABLE asset; DROP EXTENSION hstore'
"""
# pg_dump has the catalog of before by the time at which it takes its locks.
EMPTIED = """
as_owner 'CREATE TABLE kept AS TABLE asset; TRUNCATE asset'
real "$@" || exit
as_owner 'INSERT INTO asset TABLE kept; DROP TABLE kept'
"""
# Back before the dump ends, and after the program has looked at the tables meanwhile, however busy the machine is.
SWAPPED = """
as_owner 'ALTER TABLE asset RENAME TO x; ALTER TABLE clone RENAME TO asset; ALTER TABLE x RENAME TO clone'
real "$@" || exit
for _ in $(seq 600); do test "$(wc -l <{work}/looks)" -ge 2 && break; sleep 0.1; done
as_owner 'ALTER TABLE asset RENAME TO x; ALTER TABLE clone RENAME TO asset; ALTER TABLE x RENAME TO clone'
"""
LOOKED = """
real "$@" || exit
case "$*" in *concat_ws*) echo >>{work}/looks;; esac
"""
MOVED = "tables were emptied, rewritten or renamed during the dump: public asset t_app"


@pytest.mark.parametrize(
    ("programs", "said"),
    (
        ({"psql": ADDED, "pg_dump": REMOVED}, "lacks tables of the database: public asset t_app"),
        ({"pg_dump": EMPTIED}, MOVED),
        ({"psql": LOOKED, "pg_dump": SWAPPED}, MOVED),
    ),
    ids=("added to an extension", "emptied", "swapped with an empty one"),
)
def test_what_is_hidden_only_while_it_is_dumped_fails_the_backup(owned, host, programs, said):
    owned("CREATE TABLE clone (id int)")
    made(host)
    for name, script in programs.items():
        run("sh", "-c", AT_THE_MOMENT.format(work=host.work, name=name, script=script.format(work=host.work)))
    done = host.program("run", PATH=f"{host.work}/bin:/usr/bin:/bin")
    assert (done.returncode, len(host.listed())) == (1, 1), done.stdout + done.stderr
    assert said in done.said, done.stdout + done.stderr


# More than a pipe holds, before and after what the real one writes.
LOUD = """
yes 'pg_dump: warning: nothing of importance' | head -c 200000 >&2
real "$@" || exit
yes 'pg_dump: warning: nothing of importance' | head -c 200000 >&2
"""


def test_a_dump_with_many_warnings_comes_to_its_end(owned, host):
    run("sh", "-c", AT_THE_MOMENT.format(work=host.work, name="pg_dump", script=LOUD))
    done = host.program("run", PATH=f"{host.work}/bin:/usr/bin:/bin", seconds=300)
    assert done.returncode == 0, done.stdout
    assert 1 <= done.stdout.count("nothing of importance") <= 20


def test_functions_that_call_each_other_fail_the_backup(owned, host):
    """pg_dump writes them in an order that no server takes, warns of it in more than a pipe holds, and ends well."""
    made(host)
    begin = "CREATE OR REPLACE FUNCTION f{}(i int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT {}; END;"
    calls = ["i", *(f"f{number}(i)" for number in range(1499))]
    owned(" ".join(begin.format(number, call) for number, call in enumerate(calls)))
    made(host)
    owned(begin.format(0, "f1499(i)"))
    done = host.program("run", seconds=300)
    assert (done.returncode, len(host.listed())) == (1, 2), done.stdout
    assert "objects that depend on each other" in done.said, done.said
    # Which of them it names depends on the order of the catalog on disk.
    assert len(re.findall(r"FUNCTION f\d+ ", done.said)) == 3, done.said


def test_a_name_sends_nothing_to_a_terminal_and_breaks_no_line(owned, host):
    owned('CREATE TABLE "of\u2028three\x85lines" (id int)')
    assert made(host)["name"]
    owned('CREATE VIEW "v\x1b]0;title\x07\x9b31m\u202e" AS SELECT 1')
    done = host.program("run")
    error = json.loads(run("cat", f"{host.work}/status.json").stdout)["error"]
    assert "is no table but" in error
    assert error.isprintable()
    assert done.said == f"immich-backup: {error}"
    assert all(line.isprintable() for line in done.stdout.split("\n"))


def test_the_names_of_its_columns_do_not_hide_who_has_signed_up(owned, host):
    columns = ", ".join(f'"{"x" * 55}{number}" int' for number in range(200))
    owned(f'CREATE TABLE "user" ({columns}, name text); INSERT INTO "user" (name) VALUES (\'Ana\')')
    assert made(host)["empty"] is False


def test_a_row_is_no_heading(owned, host):
    owned('CREATE TABLE version_history (version text, note text); CREATE TABLE "user" (id int, name text)')
    owned("INSERT INTO version_history VALUES ('COPY public.\"user\" (id, name) FROM stdin;'), ('3.3.1')")
    backup = made(host)
    assert (backup["empty"], backup["version"]) == (True, "v3.3.1")
