"""Backup and restore of a library's database, beside PostgreSQL's own programs in their best setting here.

For each size one disposable host gets so many assets, each with a face, with an embedding of 512 numbers for both and
an HNSW index on each. Then, in turns, each round:

  dump      `pg_dump --format=custom --compress=zstd:1`, and what `immich.backup` starts
  restore   `pg_restore` into a fresh database, with as many jobs, memory and workers as the formula takes, and
            `immich.restore`, of which the time from the fresh database to the stop of Immich counts
  down      stopping Immich, renaming its database and back, starting it; and how long `immich.restore` has Immich
            not answer, asked every 20 ms
  template  a copy of the database's files while Immich is stopped (`CREATE DATABASE … TEMPLATE`), which an update could
            keep for its rollback instead of restoring a backup; and the size of the database
"""

import argparse
import json
import shlex
import statistics
import sys

from benchmarks.downtime import ASK, PILLAR, downtime
from benchmarks.side_by_side import METER, require_hosts, say
from tests.host import images
from tests.host.machine import Host

SIZES = (4000, 20000, 100000)
# What a mark allows: times the raw tool, seconds beyond stop, swap and start, MiB of the largest process.
MARKS = {"dump_ratio": 1.15, "fill_ratio": 1.15, "down_beyond_s": 2.0, "peak_mib": 200}
HOUR = 3600
PSQL = "runuser -u postgres -- psql -qAtX -v ON_ERROR_STOP=1"
# Random vectors: an index of them takes no less time than one of real ones, and is quicker to build than to grow.
FILL = """
SET maintenance_work_mem = '1GB'; SET min_parallel_table_scan_size = 0; SET synchronous_commit = off;
SET ROLE immich;
DROP INDEX IF EXISTS clip_index, face_index;
INSERT INTO asset ("originalPath", "originalFileName", checksum)
    SELECT '/data/' || i, 'IMG_' || i || '.jpg', sha256(i::text::bytea) FROM generate_series(1, {size}) i;
INSERT INTO asset_face ("assetId") SELECT id FROM asset;
CREATE FUNCTION pg_temp.v(text) RETURNS vector LANGUAGE sql VOLATILE AS
    'SELECT array_agg(random() - 0.5)::vector FROM generate_series(1, 512 + 0 * length($1))';
INSERT INTO smart_search SELECT id, pg_temp.v(id::text) FROM asset;
INSERT INTO face_search SELECT id, pg_temp.v(id::text) FROM asset_face;
CREATE INDEX clip_index ON smart_search USING hnsw (embedding vector_cosine_ops);
CREATE INDEX face_index ON face_search USING hnsw (embedding vector_cosine_ops);
RESET ROLE;
VACUUM ANALYZE;
CHECKPOINT;
"""
RAW_DUMP = "runuser -u postgres -- pg_dump --format=custom --compress=zstd:1 --file=/var/backups/immich/raw.dump immich"
DUMP = "/usr/local/lib/immich-formula/immich-backup run"
PREPARE_RAW = f"""
{PSQL} -d postgres -c 'DROP DATABASE IF EXISTS raw WITH (FORCE)'
{PSQL} -d postgres -c 'CREATE DATABASE raw TEMPLATE template0'
"""
RAW_RESTORE = "PGOPTIONS='{options}' pg_restore --jobs={jobs} --exit-on-error --no-owner --dbname=raw {path}"
OPTIONS = """
import os, sys
sys.path.insert(0, "/srv/formula/_utils")
from pgsql_core import restore_settings
free = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemAvailable:"))
print(restore_settings.jobs(os.cpu_count()), restore_settings.of_session(int(sys.argv[1]), os.cpu_count(), free))
"""
RENAME = "alter database immich rename to t_other; alter database t_other rename to immich"
COPY = f"{PSQL} -d postgres -c 'CREATE DATABASE raw TEMPLATE immich STRATEGY file_copy'"
SWAP = f"systemctl stop immich && {PSQL} -d postgres -c '{RENAME}' && systemctl start immich"


