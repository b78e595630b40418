"""`pgsql_dump.read` and `pgsql_dump.restore`: what is in a dump gains nothing by being restored."""

import collections
import shutil
import subprocess
import time
import tracemalloc
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from tests.functional.pgsql_server import EVERY_CHARACTER

OWNER = {"host": "127.0.0.1", "user": "t_owner", "password": EVERY_CHARACTER}
LOOT = Path("/tmp/loot")
Usage = collections.namedtuple("Usage", "free")
# Each tries all that a superuser could do, and hides that it could not.
ATTEMPTS = [
    "ALTER ROLE t_owner SUPERUSER",
    "ALTER ROLE t_owner CREATEROLE",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/loot'",
    "COPY (SELECT 1) TO '/tmp/loot'",
    "CREATE EXTENSION file_fdw",
    "RESET SESSION AUTHORIZATION",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION postgres",
    "SET ROLE postgres",
]


@pytest.fixture
def pg(pg_server):
    pg_server.sweep()
    LOOT.unlink(missing_ok=True)
    pg_server.modules.pgsql_role.set("t_owner", login=True, password=EVERY_CHARACTER)
    for name in ("t_from", "t_to"):
        pg_server.modules.pgsql_database.create(name, owner="t_owner", encoding="UTF8")
    pg_server.modules.pgsql_extension.create("earthdistance", "t_to", cascade=True)
    yield pg_server
    pg_server.sweep()


@pytest.fixture
def dumped(pg, tmp_path):
    """Returns a function that dumps `t_from` and returns the file."""

    def dump():
        path = tmp_path / "t.dump"
        with open(path, "wb") as file:
            command = ["runuser", "-u", "postgres", "--", "pg_dump", "--format=custom", "t_from"]
            subprocess.run(command, stdout=file, check=True)
        return str(path)

    return dump


def trap(pg):
    """Functions of every kind that run while they are restored or afterwards, each of which tries all ATTEMPTS."""
    tries = "".join(f"BEGIN EXECUTE $x${attempt}$x$; EXCEPTION WHEN OTHERS THEN NULL; END; " for attempt in ATTEMPTS)
    # What calls itself immutable may not write; what it calls may.
    body = "AS $f$ BEGIN PERFORM public.t_tries(); RETURN %s; END $f$ LANGUAGE plpgsql"
    pg.sql(
        f"""
        CREATE FUNCTION public.t_tries() RETURNS void VOLATILE AS $f$ BEGIN {tries} END $f$ LANGUAGE plpgsql;
        CREATE FUNCTION public.t_check(i int) RETURNS boolean VOLATILE {body % "true"};
        CREATE FUNCTION public.t_value(i int) RETURNS int IMMUTABLE {body % "i"};
        CREATE FUNCTION public.t_trigger() RETURNS trigger {body % "NEW"};
        CREATE TABLE public.t (id int CHECK (public.t_check(id)), given int DEFAULT public.t_value(1),
            made int GENERATED ALWAYS AS (public.t_value(id)) STORED);
        CREATE TRIGGER t_trigger BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.t_trigger();
        INSERT INTO public.t (id) SELECT generate_series(1, 3);
        CREATE INDEX t_index ON public.t (public.t_value(id));
        CREATE MATERIALIZED VIEW public.t_seen AS SELECT public.t_value(id) FROM public.t;
        """,
        database="t_from",
    )


def disarm(pg):
    """Take back what the trap has gained."""
    LOOT.unlink()
    pg.modules.pgsql_role.set("t_owner", superuser=False, createrole=False)


def gained(pg):
    """What a trap could have changed."""
    powers = pg.modules.pgsql_role.get("t_owner")
    return [
        *(name for name in ("superuser", "createrole") if powers[name]),
        *(["loot"] if LOOT.exists() else []),
        *(
            ["file_fdw"]
            if pg.value("SELECT count(*) FROM pg_extension WHERE extname = 'file_fdw'", database="t_to")
            else []
        ),
    ]


