"""The administrator is signed up before a neighbour can be, whatever happens in between; accounts are as declared."""

import contextlib
import itertools
import json
import subprocess
import sys
import time

import pytest

from tests.host.lan import Lan
from tests.host.machine import Host
from tests.host.registry import Registry, stored, use_registry
from tests.scenarios.conftest import PRINTABLE, changed, get, merged, pillar_with
from tests.scenarios.test_interrupted import KILL_AT

pytestmark = pytest.mark.long

PASSWORDS = {"ana": PRINTABLE[3:] + PRINTABLE[:3], "ben": PRINTABLE[5:] + PRINTABLE[:5]}
ADMIN = {"email": "ana@example.org", "name": "Ana {{ 1 }} 'x'", "password": PASSWORDS["ana"]}
BEN = {"email": "ben@example.org", "name": "Ben", "password": PASSWORDS["ben"]}
DECLARED = pillar_with(admin=ADMIN)
KEY_FILE = "/var/lib/immich-formula/api-key.json"
# Tries to become administrator, or to restore a database, without end; each answer is a line.
EVE = """
import http.client, json, os, sys, threading
account = json.dumps({"email": "eve@example.org", "name": "Eve", "password": "a password of Eve"})
def tries(address):
    while True:
        for path in ("/api/auth/admin-sign-up", "/api/admin/database-backups/start-restore"):
            try:
                connection = http.client.HTTPConnection(address, 2283, timeout=0.3)
                connection.request("POST", path, account, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said = f"{answer.status} {answer.read().decode()}"
            except (OSError, http.client.HTTPException) as error:
                said = type(error).__name__
            os.write(1, f"{address} {path} {said}\\n".encode())  # a line at once, whatever the other threads write
            threading.Event().wait(0.1)
for address in sys.argv[1:]:
    threading.Thread(target=tries, args=(address,)).start()
"""
# Who runs as another user of the host, as a reverse proxy does.
LOCAL_EVE = """[Service]
User=nobody
ExecStart=/usr/bin/python3 /srv/eve.py 127.0.0.1
StandardOutput=append:/var/log/eve
Restart=always
[Install]
WantedBy=multi-user.target
"""
CONTAINERS = [f"172.20.0.{number}" for number in range(2, 6)]


