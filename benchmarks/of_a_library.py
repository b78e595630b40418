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

Each ratio is told by the clock and by the CPU that the whole host has used meanwhile, PostgreSQL's servers included:
on a machine that does other things too, only the latter says something of the programs. `load` is the machine's.
"""

import argparse
import json
import shlex
import statistics
import sys
import time

from benchmarks.downtime import ASK, PILLAR, downtime
from benchmarks.side_by_side import METER, require_hosts, say
from tests.host.lan import Lan
from tests.host.machine import Host
from tests.host.registry import Registry, stored, use_registry

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
# The CPU of all of the host, ten times a second.
SAMPLER = """
import time
while True:
    with open("/sys/fs/cgroup/cpu.stat") as file, open("/tmp/cpu", "a") as samples:
        samples.write(f"{time.time()} {file.readline().split()[1]}\\n")
    time.sleep(0.1)
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
    with Lan() as lan:
        Registry(lan, stored())
        with Host("host", lan=lan) as host:
            use_registry(host)
            found = _rounds(host, size, rounds)
    figures = {name: round(statistics.median(each[name] for each in found), 2) for name in found[0]}
    ratios = {
        f"{what}_{kind}ratio": round(figures[f"{what}_{kind}s"] / figures[f"raw_{what}_{kind}s"], 2)
        for what in ("dump", "fill")
        for kind in ("", "cpu_")
    }
    beyond = round(figures["down_s"] - figures["raw_down_s"], 2)
    return {**figures, **ratios, "down_beyond_s": beyond, "peak_mib": max(each["peak_mib"] for each in found)}


def _rounds(host, size, rounds):
    """The figures of each round on a host."""
    host.pillar({**PILLAR, "backup": {"keep": 1}})
    host.apply()
    host.wait_for("curl -sf http://127.0.0.1:2283/standin/ml", 120)
    host.run("systemctl start immich-backup")  # its directory of the lock
    host.write("/tmp/ask.py", ASK)
    host.write("/tmp/options.py", OPTIONS)
    host.write("/tmp/sampler.py", SAMPLER)
    host.run("systemd-run --quiet --unit=t-sampler python3 /tmp/sampler.py")
    say("filling its database")
    host.run(f"{PSQL} -d immich", stdin=FILL.format(size=size), timeout=4 * HOUR)
    found = []
    for number in range(rounds):
        say(f"{size} assets, round {number + 1} of {rounds}")
        found.append(_round(host))
        say(json.dumps(found[-1]))
    return found


def _round(host):
    found = {"load": float(host.out("cut -d ' ' -f 1 /proc/loadavg"))}
    raw = _metered(host, RAW_DUMP)
    made = _metered(host, DUMP)
    name = host.out("cd /var/backups/immich && ls immich_*.dump | tail -n 1")
    found["size_mb"] = int(host.out(f"stat -c %s /var/backups/immich/{name}")) / 1e6
    found["raw_size_mb"] = int(host.out("stat -c %s /var/backups/immich/raw.dump")) / 1e6
    found.update({"raw_dump_s": raw["seconds"], "dump_s": made["seconds"]})
    found.update({"raw_dump_cpu_s": raw["cpu"], "dump_cpu_s": made["cpu"]})
    raw = _raw_restore(host, name)
    found.update({"raw_fill_s": raw["seconds"], "raw_fill_cpu_s": raw["cpu"]})
    found["raw_down_s"] = downtime(host, SWAP)
    found["template_s"], found["database_mb"] = _template(host)
    restore = f"salt-call --local --out=json immich.restore {name} confirm=host keep_old=False"
    since = host.out("date +%s.%N")
    found["down_s"] = downtime(host, f"python3 {METER} '{restore}' 2>/tmp/metered", timeout=HOUR)
    spent = json.loads(host.read("/tmp/metered").splitlines()[-1])
    found["restore_s"], found["peak_mib"] = spent["seconds"], max(made["peak_mib"], spent["peak_mib"])
    begin, end = _moments(host, since, "Creating the database", "Stopping immich.service")
    found["fill_s"], found["fill_cpu_s"] = end - begin, _cpu(host, begin, end)
    return found


def _raw_restore(host, name):
    """What the fill of a database by pg_restore takes, while Immich is asked as it is during a restore."""
    text = host.salt("pgsql_dump.read", f"/var/backups/immich/{name}", timeout=HOUR)["size"]
    jobs, options = host.out(f"python3 /tmp/options.py {text}").split(" ", 1)
    host.run(PREPARE_RAW)
    raw = RAW_RESTORE.format(options=options, jobs=jobs, path="/var/backups/immich/raw.dump")
    host.write("/tmp/raw.sh", f"runuser -u postgres -- env {raw}")
    host.run("python3 /tmp/ask.py >/dev/null 2>&1 & echo $! >/tmp/asker")
    spent = _metered(host, "sh /tmp/raw.sh")
    host.run("kill $(cat /tmp/asker)")
    host.run(f"{PSQL} -d postgres -c 'DROP DATABASE raw WITH (FORCE)'; rm /var/backups/immich/raw.dump")
    return spent


def _template(host):
    """Seconds for a copy of the database, and its MB."""
    host.run("systemctl stop immich")
    seconds = _metered(host, COPY)["seconds"]
    size = int(host.out(f"{PSQL} -d postgres -c \"select pg_database_size('raw')\"")) / 1e6
    host.run(f"{PSQL} -d postgres -c 'DROP DATABASE raw'; systemctl start immich")
    host.wait_for("curl -sf http://127.0.0.1:2283/api/server/ping", 300)
    return seconds, size


def _metered(host, command):
    """``seconds`` of a command, ``cpu`` seconds of the host meanwhile, ``peak_mib`` of its largest process."""
    begin = float(host.out("date +%s.%N"))
    spent = json.loads(host.run(f"python3 {METER} {shlex.quote(command)}", timeout=HOUR).stderr.splitlines()[-1])
    return {**spent, "cpu": _cpu(host, begin, float(host.out("date +%s.%N")))}


def _moments(host, since, *told):
    """When a restore told some lines, seconds since the epoch."""
    lines = host.out(f"journalctl -t immich-restore -o short-unix --since @{since}").splitlines()
    return [next(float(line.split()[0]) for line in lines if each in line) for each in told]


def _cpu(host, begin, end):
    """CPU seconds of all of a host between two moments."""
    time.sleep(0.3)  # the sampler comes after the second one
    samples = [tuple(map(float, line.split())) for line in host.read("/tmp/cpu").splitlines()]
    first, last = (next(used for moment, used in samples if moment >= each) for each in (begin, end))
    return (last - first) / 1e6


def missed(figures):
    """The marks that some figures miss."""
    return [name for name, most in MARKS.items() if figures[name] > most]


def table(result):
    """The figures for a person."""
    sizes = result["sizes"]
    rows = [("assets", *map(str, sizes))]
    rows += [(name, *(f"{each[name]:.2f}" for each in sizes.values())) for name in next(iter(sizes.values()))]
    lines = ["  ".join(word.rjust(15) for word in row) for row in rows]
    for size, each in result["sizes"].items():
        lines.append(f"{size}: marks {'missed: ' + ', '.join(missed(each)) if missed(each) else 'met'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
