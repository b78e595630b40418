"""The pillar names another database, network, directory or login for the installation on a host.

One host goes through docs/howto/identity.md, section by section.
"""

import json

import yaml

from tests.scenarios.conftest import PASSWORDS, PILLAR, changed, get, merged, pillar_with, post
from tests.scenarios.reader import blocks, commands
from tests.scenarios.test_service import ids

PAGE = "docs/howto/identity.md"
APPLY = "salt-call state.apply immich"
PSQL = "runuser -u postgres -- psql -qAtX"
RECORD = "/var/lib/immich-formula/installation.json"
OTHER_OWNERS = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND pg_get_userbyid(c.relowner) NOT IN ('postgres', 'photographer')
"""


def failed(states):
    return [state for state in states if state["result"] is False]


def photos(host):
    return get(host, "/standin/state")["database"]["counts"]["assets"]


def refused(host, **changes):
    """What the one red state of a plan and of an apply says. Neither changes anything."""
    host.pillar(pillar_with(**changes))
    before = ids(host)
    plan, done = (failed(host.apply(test=test, check=False))[0] for test in (True, False))
    assert plan["id"] == done["id"] == "The installation is the one on record"
    assert plan["comment"] == done["comment"]
    assert ids(host) == before
    assert get(host, "/api/server/ping") == {"res": "pong"}
    return done["comment"]


def followed(host, pillar, section):
    """Do what a section of the page says; return the new pillar, and the states that changed something.

    A dry run tells the same states, a second apply changes nothing, and Immich has its photos and takes another.
    """
    before, done = photos(host), {}
    for language, text, _ in blocks(PAGE, section):
        if language == "yaml":
            pillar = merged(pillar, yaml.safe_load(text)["immich"])
            host.pillar(pillar)
            planned = changed(host.apply(test=True))
            continue
        for command in commands(text):
            if command == APPLY:
                done = changed(host.apply())
            else:
                host.run(command)
    assert set(planned) == set(done) != set()
    assert changed(host.apply()) == {}
    assert post(host, "/standin/jobs")["denied"] == []
    assert photos(host) == before
    post(host, "/standin/assets")
    assert photos(host) > before
    return pillar, done


def valkey(host, command):
    host.write("/run/test/default", PASSWORDS["admin"], mode="0600")
    secret = 'REDISCLI_AUTH="$(cat /run/test/default; printf x)"; export REDISCLI_AUTH="${REDISCLI_AUTH%x}"'
    return host.out(f"{secret}; valkey-cli --user default {command}")


def test_each_part_is_migrated_or_refused_with_the_way_to_do_it(own_host):
    host = own_host
    post(host, "/standin/assets")
    assert host.out(f"stat -c '%a %U' {RECORD}") == "600 root"

    # A database and a library that Immich would find empty, together, in one red state.
    words = refused(host, postgres={"database": "photos"}, upload_location="/srv/photos")
    assert 'ALTER DATABASE "immich" RENAME TO "photos"' in words
    assert "immich:upload_location_moved_from: /srv/immich/upload" in words
    assert host.out(f"{PSQL} -c \"SELECT count(*) FROM pg_database WHERE datname = 'photos'\"") == "0"
    assert '"PGDATABASE": "immich"' in host.read("/etc/immich-formula/backup.json")
    pillar, done = followed(host, PILLAR, "Rename the database")
    assert done["The installation is recorded"] == {"database": {"old": "immich", "new": "photos"}}
    assert "Salt: immich" not in host.read("/etc/postgresql/17/main/pg_hba.conf")

    pillar, _ = followed(host, pillar, "Rename the network")
    assert "immich" not in host.out("podman network ls --format '{{.Name}}'").split()

    # An installation of a formula that kept no record: its unit and its compose file say where it is.
    host.run(f"rm {RECORD}")
    pillar, _ = followed(host, pillar, "Move the compose project")
    assert host.run("test -e /opt/podman/immich", check=False).returncode != 0
    assert host.out("podman ps --format '{{.Labels}}' | grep -c working_dir:/srv/projects/immich") == "2"
    # For a moment there is another one of each program that it starts.
    host.wait_for("test $(pgrep -fc '[i]mmich-stack run') = 1")
    host.run("sleep 4; systemctl is-active immich")

    # What the former role has elsewhere stays its own.
    host.run(f"{PSQL} -c 'CREATE DATABASE elsewhere OWNER immich'")
    pillar, _ = followed(host, pillar, "Use another role or Valkey user")
    assert host.out(f'{PSQL} photos -c "{OTHER_OWNERS}"') == "0"
    owners = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname IN ('elsewhere', 'photos') ORDER BY datname"
    assert host.out(f'{PSQL} -c "{owners}"').split() == ["immich", "photographer"]
    assert {"photographer", "immich"} & {*valkey(host, "ACL USERS").split()} == {"photographer"}

    # Queued jobs come along.
    valkey(host, "SET immich_bull:queued job")
    pillar, _ = followed(host, pillar, "Use another database number in Valkey")
    assert valkey(host, "-n 3 GET immich_bull:queued") == "job"
    assert valkey(host, "-n 0 --scan --pattern 'immich_bull:*'") == ""

    # Files change their owner, those that a container has planted too.
    given = {
        "Run the containers as root": "0",
        "Run the containers as users of their own": "60883",
    }
    folder = "/srv/immich/upload"
    for section, owner in given.items():
        host.run(f"ln -sf /etc/passwd {folder}/link; cp /bin/true {folder}/setuid && chmod 4755 {folder}/setuid")
        pillar, done = followed(host, pillar, section)
        assert set(done["Immich's project, tables and queues are migrated"]) == {"server_user", "machine_learning_user"}
        assert host.out(f"find {folder} -printf '%U\n' | sort -u") == owner
        assert host.out(f"stat -c '%u %a' /etc/passwd {folder}/setuid") == f"0 644\n{owner} 755"
        assert host.out("podman exec immich-server id -u") == owner

    # What clean leaves is recognized, also under another name.
    before = photos(host)
    host.apply("immich.clean")
    assert set(json.loads(host.read(RECORD))["parts"]) == {"server", "database", "role", "library"}
    host.pillar(merged(pillar, {"postgres": {"database": "immich"}}))
    assert "Immich would start empty" in failed(host.apply(check=False))[0]["comment"]
    host.run(f"{PSQL} -c 'DROP DATABASE elsewhere'")
    host.pillar(merged(pillar, {"postgres": {"user": "immich"}}))
    host.apply()
    assert photos(host) == before
    assert changed(host.apply()) == {}
    roles = "SELECT rolname FROM pg_roles WHERE rolname IN ('immich', 'photographer')"
    assert host.out(f'{PSQL} -c "{roles}"') == "immich"
