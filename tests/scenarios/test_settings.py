"""Immich's own settings from the pillar: set, used, changed, wrong, killed in between, and given back to the page."""

import json
import urllib.parse

import pytest

from tests.scenarios.conftest import changed, deployed, get, pillar_with, post
from tests.scenarios.oidc_provider import ISSUER, Provider
from tests.scenarios.test_changes import FORMER_SERVES, RECORD
from tests.scenarios.test_interrupted import KILL_AT
from tests.scenarios.test_service import ids

FILE = "/opt/podman/immich/secrets/server_settings"
REDIRECT = "https://photos.example.org/auth/login"
SMTP_PASSWORD = "smtp-p4ssword $ \" ' \\ # {x}"
ADMIN = {"email": "admin@example.org", "password": "of the administrator", "name": "Admin"}
STATE = "Immich's own settings are as declared"


@pytest.fixture(scope="module")
def host(first_run):
    """One story: what each test leaves is what the next finds."""
    with deployed(first_run) as host:
        yield host


@pytest.fixture(scope="module")
def provider(host):
    provider = Provider(host)
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def client(provider):
    return provider.client(REDIRECT)


def settings(client, **more):
    smtp = {"host": "mail.example.org", "username": "photos", "password": {"file": "/root/smtp-password"}}
    return {
        "oauth": {
            "enabled": True,
            "issuerUrl": ISSUER,
            "clientId": client[0],
            "clientSecret": {"pillar": "secrets:immich_oauth"},
            "roleClaim": "photos_role",
            "storageQuotaClaim": "photos_quota",
            "buttonText": "Log in at home",
        },
        "notifications": {"smtp": {"enabled": True, "from": "photos@example.org", "transport": smtp}},
        "storageTemplate": {"enabled": True, "template": "{{y}}/{{MM}}/{{filename}}"},
        "machineLearning": {"urls": ["http://gpu.example.org:3003", "http://immich-machine-learning:3003"]},
        "server": {"externalDomain": "https://photos.example.org"},
        "theme": {"customCss": "p {\n  color: red;\n}"},
        "newerThanThis": {"enabled": True},
        **more,
    }


def declare(host, client, declared, **changes):
    pillar = pillar_with(settings=declared, server={"ca_certificates": "/root/ca.pem"}, **changes)
    top = {"immich": pillar, "secrets": {"immich_oauth": f"{client[1]}\n"}}
    host.write("/srv/pillar/top.sls", "base: {'*': [immich]}\n")
    host.write("/srv/pillar/immich.sls", "#!json\n" + json.dumps(top), mode="0600")


def as_admin(host, method="GET", body=None):
    """What the page Administration > Settings asks, and the status of the answer."""
    token = post(host, "/api/auth/login", ADMIN)["accessToken"]
    host.write("/run/test/body", json.dumps(body or {}))
    call = f"curl -s -w '\\n%{{http_code}}' -X {method} -H 'Authorization: Bearer {token}' -d @/run/test/body"
    answer, status = host.out(f"{call} http://127.0.0.1:2283/api/system-config").rsplit("\n", 1)
    return json.loads(answer), int(status)


def doctor_row(host):
    return next(row for row in host.salt("immich.doctor", "timeout=60") if row["part"] == "Immich's settings")


def test_the_page_is_in_charge_as_long_as_nothing_is_declared(host):
    assert get(host, "/api/server/features")["configFile"] is False
    assert "CONFIG_FILE" not in host.read("/opt/podman/immich/docker-compose.yml")
    assert post(host, "/api/auth/admin-sign-up", ADMIN)["isAdmin"] is True
    page, _ = as_admin(host)
    page["trash"]["days"] = 9
    assert as_admin(host, "PUT", page)[1] == 200
    assert get(host, "/api/server/config")["trashDays"] == 9


def test_declared_settings_are_used_and_their_secrets_shown_nowhere(host, client):
    host.write("/root/smtp-password", f"{SMTP_PASSWORD}\n", mode="0600")
    declare(host, client, settings(client))
    before = ids(host)
    planned = host.apply(test=True)
    states = host.apply()
    done = changed(states)
    assert set(changed(planned)) == set(done)
    assert done[STATE] == changed(planned)[STATE]
    assert done[STATE]["immich:settings:oauth:clientSecret"] == {"old": None, "new": "set"}
    assert "recreated" in done["Immich is running"]["immich-server"]["new"]
    assert ids(host)["immich-machine-learning"] == before["immich-machine-learning"]
    assert changed(host.apply()) == {}
    # What the server says that it uses.
    features, config = get(host, "/api/server/features"), get(host, "/api/server/config")
    assert (features["configFile"], features["oauth"], features["email"]) == (True, True, True)
    assert (config["oauthButtonText"], config["externalDomain"]) == ("Log in at home", "https://photos.example.org")
    used, _ = as_admin(host)
    assert used["oauth"]["clientSecret"] == client[1]
    assert used["notifications"]["smtp"]["transport"]["password"] == SMTP_PASSWORD
    assert used["theme"]["customCss"] == "p {\n  color: red;\n}"
    assert used["trash"]["days"] == 30
    assert as_admin(host, "PUT", used)[1] == 400
    assert changed(host.apply(test=True)) == {}
    assert [row for row in host.salt("immich.doctor", "timeout=60") if row["result"] == "failed"] == []
    row = doctor_row(host)
    assert (row["result"], row["seen"]) == ("ok", "are those of immich:settings, as far as the server says")
    # The next to look: everybody on this host, and whoever reads logs.
    for secret in (client[1], SMTP_PASSWORD[:14]):
        assert secret not in json.dumps([planned, states])
        assert secret not in json.dumps(host.salt("immich_settings.get"))
        host.write("/root/piece", secret, mode="0600")
        assert host.run("podman inspect immich-server | grep -F -f /root/piece", check=False).stdout == ""
        assert host.run("journalctl -o cat | grep -F -f /root/piece", check=False).stdout == ""
        searched = "/etc /opt /run /var/log /var/cache /usr/local /tmp"
        found = host.out(f"grep -rlF -f /root/piece {searched} 2>/dev/null", check=False).splitlines()
        assert {path for path in found if not path.startswith("/run/test/")} == {FILE}
    assert host.out(f"stat -c '%u %a' {FILE}").split()[1] == "400"
    assert host.out("stat -c %a /opt/podman/immich/secrets") == "700"