def main():
    parser = argparse.ArgumentParser(
        prog="benchmarks/library", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="assets (default: 4000 20000 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    require_hosts()
    sizes = {size: measured(size, arguments.rounds) for size in arguments.sizes}
    result = {"rounds": arguments.rounds, "marks": MARKS, "sizes": sizes}
    print(json.dumps(result) if arguments.json else table(result))
    return 0 if all(missed(figures) == [] for figures in sizes.values()) else 1


def measured(size, rounds):
    """The figures of one size: medians of all rounds, and the ratios of those."""
    say(f"{size} assets: booting a host")
    with Host("host", layers=images.ready()) as host:
        host.pillar({**PILLAR, "backup": {"keep": 1}})
        host.apply()
        host.wait_for("curl -sf http://127.0.0.1:2283/standin/ml", 120)
        host.write("/tmp/ask.py", ASK)
        host.write("/tmp/options.py", OPTIONS)
        say("filling its database")
        host.run(f"{PSQL} -d immich", stdin=FILL.format(size=size), timeout=4 * HOUR)
        found = [_round(host) for _ in range(rounds)]
    figures = {name: round(statistics.median(each[name] for each in found), 2) for name in found[0]}
    return {
        **figures,
        "dump_ratio": round(figures["dump_s"] / figures["raw_dump_s"], 2),
        "fill_ratio": round(figures["fill_s"] / figures["raw_restore_s"], 2),
        "down_beyond_s": round(figures["down_s"] - figures["raw_down_s"], 2),
        "peak_mib": max(each["peak_mib"] for each in found),
    }


def _round(host):
    found = {}
    found["raw_dump_s"], _ = _metered(host, RAW_DUMP)
    found["dump_s"], dump_peak = _metered(host, DUMP)
    name = host.out("cd /var/backups/immich && ls immich_*.dump | tail -n 1")
    found["size_mb"] = int(host.out(f"stat -c %s /var/backups/immich/{name}")) / 1e6
    found["raw_size_mb"] = int(host.out("stat -c %s /var/backups/immich/raw.dump")) / 1e6
    text = host.salt("pgsql_dump.read", f"/var/backups/immich/{name}", timeout=HOUR)["size"]
    jobs, options = host.out(f"python3 /tmp/options.py {text}").split(" ", 1)
    host.run(PREPARE_RAW)
    raw = RAW_RESTORE.format(options=options, jobs=jobs, path="/var/backups/immich/raw.dump")
    host.write("/tmp/raw.sh", f"runuser -u postgres -- env {raw}")
    found["raw_restore_s"], _ = _metered(host, "sh /tmp/raw.sh")
    host.run(f"{PSQL} -d postgres -c 'DROP DATABASE raw WITH (FORCE)'; rm /var/backups/immich/raw.dump")
    found["raw_down_s"] = downtime(host, SWAP)
    host.run("systemctl stop immich")
    found["template_s"], _ = _metered(host, COPY)
    found["database_mb"] = int(host.out(f"{PSQL} -d immich -c \"select pg_database_size('raw')\"")) / 1e6
    host.run(f"{PSQL} -d postgres -c 'DROP DATABASE raw'; systemctl start immich")
    host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 60)
    restore = f"salt-call --local --out=json immich.restore {name} confirm=host keep_old=False"
    since = host.out("date +%s.%N")
    found["down_s"] = downtime(host, f"python3 {METER} '{restore}' 2>/tmp/metered", timeout=4 * HOUR)
    spent = json.loads(host.read("/tmp/metered").splitlines()[-1])
    found["restore_s"], found["peak_mib"] = spent["seconds"], max(dump_peak, spent["peak_mib"])
    found["fill_s"] = _between(host, since, "Creating the database", "Stopping immich.service")
    return found


def _metered(host, command):
    """Seconds, and MiB of the largest process: see meter.py."""
    told = host.run(f"python3 {METER} {shlex.quote(command)}", timeout=4 * HOUR).stderr
    spent = json.loads(told.splitlines()[-1])
    return spent["seconds"], spent["peak_mib"]


def _between(host, since, first, last):
    """Seconds between two lines of a restore in the journal."""
    lines = host.out(f"journalctl -t immich-restore -o short-unix --since @{since}").splitlines()
    moments = [next(float(line.split()[0]) for line in lines if each in line) for each in (first, last)]
    return moments[1] - moments[0]


def missed(figures):
    """The marks that some figures miss."""
    return [name for name, most in MARKS.items() if figures[name] > most]


def table(result):
    """The figures for a person."""
    columns = ("raw_dump_s", "dump_s", "dump_ratio", "raw_restore_s", "fill_s", "fill_ratio", "raw_down_s", "down_s")
    columns += ("down_beyond_s", "peak_mib", "size_mb", "restore_s", "template_s", "database_mb")
    rows = [("assets", *columns)]
    rows += [(str(size), *(f"{each[name]:.2f}" for name in columns)) for size, each in result["sizes"].items()]
    lines = ["  ".join(word.rjust(13) for word in row) for row in rows]
    for size, each in result["sizes"].items():
        lines.append(f"{size}: marks {'missed: ' + ', '.join(missed(each)) if missed(each) else 'met'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