class Neighbours:
    """One on the LAN, with a route to the containers too, and one on the host itself."""

    def __init__(self, host, log):
        self._host, self._log = host, log
        host.lan.run("ip", "route", "add", "172.20.0.0/16", "via", host.address)
        command = [*host.lan.enter, sys.executable, "-c", EVE, host.address, *CONTAINERS]
        with open(log, "w", encoding="utf8") as output:
            self._process = subprocess.Popen(command, stdout=output)
        host.write("/srv/eve.py", EVE)
        host.write("/etc/systemd/system/eve.service", LOCAL_EVE)
        host.run("systemctl daemon-reload; systemctl enable --now eve")

    def said(self, but=(0, 0)):
        """What each of them was answered, as address, path and answer, but for so many answers of before."""
        logs = self._log.read_text(encoding="utf8"), self._host.out("cat /var/log/eve", check=False)
        lines = [log.splitlines()[skipped:] for log, skipped in zip(logs, but)]
        return [[line.split(" ", 2) for line in each if line.count(" ") > 1] for each in lines]

    def try_on(self, both=True, told=""):
        """Wait until each has tried twice more, and one was told this; return what they have been answered since."""
        before = [len(each) for each in self.said()]
        deadline = time.monotonic() + 120
        while True:
            on_lan, local = self.said(before)
            tried = sum(each[0] == self._host.address for each in on_lan) >= 4 and (len(local) >= 4 or not both)
            if tried and any(told in each[2] for each in on_lan + local):
                return on_lan + local
            assert time.monotonic() < deadline, (on_lan, local)
            time.sleep(0.2)

    def close(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def host():
    with Lan() as lan:
        lan.registry = Registry(lan, stored())
        with Host("host", lan=lan) as host:
            use_registry(host)
            host.pillar(DECLARED)
            yield host


@pytest.fixture(scope="module")
def neighbours(host, tmp_path_factory):
    with contextlib.closing(Neighbours(host, tmp_path_factory.mktemp("eve") / "log")) as neighbours:
        yield neighbours


def sql(host, statement):
    return host.out("runuser -u postgres -- psql -qAtX immich", stdin=statement)


def users(host):
    return sql(host, 'SELECT email FROM "user" ORDER BY 1').split()


def failed(states):
    return "\n".join(state["comment"] for state in states if state["result"] is False)


def assert_kept_out(answers):
    """Nobody has answered them, whatever they asked."""
    assert [each for each in answers if each[2][0].isdigit()] == []


def assert_let_in_and_refused(neighbours, both=True, told="Admin setup is disabled"):
    """That they are kept out before is no fault of theirs. On a busy machine many a try ends before its answer."""
    answers = neighbours.try_on(both, told)
    assert not [each for each in answers if each[2].startswith("2")]


def single(host, *words):
    """The comment of a state that fails."""
    (state,) = host.salt("state.single", *words).values()
    assert state["result"] is False
    return state["comment"]


def test_nobody_else_becomes_administrator_whatever_happens_in_between(host, neighbours):
    # The server serves, and the run ends before the sign-up.
    host.apply("immich.app")
    assert get(host, "/api/server/config")["isInitialized"] is False
    assert_kept_out(neighbours.try_on())
    (row,) = [row for row in host.salt("immich.doctor", check=False) if row["part"] == "accounts"]
    assert (row["result"], row["remedy"]) == ("failed", "salt-call state.apply immich")
    host.reboot()
    host.wait_for("systemctl is-active immich", 300)
    assert get(host, "/api/server/config")["isInitialized"] is False
    assert_kept_out(neighbours.try_on())

    # It is killed as soon as the administrator is there, and then the power fails.
    there = """runuser -u postgres -- psql -qAtX immich -c 'SELECT 1 FROM "user"' | grep -q 1"""
    assert host.out(KILL_AT.format(condition=there)) == "killed"
    assert users(host) == ["ana@example.org"]
    assert_kept_out(neighbours.try_on())
    host.crash()
    host.boot()
    host.wait_for("systemctl is-active immich", 300)
    assert_kept_out(neighbours.try_on())

    host.apply()
    assert_let_in_and_refused(neighbours)
    assert changed(host.apply()) == changed(host.apply(test=True)) == {}
    assert users(host) == ["ana@example.org"]
    assert sql(host, "SELECT count(*) FROM system_metadata WHERE key = 'maintenance-mode'") == "0"
    assert sql(host, "SELECT count(*) FROM session") == "0"


def test_accounts_and_libraries_are_as_declared(host):
    host.run("mkdir -p /mnt/photos")
    libraries = [{"path": "/mnt/photos", "owner": "ben@example.org"}]
    host.pillar(merged(DECLARED, {"users": [{**BEN, "quota": "50g"}], "external_libraries": libraries}))
    planned, done = changed(host.apply(test=True)), changed(host.apply())
    assert set(planned) == set(done)
    assert done["The account ben@example.org is present"] == {"ben@example.org": {"old": None, "new": "present"}}
    assert changed(host.apply()) == {}
    row = sql(host, """SELECT "quotaSizeInBytes", "shouldChangePassword", "isAdmin" FROM "user" WHERE name = 'Ben'""")
    assert row == f"{50 * 1024**3}|t|f"
    assert sql(host, 'SELECT "importPaths", "refreshedAt" IS NOT NULL FROM library') == "{/mnt/photos}|t"

    # What a person has changed and nobody declares stays; what is declared comes back.
    sql(host, """UPDATE "user" SET "storageLabel" = 'x', name = 'Benjamin', password = 'y' WHERE name = 'Ben'""")
    planned, done = changed(host.apply("immich.accounts", test=True)), changed(host.apply("immich.accounts"))
    assert planned == done
    assert list(done.values()) == [{"name": {"old": "Benjamin", "new": "Ben"}}]
    assert sql(host, """SELECT "storageLabel", password FROM "user" WHERE name = 'Ben'""") == "x|y"

    assert [each["email"] for each in host.salt("immich_account.users")] == ["ben@example.org", "ana@example.org"]
    # A folder that the container does not have is refused again and again, and leaves one library to go on with.
    for _ in range(2):
        assert "Path does not exist" in single(host, "immich_library.present", "/mnt/absent", f"owner={BEN['email']}")
    assert sql(host, "DELETE FROM library WHERE name = '/mnt/absent' RETURNING \"importPaths\"") == "{}"
    # A library is nobody else's, and no account is deleted for its name alone.
    sql(host, """UPDATE library SET "ownerId" = (SELECT id FROM "user" WHERE "isAdmin")""")
    assert "Immich cannot give a library to another one" in failed(host.apply("immich.accounts", check=False))
    assert "set confirm to ben@example.org" in single(host, "immich_user.absent", BEN["email"])
    # An entry that is gone deletes nobody.
    host.pillar(DECLARED)
    host.apply()
    assert users(host) == ["ana@example.org", "ben@example.org"]
    sql(host, "DELETE FROM library")
    host.pillar(merged(DECLARED, {"users": [{"email": BEN["email"], "delete": BEN["email"]}]}))
    assert set(changed(host.apply(test=True))) == {"There is no account ben@example.org"}
    host.apply()
    deleted = """SELECT status FROM "user" WHERE email = 'ben@example.org'"""
    assert sql(host, deleted) == "deleted"
    assert changed(host.apply()) == {}
    host.pillar(merged(DECLARED, {"users": [BEN]}))
    (change,) = changed(host.apply()).values()
    assert change == {"status": {"old": "deleted", "new": "active"}}
    assert sql(host, deleted) == "active"
    host.pillar(merged(DECLARED, {"external_libraries": [{"path": "/mnt/photos", "owner": "nobody@example.org"}]}))
    assert "nobody@example.org, the owner of /mnt/photos, has no account" in failed(host.apply(check=False))


def key(host):
    return json.loads(host.read(KEY_FILE))


def works(host, secret):
    asked = f"curl -s -o /dev/null -w '%{{http_code}}' -H 'x-api-key: {secret}' http://127.0.0.1:2283/api/admin/users"
    return host.out(asked) == "200"


def test_the_api_key_is_rotated_made_again_and_read_by_root_alone(host):
    host.pillar(DECLARED)
    host.apply()
    assert host.out(f"stat -c '%U %a' {KEY_FILE} {KEY_FILE.rpartition('/')[0]}") == "root 600\nroot 700"
    first = key(host)
    assert host.salt("immich.rotate") == [KEY_FILE]
    second = key(host)
    assert (works(host, first["secret"]), works(host, second["secret"])) == (False, True)
    assert sql(host, "SELECT id FROM api_key") == second["id"]
    assert changed(host.apply()) == {}

    # As after a restore of an older database.
    sql(host, "DELETE FROM api_key")
    (row,) = [row for row in host.salt("immich.doctor", check=False) if row["part"] == "accounts"]
    assert "refuses the formula's API key" in row["seen"]
    assert list(changed(host.apply("immich.accounts"))) == ["The formula's API key for Immich is present"]
    assert works(host, key(host)["secret"])

    # With another password than the initial one the key goes on; a lost one needs the present password.
    kept = sql(host, """SELECT password FROM "user" WHERE email = 'ana@example.org'""")
    sql(
        host,
        """UPDATE "user" SET password = (SELECT password FROM "user" WHERE name = 'Ben')
                 WHERE email = 'ana@example.org'; UPDATE "user" SET password = 'x' WHERE name = 'Ben'""",
    )
    assert changed(host.apply("immich.accounts")) == {}
    host.run(f"rm {KEY_FILE}")
    assert "immich:admin:password is the initial password" in failed(host.apply("immich.accounts", check=False))
    sql(host, f"""UPDATE "user" SET password = '{kept}' WHERE email = 'ana@example.org'""")
    host.apply()
    assert sql(host, "SELECT count(*) FROM api_key") == "1"


def test_all_of_immichs_settings_are_compared_by_the_api_key(host):
    for days, differing in ((7, []), (8, ["immich:settings:trash:days"])):
        host.pillar(merged(DECLARED, {"settings": {"trash": {"days": days}, "theme": {"customCss": "p {}"}}}))
        if not differing:
            host.apply()
        settings = json.dumps(host.salt("immich_settings.get"))
        found = host.salt("immich_account.unused_settings", f"settings={settings}")
        assert [each["path"] for each in found] == differing


def test_where_oauth_is_the_only_login_the_key_goes_on_and_none_can_be_made(host):
    host.pillar(merged(DECLARED, {"settings": {"passwordLogin": {"enabled": False}}}))
    host.apply()
    assert works(host, key(host)["secret"])
    host.run(f"mv {KEY_FILE} /root/key")
    states = host.apply(check=False)
    assert changed(states) == {}
    assert "immich:settings:passwordLogin:enabled" in failed(states)
    asked = (KEY_FILE, f"email={ADMIN['email']}", "password_pillar=immich:admin:password")
    comment = single(host, "immich_account.key_present", *asked)
    assert "Password login has been disabled" in comment
    assert "set passwordLogin:enabled to true" in comment
    host.run(f"mv /root/key {KEY_FILE}")
    assert changed(host.apply()) == {}


def test_no_secret_is_anywhere_but_in_its_place(host):
    host.pillar(merged(DECLARED, {"users": [{**BEN, "email": "cem@example.org", "name": "Cem"}]}))
    host.run("rm -f /var/log/salt/minion")
    done = host.run("salt-call --local state.apply immich.accounts --log-file-level=trace", timeout=300).stdout
    assert "The account cem@example.org was created" in done
    host.write("/run/test/secrets", "\n".join([*PASSWORDS.values(), key(host)["secret"]]) + "\n", mode="0600")
    assert host.run("grep -qF -f /run/test/secrets -", stdin=done, check=False).returncode == 1
    places = "/var/log /var/cache/salt /opt/podman /etc /var/lib/immich-formula /run/immich* /tmp"
    found = host.out(f"grep -rlF -f /run/test/secrets {places} 2>/dev/null", check=False)
    assert found == KEY_FILE
    logs = "journalctl -o cat; podman inspect --all; podman logs immich-server 2>&1; cat /proc/[0-9]*/cmdline"
    assert host.out(f"({logs}) | grep -caF -f /run/test/secrets", check=False) == "0"


def test_a_database_without_an_administrator_closes_the_port_again(host, neighbours):
    host.pillar(DECLARED)
    sql(host, 'TRUNCATE "user" CASCADE')
    # Whoever comes in cannot sign up: the server holds to it.
    assert_let_in_and_refused(neighbours)
    planned, done = changed(host.apply(test=True)), changed(host.apply())
    assert set(planned) == set(done)
    assert users(host) == ["ana@example.org"]
    assert not [each for each in itertools.chain(*neighbours.said()) if each[2].startswith("2")]
    assert_let_in_and_refused(neighbours)
    assert changed(host.apply()) == {}


def test_clean_takes_the_key_from_both_and_an_installation_with_users_is_open_at_once(host, neighbours):
    former = key(host)
    assert "The formula's API key for Immich is absent" in changed(host.apply("immich.clean", test=True))
    host.apply("immich.clean")
    assert host.run(f"test -e {KEY_FILE}", check=False).returncode == 1
    assert sql(host, f"SELECT count(*) FROM api_key WHERE id = '{former['id']}'") == "0"
    assert users(host) == ["ana@example.org"]
    done = changed(host.apply())
    assert "Sign-up is closed, and the port of Immich is open" not in done
    assert_let_in_and_refused(neighbours)
    # So is one whose pillar says nothing of accounts, and its key is removed when that is wanted.
    host.pillar(pillar_with())
    host.apply("immich.accounts.clean")
    host.apply()
    assert "ALLOW_SETUP" not in host.read("/opt/podman/immich/docker-compose.yml")
    assert_let_in_and_refused(neighbours, told="The server already has an admin")


def test_the_port_is_for_this_host_alone_until_a_person_has_signed_up(host, neighbours):
    host.run("systemctl disable --now eve")  # who is on this host
    host.pillar(pillar_with(setup="host"))
    assert changed(host.apply()) != {}  # with users: sign-up is closed, and the port open
    assert "ALLOW_SETUP" in host.read("/opt/podman/immich/docker-compose.yml")
    sql(host, 'TRUNCATE "user" CASCADE')
    states = host.apply()
    (warning,) = [text for state in states for text in state.get("warnings", [])]
    assert "until then only this host reaches port 2283" in warning
    assert_kept_out(neighbours.try_on(both=False))
    person = json.dumps({"email": "p@example.org", "name": "P", "password": "a password of P"})
    asked = "curl -s -H 'Content-Type: application/json' -d @- http://127.0.0.1:2283/api/auth/admin-sign-up"
    assert json.loads(host.out(f"runuser -u nobody -- {asked}", stdin=person))["isAdmin"] is True
    host.apply()
    assert_let_in_and_refused(neighbours, both=False)
    assert users(host) == ["p@example.org"]
    assert changed(host.apply()) == {}
