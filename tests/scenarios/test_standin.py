"""The stand-in images are as strict as Immich: where Immich stops or denies, so do they."""

import json
import re
import shlex
import time

import pytest

from tests.host.lan import Lan
from tests.host.machine import Host
from tests.host.registry import Registry, stored, use_registry
from tests.standin import images

# The rule string of the facts on Immich, and the one of the role's README.
PROMISED = (
    "~immich_bull:* resetchannels &socket.io#/#* &socket.io-request#/#* &socket.io-response#/#* -@all +@read +@write "
    "+@pubsub +ping +select +eval +evalsha -@dangerous -scan -randomkey -dbsize -function -move -copy -pubsub "
    "+pubsub|numsub +info +client|setname +client|setinfo +client|list"
)
README = (
    "~immich_bull* ~immich_channel* &* -@dangerous +@read +@write +@pubsub +select +auth +ping +info +eval +evalsha"
)
PASSWORD = "s3cret of the test"
EXTENSION_FOLDER = "/usr/share/postgresql/17/extension"
HARDENED = "--read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges --user 2000:2000"


class Standin:
    """One host with PostgreSQL, Valkey and the images; starts and stops containers of them."""

    def __init__(self, host):
        self.host = host

    def sql(self, statements, database="postgres"):
        return self.host.run(f"su postgres -c 'psql -qAtX -v ON_ERROR_STOP=1 -d {database}'", stdin=statements).stdout

    def acl(self, rules):
        quoted = " ".join(map(shlex.quote, ["reset", "on", f">{PASSWORD}", *rules.split()]))
        assert self.host.out(f"valkey-cli ACL SETUSER immich {quoted}") == "OK"
        self.host.run("valkey-cli ACL LOG RESET")

    def reset(self):
        """A role, an empty database with the extensions only a superuser makes, empty uploads, the ACL user."""
        self.host.run("podman rm -af -t 0; rm -rf /srv/up /srv/cache; install -d -o 2000 -g 2000 /srv/up /srv/cache")
        self.sql(
            "DROP DATABASE IF EXISTS immich WITH (FORCE); DROP ROLE IF EXISTS immich;"
            f"CREATE ROLE immich LOGIN PASSWORD '{PASSWORD}'; CREATE DATABASE immich OWNER immich;"
        )
        self.sql("CREATE EXTENSION vector; CREATE EXTENSION earthdistance CASCADE;", database="immich")
        self.acl(PROMISED)

    def start(self, tag="v3.3.1", beside=False, **environment):
        """Start a server, beside machine learning or alone; return True when it answers, False when it has exited."""
        self.launch(tag, beside, **environment)
        return self.wait(lambda: self.call("GET", "/api/server/ping") == {"res": "pong"})

    def launch(self, tag="v3.3.1", beside=False, **environment):
        """Start a server and do not wait."""
        variables = {
            "DB_HOSTNAME": "127.0.0.1",
            "DB_USERNAME": "immich",
            "DB_PASSWORD": PASSWORD,
            "DB_VECTOR_EXTENSION": "pgvector",
            "REDIS_HOSTNAME": "127.0.0.1",
            "REDIS_USERNAME": "immich",
            "REDIS_PASSWORD": PASSWORD,
            # Nothing is there, and that is known at once.
            "IMMICH_MACHINE_LEARNING_URL": "http://127.0.0.1:3003",
            **environment,
        }
        if not beside:
            self.stop()
        self._run("server", tag, variables, "-v /srv/up:/data -v /srv/secrets:/run/secrets:ro")

    def wait(self, reached):
        """Wait until ``reached()``; return False if the server exits before."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.host.out("podman inspect --format '{{.State.Running}}' server") != "true":
                return False
            if reached():
                return True
            time.sleep(0.1)
        raise AssertionError(f"the server neither gets there nor exits: {self.logs()}")

    def start_machine_learning(self, **environment):
        variables = {"IMMICH_HOST": "127.0.0.1", **environment}
        self.stop()
        self._run("machine-learning", "v3.3.1", variables, "-v /srv/cache:/cache")
        self.host.wait_for("curl -sf 127.0.0.1:3003/ping")

    def stop(self):
        self.host.run("podman rm -af -t 5")

    def _run(self, part, tag, variables, options):
        env = " ".join(f"-e {shlex.quote(f'{name}={value}')}" for name, value in variables.items())
        image = f"ghcr.io/{images.REPOSITORY.format(part=part)}:{tag}"
        self.host.run(f"podman run -q -d --name {part} --network host {HARDENED} {options} {env} {image}")

    def logs(self):
        return self.host.out("podman logs server 2>&1")

    def call(self, method, path, body=None, port=2283, header="X: 1"):
        data = "" if body is None else f"-d {shlex.quote(json.dumps(body))}"
        header = shlex.quote(header)
        answer = self.host.out(f"curl -s -X {method} -H {header} {data} '127.0.0.1:{port}{path}'", check=False)
        return json.loads(answer) if answer else None


@pytest.fixture(scope="module")
def prepared():
    with Lan() as lan:
        Registry(lan, stored())
        with Host("standin", lan=lan) as host:
            use_registry(host)
            host.run("systemctl restart postgresql valkey-server")
            host.run(f"install -d /srv/secrets; printf %s {shlex.quote(PASSWORD)} >/srv/secrets/unreadable")
            host.run("cd /srv/secrets; cp unreadable readable; chmod 400 *; chown 2000 readable")
            yield Standin(host)


@pytest.fixture
def standin(prepared):
    prepared.reset()
    yield prepared
    prepared.stop()


def test_jobs_of_all_queues_run_under_the_promised_rules(standin):
    assert standin.start()
    result = standin.call("POST", "/standin/jobs")
    assert set(result["completed"].values()) == {result["expected_per_queue"]}
    assert len(result["completed"]) == 19
    assert result["errors"] == []
    assert result["denied"] == []
    assert standin.host.out("valkey-cli ACL LOG") == ""
    keys = standin.host.out("valkey-cli --scan").splitlines()
    assert keys
    assert all(key.startswith("immich_bull:") for key in keys)


def test_rules_of_the_readme_are_told_as_denials(standin):
    standin.acl(README)
    assert standin.start()
    denied = " ".join(standin.call("POST", "/standin/jobs")["denied"])
    assert all(f"'client|{name}'" in denied for name in ("list", "setinfo", "setname"))


def test_a_denied_psubscribe_ends_the_server(standin):
    standin.acl("~immich_bull:* resetchannels &socket.io* +@all")
    standin.launch()
    assert standin.host.out("podman wait server") == "1"
    assert "socket.io#/#*" in standin.logs()


def test_a_wrong_valkey_password_ends_the_server_and_is_not_logged(standin):
    standin.launch(REDIS_PASSWORD="wrong-valkey-password")
    assert standin.host.out("podman wait server") == "1"
    assert "WRONGPASS" in standin.logs()
    assert "wrong-valkey-password" not in standin.logs()


# Two starts, as some have the same name.
WRONG_VALUES = (
    {
        "DB_SSL_MODE": "",
        "DB_VECTOR_EXTENSION": "",
        "DB_PORT": "5432x",
        "IMMICH_LOG_LEVEL": "",
        "IMMICH_PORT": "0",
        "IMMICH_WORKERS_INCLUDE": "api,web",
        "REDIS_DBINDEX": '"0"',
        "TZ": "Mars/Olympus",
    },
    {"DB_VECTOR_EXTENSION": "vector", "IMMICH_LOG_LEVEL": "info"},
)


def test_wrong_and_empty_values_stop_the_start(standin):
    for values in WRONG_VALUES:
        assert not standin.start(**values)
        named = re.search(r"Invalid environment variables: (.*)", standin.logs())[1]
        assert all(f"{name}={value}" in named for name, value in values.items()), named


def test_secret_files(standin):
    files = {"DB_PASSWORD_FILE": "/run/secrets/readable", "REDIS_PASSWORD_FILE": "/run/secrets/readable"}
    assert standin.start(DB_PASSWORD="other", REDIS_PASSWORD="other", **files)


def test_an_unreadable_secret_file_means_the_password_postgres(standin):
    unreadable = {"DB_PASSWORD_FILE": "/run/secrets/unreadable"}
    assert not standin.start(**unreadable)
    assert "password authentication failed" in standin.logs()
    standin.sql("ALTER ROLE immich PASSWORD 'postgres'")
    assert standin.start(**unreadable)


def test_only_six_names_may_come_from_files(standin):
    assert not standin.start(DB_PORT="1", DB_PORT_FILE="/run/secrets/readable")
    assert "ECONNREFUSED 127.0.0.1:1" in standin.logs()


def test_a_lost_marker_file_stops_the_start_and_is_not_made_again(standin):
    assert standin.start()
    standin.host.run("rm /srv/up/library/.immich")
    assert not standin.start()
    assert 'Failed to read "/data/library/.immich"' in standin.logs()
    assert standin.host.run("test -e /srv/up/library/.immich", check=False).returncode == 1


def test_a_mere_grantee_of_the_database_cannot_start(standin):
    standin.sql("ALTER DATABASE immich OWNER TO postgres; GRANT ALL ON DATABASE immich TO immich")
    assert not standin.start()
    assert "must be owner of database immich" in standin.logs()


def test_extensions_that_need_a_superuser_must_be_there(standin):
    standin.sql("DROP EXTENSION earthdistance", database="immich")
    assert not standin.start()
    assert 'permission denied to create extension "earthdistance"' in standin.logs()


def test_extensions_in_another_schema_stop_the_start(standin):
    standin.sql("CREATE SCHEMA other; ALTER EXTENSION vector SET SCHEMA other", database="immich")
    assert not standin.start()
    assert 'type "vector" does not exist' in standin.logs()


def test_a_newer_vector_package_stops_the_start_until_a_superuser_updates(standin):
    assert standin.start()
    old = standin.sql("SELECT extversion FROM pg_extension WHERE extname = 'vector'", database="immich").strip()
    standin.host.run(
        f"cd {EXTENSION_FOLDER}; cp vector.control /root; echo 'SELECT 1;' >vector--{old}--0.99.0.sql;"
        " sed -i \"s/^default_version.*/default_version = '0.99.0'/\" vector.control"
    )
    try:
        assert not standin.start()
        assert "must be owner of extension vector" in standin.logs()
        standin.sql("ALTER EXTENSION vector UPDATE", database="immich")
        assert standin.start()
    finally:
        standin.host.run(f"cp /root/vector.control {EXTENSION_FOLDER}; rm {EXTENSION_FOLDER}/vector--*--0.99.0.sql")


def test_an_absent_vector_extension_is_told(standin):
    assert not standin.start(DB_VECTOR_EXTENSION="vectorchord")
    assert "VectorChord extension is not available" in standin.logs()


def test_postgresql_away_at_start_ends_the_server(standin):
    standin.host.run("systemctl stop postgresql")
    try:
        assert not standin.start()
    finally:
        standin.host.run("systemctl start postgresql")
    assert standin.start()


def test_each_version_migrates_and_an_older_one_refuses_the_database(standin):
    assert standin.start("v2.7.0")
    assert len(migrations(standin)) == 68  # as many as a database of v2.7.5 has
    assert standin.start("v3.3.1")
    before = migrations(standin)
    assert standin.start("v3.4.0")
    assert standin.call("GET", "/api/server/version") == {"major": 3, "minor": 4, "patch": 0}
    assert set(migrations(standin)) - set(before) == {"1793000000000-AddAssetRating"}
    assert not standin.start("v3.3.1")
    missing = "corrupted migrations: previously executed migration 1793000000000-AddAssetRating is missing"
    assert f"Migrations failed: Error: {missing}" in standin.logs()


def migrations(standin):
    return standin.call("GET", "/standin/state")["database"]["migrations"]


def test_a_version_is_noted_seconds_after_it_serves_and_never_if_it_exits_before(standin):
    def noted():
        return standin.sql('SELECT version FROM version_history ORDER BY "createdAt"', database="immich").split()

    begin = time.monotonic()
    assert standin.start("v3.3.1")
    assert noted() == []
    assert standin.wait(noted)
    assert time.monotonic() - begin > 8
    assert noted() == ["3.3.1"]
    assert standin.start("v3.4.0", STANDIN_VERSION_DELAY="0")
    assert standin.wait(lambda: noted() == ["3.3.1", "3.4.0"])
    standin.reset()
    standin.launch("v3.4.97")
    assert standin.host.out("podman wait server") == "1"
    assert noted() == []
    newest = standin.sql("SELECT max(name) FROM kysely_migrations", database="immich").strip()
    assert newest == "1793000000000-AddAssetRating"


def test_uploads_are_rows_and_files_that_a_loss_shows_in(standin):
    standin.start_machine_learning(HF_XET_CACHE="/cache/xet")
    assert standin.start(beside=True)
    first, second = (standin.call("POST", "/standin/assets") for _ in range(2))
    found = "SELECT vector_dims(embedding), round((embedding <#> embedding)::numeric, 4) FROM"
    assert standin.sql(f"{found} smart_search", database="immich").split() == ["512|-1.0000"] * 2
    assert standin.sql(f"{found} face_search", database="immich").split() == ["512|-1.0000"] * 2
    texts = standin.sql('SELECT o.text = s.text FROM asset_ocr o JOIN ocr_search s USING ("assetId")', "immich")
    assert texts.split() == ["t", "t"]
    standin.host.run(f"rm /srv/up/upload/$(basename {first['file']})")
    state = standin.call("GET", "/standin/state")
    assert state["database"]["counts"]["assets"] == 2
    assert (state["storage"]["files"], state["storage"]["intact_assets"]) == (1, 1)
    standin.host.run(f"echo rot >>/srv/up/upload/$(basename {second['file']})")
    assert standin.call("GET", "/standin/state")["storage"]["intact_assets"] == 0
    assert state["database"]["vector_indexes"] == {"clip_index": "hnsw", "face_index": "hnsw"}


def test_only_the_first_can_sign_up_as_administrator(standin):
    somebody = {"email": "admin@example.org", "password": "of no worth", "name": "Admin"}
    assert standin.start(IMMICH_ALLOW_SETUP="false")
    assert standin.call("POST", "/api/auth/admin-sign-up", somebody)["statusCode"] == 400
    assert standin.call("GET", "/api/server/config")["isInitialized"] is False
    assert standin.start()
    assert standin.call("POST", "/api/auth/admin-sign-up", somebody)["isAdmin"] is True
    assert standin.call("GET", "/api/server/config")["isInitialized"] is True
    assert standin.call("POST", "/api/auth/admin-sign-up", somebody)["statusCode"] == 400


ANA = {"email": "Ana@example.org", "password": "of no worth", "name": "Ana"}
KEY_PERMISSIONS = ["adminUser.read", "adminUser.create", "apiKey.create", "apiKey.read"]


def test_accounts_keys_and_libraries_are_as_strict_as_immichs(standin):
    """Who asks comes before what is asked, and that before what the database has."""
    assert standin.start()
    standin.call("POST", "/api/auth/admin-sign-up", ANA)
    session = standin.call("POST", "/api/auth/login", ANA)
    token = f"Authorization: Bearer {session['accessToken']}"
    assert (session["userEmail"], session["isAdmin"]) == ("ana@example.org", True)

    def call(method, path, body=None, header=token):
        return standin.call(method, f"/api/{path}", body, header=header)

    assert call("GET", "admin/users", header="X: 1")["message"] == "Authentication required"
    assert call("POST", "admin/users", {}, header="x-api-key: made-up")["message"] == "Invalid API key"
    wrong = call("POST", "admin/users", {"email": "ben", "password": 7})
    assert wrong["message"] == "Validation failed"
    assert [issue["path"] for issue in wrong["errors"]] == [["email"], ["password"], ["name"]]
    ben = call("POST", "admin/users", {"email": "ben@example.org", "password": "12345678", "name": "Ben"})
    assert (ben["shouldChangePassword"], ben["isAdmin"], ben["quotaSizeInBytes"]) == (True, False, None)
    assert call("POST", "admin/users", {**ANA, "email": "BEN@example.org"})["message"] == "User exists"

    key = call("POST", "api-keys", {"name": "a", "permissions": KEY_PERMISSIONS})
    by_key = f"x-api-key: {key['secret']}"
    assert len(call("GET", "admin/users", header=by_key)) == 2
    refused = call("DELETE", f"admin/users/{ben['id']}", {}, by_key)
    assert (refused["statusCode"], refused["message"]) == (403, "Missing required permission: adminUser.delete")
    more = call("POST", "api-keys", {"name": "b", "permissions": ["all"]}, by_key)
    assert more["message"] == "Cannot grant permissions you do not have"
    as_ben = standin.call("POST", "/api/auth/login", {"email": "ben@example.org", "password": "12345678"})
    assert call("GET", "admin/users", header=f"Authorization: Bearer {as_ben['accessToken']}")["message"] == "Forbidden"

    assert call("DELETE", f"admin/users/{session['userId']}", {})["message"] == "Cannot delete your own account"
    assert call("PUT", "admin/users/1", {})["message"] == "Validation failed"
    assert call("DELETE", f"admin/users/{ben['id']}", {})["status"] == "deleted"
    assert len(call("GET", "admin/users")) == 1
    assert len(call("GET", "admin/users?withDeleted=true")) == 2
    assert call("POST", f"admin/users/{ben['id']}/restore")["status"] == "active"

    library = call("POST", "libraries", {"ownerId": ben["id"], "importPaths": ["/nowhere"]})
    assert "**/@eaDir/**" in library["exclusionPatterns"]
    refused = call("PUT", f"libraries/{library['id']}", {"importPaths": ["/nowhere"]})
    assert refused["message"] == "Invalid import path: Path does not exist (ENOENT)"
    assert call("PUT", f"libraries/{library['id']}", {"importPaths": ["/data/a"]})["statusCode"] == 400
    assert call("POST", f"libraries/{library['id']}/scan") is None
    assert call("POST", "auth/logout")["successful"] is True
    assert call("GET", "admin/users")["message"] == "Invalid user token"
    restored = standin.call("POST", "/api/admin/database-backups/start-restore")
    assert restored["message"] == "The server already has an admin"


def test_uploads_want_a_login_and_are_known_again(standin):
    assert standin.start()
    admin = {"email": "admin@example.org", "password": "of no worth", "name": "Admin"}
    standin.call("POST", "/api/auth/admin-sign-up", admin)
    assert standin.call("POST", "/api/auth/login", {**admin, "password": "another"})["statusCode"] == 401
    token = standin.call("POST", "/api/auth/login", admin)["accessToken"]
    standin.host.write("/srv/photo.jpg", "a photo")
    form = "-F assetData=@/srv/photo.jpg -F fileModifiedAt=2026-01-01T00:00:00Z"

    def upload(fields, bearer=token):
        url = "127.0.0.1:2283/api/assets"
        return json.loads(standin.host.out(f"curl -s -H 'Authorization: Bearer {bearer}' {form} {fields} {url}"))

    created = "-F fileCreatedAt=2026-01-01T00:00:00Z"
    assert upload(created, bearer="made-up")["statusCode"] == 401
    assert upload("")["statusCode"] == 400
    first = upload(created)
    assert first["status"] == "created"
    assert upload(created) == {"id": first["id"], "status": "duplicate"}
    assert standin.call("GET", "/standin/state")["storage"]["intact_assets"] == 1
    assert standin.host.out("ls /srv/up/upload | grep -c .") == "1"


def test_a_legacy_time_zone_silently_means_utc(standin):
    assert standin.start(TZ="Australia/ACT")
    assert standin.call("GET", "/standin/state")["timezone"] == "UTC"
    assert standin.start(TZ="Europe/Paris")
    assert standin.call("GET", "/standin/state")["timezone"] == "Europe/Paris"


def test_without_the_api_worker_nothing_listens_and_the_health_check_says_so(standin):
    standin.launch(IMMICH_WORKERS_EXCLUDE="api")
    assert standin.wait(lambda: "Microservices is running" in standin.logs())
    assert standin.call("GET", "/api/server/ping") is None
    assert "excluded" in standin.host.out("podman exec server immich-healthcheck")


def test_health_checks_and_faults(standin):
    assert standin.start()
    assert standin.host.run("podman exec server immich-healthcheck", check=False).returncode == 0
    standin.host.run("podman exec server touch /tmp/standin-unhealthy")
    assert standin.host.run("podman exec server immich-healthcheck", check=False).returncode == 1
    standin.launch("v3.3.98")
    assert standin.wait(lambda: "listening" in standin.logs())
    assert standin.call("GET", "/api/server/ping")["statusCode"] == 503
    standin.launch("v3.3.99")
    assert standin.host.out("podman wait server") == "1"


def test_it_stops_on_sigterm_and_nobody_has_to_kill_it(standin):
    assert standin.start()
    begin = time.monotonic()
    standin.host.run("podman stop -t 120 server")
    assert time.monotonic() - begin < 60
    assert standin.host.out("podman inspect --format '{{.State.ExitCode}}' server") == "0"


def test_machine_learning_needs_its_folders_below_the_cache(standin):
    standin.start_machine_learning()
    assert "Read-only file system" in predict(standin, "-F text=cat")["detail"]
    standin.start_machine_learning(HF_XET_CACHE="/cache/xet")
    assert len(json.loads(predict(standin, "-F text=cat")["clip"])) == 512
    assert "Either image or text" in predict(standin, "")["detail"]
    assert predict(standin, "-F text=cat", entries='{"unknown": {}, "other": {"a": {}}}') == {
        "detail": "Invalid request format."
    }
    assert standin.host.out("stat -c %u $(find /srv/cache -name model.onnx)") == "2000"
    check = "podman exec machine-learning python3 /usr/src/healthcheck.py"
    assert standin.host.run(check, check=False).returncode == 0
    standin.host.run("podman exec machine-learning touch /tmp/standin-unhealthy")
    assert standin.host.run(check, check=False).returncode == 1


def predict(standin, fields, entries='{"clip": {"textual": {"modelName": "ViT-B-32__openai"}}}'):
    """What machine learning answers to a form."""
    form = f"-F entries={shlex.quote(entries)} {fields}"
    return json.loads(standin.host.out(f"curl -s {form} 127.0.0.1:3003/predict"))