def test_a_person_logs_in_at_a_provider_with_an_authority_of_its_own(host, provider, client):
    claims = {"email": "ana@example.org", "name": "Ana", "photos_role": "admin", "photos_quota": 5}
    provider.call("PUT", "/users/ana", claims)
    verifier = "v" * 64
    begun = post(host, "/api/oauth/authorize", {"redirectUri": REDIRECT, "state": "s1", "codeChallenge": "c" * 43})
    assert begun["url"].startswith(f"{ISSUER}/oauth2/authorize?")
    back = provider.log_in(begun["url"], "ana")
    assert "code" in urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)
    user = post(host, "/api/oauth/callback", {"url": back, "state": "s1", "codeVerifier": verifier})
    assert (user["userEmail"], user["isAdmin"], int(user["quotaSizeInBytes"])) == ("ana@example.org", True, 5 * 1024**3)
    # By a secret that the provider does not know there is no login.
    declare(host, (client[0], "another-secret"), settings(client))
    host.log_level = "debug"
    (change,) = changed(host.apply())[STATE].items()
    host.log_level = "error"
    assert FILE in host.errors
    assert "another-secret" not in host.errors
    assert change == ("immich:settings:oauth:clientSecret", {"old": "set", "new": "another value"})
    begun = post(host, "/api/oauth/authorize", {"redirectUri": REDIRECT, "state": "s2", "codeChallenge": "c" * 43})
    back = provider.log_in(begun["url"], "ana")
    refused = post(host, "/api/oauth/callback", {"url": back, "state": "s2", "codeVerifier": verifier})
    assert refused["message"] == "OAuth login failed"


def test_a_value_that_immich_refuses_brings_the_former_file_back(host, client):
    former = host.read(FILE)
    wrong = settings(client, library={"scan": {"cronExpression": "61 * * * *"}})
    declare(host, client, wrong)
    states = {state["id"]: state for state in host.apply(check=False)}
    said = states["Immich is running"]["comment"]
    assert states["Immich is running"]["result"] is False
    assert "[library.scan.cronExpression] Invalid cron expression. Field value (61) is out of range" in said
    assert "What they change of Immich's own settings:\n- immich:settings:library:scan:cronExpression" in said
    assert FORMER_SERVES in said
    assert client[1] not in said
    assert host.read(FILE) == former
    assert host.out(f"stat -c %a {FILE}") == "400"
    assert host.run(f"test -e {RECORD}", check=False).returncode == 1
    assert get(host, "/api/server/features")["configFile"] is True
    # Killed in between: the next run finds what served last.
    assert host.out(KILL_AT.format(condition=f"grep -qs '61 . . . .' {FILE}")) == "killed"
    assert host.read(FILE) != former
    assert host.out(f"stat -c %a {RECORD}") == "600"
    said = {state["id"]: state for state in host.apply(check=False)}["Immich is running"]["comment"]
    assert FORMER_SERVES in said
    assert host.read(FILE) == former
    # What the formula itself knows to be wrong changes nothing.
    declare(host, client, settings(client, ffmpeg={"accel": "vapi"}))
    failed = [state for state in host.apply(check=False) if state["result"] is False]
    assert "immich:settings:ffmpeg:accel: must be one of" in failed[0]["comment"]
    assert host.read(FILE) == former


def test_without_them_the_page_is_in_charge_again(host):
    host.pillar(pillar_with())
    planned = changed(host.apply(test=True))
    done = changed(host.apply())
    assert set(planned) == set(done)
    assert changed(host.apply()) == {}
    assert host.out("ls /opt/podman/immich/secrets").split() == ["db_password", "redis_password"]
    assert get(host, "/api/server/features")["configFile"] is False
    assert get(host, "/api/server/config")["trashDays"] == 9
    assert doctor_row(host)["seen"] == "are those of its page Administration > Settings"