def test_a_dump_is_read_whole_and_restored_with_its_rows(pg, dumped):
    pg.modules.pgsql_extension.create("earthdistance", "t_from", cascade=True)
    pg.sql(
        """
        CREATE TABLE "T, of (odd) names" (a int, "b ""c" text);
        INSERT INTO "T, of (odd) names" VALUES (1, E'x\\ty\\nz'), (2, '\\.'), (3, NULL);
        CREATE TABLE none (a int);
        CREATE FUNCTION inner_check(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 0';
        CREATE FUNCTION outer_check(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql
            AS 'BEGIN RETURN inner_check($1); END';
        ALTER TABLE "T, of (odd) names" ADD CHECK (outer_check(a));
        CREATE TABLE place (lat float8, lon float8);
        INSERT INTO place VALUES (48.8, 2.3);
        CREATE INDEX ON place USING gist (ll_to_earth(lat, lon));
        """,
        database="t_from",
    )
    path = dumped()
    rows = {"public.T, of (odd) names": 3, "public.none": 0, "public.place": 1}
    read = pg.modules.pgsql_dump.read(path, rows_of=["public.place", "public.T, of (odd) names"])
    assert read["tables"] == rows
    assert set(read["extensions"]) == {"cube", "earthdistance"}
    assert read["rows"]["public.place"] == [{"lat": "48.8", "lon": "2.3"}]
    assert read["rows"]["public.T, of (odd) names"][1] == {"a": "2", 'b "c': "\\\\."}
    steps = []
    pg.modules.pgsql_dump.restore(path, "t_to", OWNER, doing=steps.append)
    assert pg.modules.pgsql_table.row_counts("t_to", OWNER) == rows
    assert any("place_ll_to_earth_idx" in step for step in steps)
    owners = pg.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'", database="t_to")
    assert owners == [("t_owner",)]


def test_a_truncated_dump_is_refused(pg, dumped):
    pg.sql("CREATE TABLE t AS SELECT repeat(i::text, 50) FROM generate_series(1, 2000) i", database="t_from")
    path = dumped()
    whole = Path(path).read_bytes()
    assert pg.modules.pgsql_dump.read(path)["tables"] == {"public.t": 2000}
    for length in (0, 3, 100, 2000, 4000):
        Path(path).write_bytes(whole[:length])
        with pytest.raises(CommandExecutionError, match="pg_restore: "):
            pg.modules.pgsql_dump.read(path)


def test_what_is_no_dump_is_refused(pg, tmp_path):
    with pytest.raises(CommandExecutionError, match="Cannot read"):
        pg.modules.pgsql_dump.read(str(tmp_path / "absent"))
    (tmp_path / "text.sql").write_text("-- PostgreSQL database dump\nSELECT 1;\n" * 1000)
    with pytest.raises(CommandExecutionError, match="does not appear to be a valid archive"):
        pg.modules.pgsql_dump.read(str(tmp_path / "text.sql"))


def test_a_trap_in_a_dump_gains_nothing(pg, dumped):
    trap(pg)
    path = dumped()
    disarm(pg)
    # The trap works: this is what a superuser who restores the dump would give away.
    pg.modules.pgsql_database.create("t_lost", owner="t_owner", encoding="UTF8")
    command = ["runuser", "-u", "postgres", "--", "pg_restore", "--no-owner", "--dbname=t_lost"]
    with open(path, "rb") as file:
        subprocess.run(command, stdin=file, check=True)
    assert gained(pg) == ["superuser", "createrole", "loot"]
    disarm(pg)
    pg.modules.pgsql_dump.restore(path, "t_to", OWNER)
    assert pg.modules.pgsql_table.row_counts("t_to", OWNER) == {"public.t": 3}
    assert gained(pg) == []
    # Nor later, when a superuser does what a deployment does.
    pg.sql("REINDEX DATABASE t_to", database="t_to")
    pg.sql("ANALYZE", database="t_to")
    pg.modules.pgsql_table.row_counts("t_to")
    assert gained(pg) == []


def test_a_superuser_restores_nothing(pg, dumped):
    with pytest.raises(CommandExecutionError, match="not restored by a superuser"):
        pg.modules.pgsql_dump.restore(dumped(), "t_to", {})


def test_meta_commands_of_psql_in_names_comments_and_data_are_text(pg, dumped):
    pg.sql(
        r"""
        CREATE TABLE "x
\! touch /tmp/loot
" (a text);
        INSERT INTO "x
\! touch /tmp/loot
" VALUES (E'\\.\n\\! touch /tmp/loot\n'), (E'x\n\\.\n\\copy t to program ''touch /tmp/loot''');
        COMMENT ON TABLE "x
\! touch /tmp/loot
" IS E'x\n\\! touch /tmp/loot\n\\o |touch /tmp/loot\n';
        """,
        database="t_from",
    )
    path = dumped()
    pg.modules.pgsql_dump.restore(path, "t_to", OWNER)
    assert list(pg.modules.pgsql_table.row_counts("t_to", OWNER).values()) == [2]
    assert gained(pg) == []


def test_what_the_server_does_is_seen_while_a_dump_is_restored(pg, dumped):
    pg.sql(
        """
        CREATE FUNCTION public.t_slow(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
            'BEGIN IF current_database() = ''t_to'' THEN PERFORM pg_sleep(0.001); END IF; RETURN i; END';
        CREATE TABLE public.t (id int CHECK (public.t_slow(id) = id), v text);
        INSERT INTO public.t SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) i;
        CREATE INDEX ON public.t (public.t_slow(id));
        """,
        database="t_from",
    )
    path, seen = dumped(), []
    size = pg.modules.pgsql_dump.read(path)["size"]
    pg.modules.pgsql_dump.restore(path, "t_to", OWNER, size=size, watch=seen.extend)
    assert {(each["what"], each["name"]) for each in seen} == {("copy", "public.t"), ("index", "public.t")}
    assert 0 < max(each["done"] for each in seen if each["what"] == "copy") <= size


def test_a_copy_is_made_where_there_is_room_or_refused(pg, dumped, monkeypatch):
    pg.sql("CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1)", database="t_from")
    path = dumped()
    before = Path(path).read_bytes()
    free = {str(Path(path).parent): 0, "/var/tmp": 10**12}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(free.get(folder, 10**12)))
    pg.modules.pgsql_dump.restore(path, "t_to", OWNER)
    assert pg.modules.pgsql_table.row_counts("t_to", OWNER) == {"public.t": 1}
    assert Path(path).read_bytes() == before
    free["/var/tmp"] = 0
    with pytest.raises(CommandExecutionError, match="No room for a copy of"):
        pg.modules.pgsql_dump.restore(path, "t_to", OWNER)


def test_a_dump_that_fails_leaves_no_process(pg, dumped):
    pg.sql(
        "CREATE TABLE a (i int); INSERT INTO a VALUES (1); CREATE EXTENSION hstore; CREATE TABLE b (h hstore)",
        database="t_from",
    )
    path = dumped()
    with pytest.raises(CommandExecutionError, match="hstore"):
        pg.modules.pgsql_dump.restore(path, "t_to", OWNER)
    assert subprocess.run(["pgrep", "pg_restore"], check=False).returncode == 1


def test_databases_swap_names_though_clients_are_connected(pg):
    pg.sql("CREATE TABLE new (i int)", database="t_to")
    with pg.superuser("t_from"), pg.superuser("t_to"):
        pg.modules.pgsql_database.rename({"t_from": "t_old", "t_to": "t_from"})
    assert pg.modules.pgsql_table.row_counts("t_from") == {"public.new": 0}
    assert pg.modules.pgsql_table.row_counts("t_old") == {}
    with pytest.raises(CommandExecutionError, match="does not exist"):
        pg.modules.pgsql_database.rename({"t_old": "t_x", "t_absent": "t_y"})
    assert "t_old" in pg.databases()


def test_rows_of_any_size_take_little_memory(pg, dumped):
    pg.sql("CREATE TABLE public.t (id int, v text)", database="t_from")
    pg.sql("INSERT INTO public.t SELECT n, repeat('x', 30000000) FROM generate_series(1, 4) n", database="t_from")
    pg.sql("INSERT INTO public.t SELECT n, 'short' FROM generate_series(5, 12000) n", database="t_from")
    path = dumped()
    tracemalloc.start()
    try:
        read = pg.modules.pgsql_dump.read(path, ["public.t"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read["tables"] == {"public.t": 12000}
    assert read["size"] > 120_000_000
    assert (len(read["rows"]["public.t"]), read["rows"]["public.t"][-1]) == (10000, {"id": "12000", "v": "short"})
    assert peak < 20_000_000


def test_a_table_with_as_many_columns_as_there_can_be_is_counted(pg, dumped):
    columns = ", ".join(f'"{chr(34) * 110}{number:04}" int' for number in range(1500))
    pg.sql(f"CREATE TABLE public.t ({columns}, v text); CREATE TABLE public.other (id int)", database="t_from")
    pg.sql("INSERT INTO public.t (v) VALUES ('COPY public.other (id) FROM stdin;'), ('x')", database="t_from")
    assert pg.modules.pgsql_dump.read(dumped())["tables"] == {"public.t": 2, "public.other": 0}


def test_names_of_several_lines_are_names(pg, dumped):
    pg.sql(
        """
        CREATE TABLE public."a (b) FROM stdin;\n\\.\nc" ("d) FROM stdin;\ne" int, "f""g" int);
        INSERT INTO public."a (b) FROM stdin;\n\\.\nc" VALUES (1, 2), (3, 4);
        CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1);
        """,
        database="t_from",
    )
    name = "public.a (b) FROM stdin;\n\\.\nc"
    read = pg.modules.pgsql_dump.read(dumped(), [name])
    assert read["tables"] == {name: 2, "public.t": 1} == pg.modules.pgsql_table.row_counts("t_from")
    assert read["rows"][name] == [{"d) FROM stdin;\ne": "1", 'f"g': "2"}, {"d) FROM stdin;\ne": "3", 'f"g': "4"}]


def test_an_index_whose_statistics_never_end_is_given_up(pg):
    quick = "CREATE OR REPLACE FUNCTION public.t_slow(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN %s END'"
    pg.sql(
        f"""
        SET ROLE t_owner; {quick % "RETURN i;"};
        CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1); CREATE INDEX ON public.t (public.t_slow(id));
        {quick % "PERFORM pg_sleep(600); RETURN i;"};
        """,
        database="t_to",
    )
    began = time.monotonic()
    with pytest.raises(CommandExecutionError, match="statement timeout"):
        pg.modules.pgsql_database.analyze("t_to", OWNER, 2)
    assert time.monotonic() - began < 300


def test_a_message_of_the_owner_sends_nothing_to_a_terminal(pg):
    body = "BEGIN RAISE EXCEPTION E'a\\x1b]0;title\\x07b\\nc\\u009b%', repeat('x', 100000); END"
    pg.sql(
        f"SET ROLE t_owner; CREATE FUNCTION public.t_raise() RETURNS int LANGUAGE plpgsql AS $f$ {body} $f$",
        database="t_to",
    )
    with pytest.raises(CommandExecutionError, match="ab c x") as error:
        pg.modules.pgsql_database.query_as("t_owner", "t_to", "SELECT public.t_raise()")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 5000


def test_a_check_that_never_ends_is_given_up(pg, dumped):
    pg.sql(
        """
        CREATE FUNCTION public.t_slow(i int) RETURNS boolean LANGUAGE plpgsql AS
            'BEGIN IF current_database() = ''t_to'' THEN PERFORM pg_sleep(600); END IF; RETURN true; END';
        CREATE TABLE public.t (id int CHECK (public.t_slow(id)));
        INSERT INTO public.t VALUES (1);
        """,
        database="t_from",
    )
    began = time.monotonic()
    with pytest.raises(CommandExecutionError, match="has not ended within 3 s"):
        pg.modules.pgsql_dump.restore(dumped(), "t_to", OWNER, timeout=3)
    assert time.monotonic() - began < 300
    pg.modules.pgsql_database.drop("t_to", force=True)
    sleeping = "FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
    assert pg.at_last(f"SELECT query {sleeping}", []) == []


def test_a_role_that_made_itself_read_only_can_restore(pg, dumped):
    pg.sql("CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1)", database="t_from")
    for setting in (
        "default_transaction_read_only = on",
        "local_preload_libraries = 'nosuch'",
        "datestyle = 'SQL, DMY'",
    ):
        pg.sql(f"ALTER ROLE t_owner SET {setting}")
    pg.new_run()
    pg.modules.pgsql_dump.restore(dumped(), "t_to", OWNER)
    assert pg.value("SELECT count(*) FROM public.t", database="t_to") == 1


def test_large_objects_are_kept_counted_and_handed_over(pg, dumped):
    """Immich makes none; whoever has its role can, and more than a transaction may hold locks."""
    pg.sql(
        """
        SET SESSION AUTHORIZATION t_owner;
        SELECT lo_from_bytea(7001, decode(repeat('ab', 3000000), 'hex'));
        SELECT lo_create(8000 + g) FROM generate_series(1, 8000) g;
        """,
        database="t_from",
    )
    path = dumped()
    assert 3_000_000 < pg.modules.pgsql_dump.read(path)["size"] < 6_000_000
    pg.modules.pgsql_role.set("t_guest", login=True, password="abc")
    pg.modules.pgsql_database.set("t_to", owner="t_guest")
    pg.modules.pgsql_dump.restore(path, "t_to", {**OWNER, "user": "t_guest", "password": "abc"})
    pg.modules.pgsql_server.disconnect("t_to")
    pg.modules.pgsql_role.drop("t_guest", reassign_to="t_owner")
    owners = "SELECT lomowner::regrole::text, count(*) FROM pg_largeobject_metadata GROUP BY 1"
    assert pg.sql(owners, database="t_to") == [("t_owner", 8001)]
    held = "SELECT md5(lo_get(7001)), length(lo_get(7001))"
    assert pg.sql(held, database="t_to") == pg.sql(held, database="t_from")
    pg.modules.pgsql_database.drop("t_to", force=True)
