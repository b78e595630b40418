"""Immich's own settings: what is wrong with them, where their secrets are, and the file that Immich gets."""

import json
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest
from jsonschema import Draft202012Validator
from salt.exceptions import CommandExecutionError

from immich_core import server_settings
from immich_core.settings import schema
from immich_host import secret_files, used_settings
from tests.unit.test_immich_settings import REQUIRED, Settings, nested

REPO = Path(__file__).resolve().parents[2]
DESCRIBED = json.loads((REPO / "immich/server_settings.json").read_text(encoding="utf8"))
SCHEMA = schema.inlined(DESCRIBED, DESCRIBED["$defs"])


@pytest.fixture(scope="module")
def loaded():
    return Settings()


@pytest.fixture
def subject(loaded):
    loaded.module.__context__ = {key: value for key, value in loaded.module.__context__.items() if "files" in key}
    return loaded


def of(path, value):
    return {**REQUIRED, "settings": nested(path, value)}


def test_the_schema_is_one_and_knows_what_is_a_secret():
    Draft202012Validator.check_schema(DESCRIBED)

    def secrets(node, path=()):
        if "file" in node.get("properties", {}):
            yield path
            return
        for name, below in node.get("properties", {}).items():
            yield from secrets(below, (*path, name))

    assert sorted(secrets(SCHEMA)) == sorted(server_settings.SECRETS)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    (
        ("oauth:enabled", "yes", "must be true or false, not text: leave the quotes out"),
        ("ffmpeg:targetResolution", 720, "must be text, not a number: put it in quotes"),
        ("ffmpeg:accel", "vapi", "must be one of nvenc, qsv, vaapi, rkmpp, disabled; did you mean vaapi?"),
        ("ffmpeg:crf", 52, "must be from 0 to 51"),
        ("job:ocr:concurrency", 0, "must be 1 or more"),
        ("oauth", "on", "must be a mapping, not text"),
        ("oauth:issuerUrl", "login.example", "must be a URL, such as https://photos.example.org, or an empty text"),
        ("library:scan:cronExpression", "daily", "must be a cron expression of five fields, such as 0 2 * * *"),
        ("nightlyTasks:startTime", "24:00", "must be a time as HH:MM"),
        ("machineLearning:urls", [], "must be a list of URLs"),
        ("oauth:clientSecret", {"pilar": "a"}, None),
        ("oauth:clientSecret", {}, "must be text, {pillar: PATH} or {file: PATH}"),
        ("oauth:clientSecret", None, "is empty: a text, {pillar: PATH} or {file: PATH}"),
        ("oauth:clientSecret", {"pillar": "nothing:there"}, "names nothing:there, where the pillar has no text"),
        ("oauth:clientSecret", {"file": "/nonexistent"}, "names /nonexistent, which cannot be read: No such file or"),
        ("oauth:buttonText", "two\nlines", "holds a line break or another control character"),
        ("oauth:clientSecrett", "x", "Immich logs the values of unknown settings: it must not be a secret"),
        ("newer:storage", {"apiKey": "x"}, None),
        ("newer:date", {"a": b"x"}, None),
        ("machineLearning:ocr:minDetectionScore", float("nan"), "is not a number that JSON has"),
    ),
)
def test_a_wrong_setting_is_reported_with_its_path(subject, path, value, message):
    found = subject.errors(of(path, value))
    assert found
    assert all(where.startswith(f"immich:settings:{path.partition(':')[0]}") for where in found)
    if message:
        assert message in found[f"immich:settings:{path}"]


def test_what_a_switch_needs_is_required(subject):
    found = subject.errors(of("oauth:enabled", True))
    required = "is required where immich:settings:oauth:enabled is true"
    assert found == {"immich:settings:oauth:clientId": required, "immich:settings:oauth:issuerUrl": required}
    assert "immich:settings:notifications:smtp:transport:host" in subject.errors(of("notifications:smtp:enabled", True))


def test_a_setting_that_is_not_known_is_a_warning(subject):
    warned = subject.warnings({"settings": {"oauth": {"autoLunch": True}, "trash": {"days": 7}}})
    (message,) = warned.values()
    assert list(warned) == ["immich:settings:oauth:autoLunch"]
    assert message.endswith("ignores unknown ones; did you mean autoLaunch?")
    oauth = {"issuerUrl": "http://login.example", "clientId": "x"}
    assert list(subject.warnings({"settings": {"oauth": oauth}})) == ["immich:settings:oauth:issuerUrl"]
    assert subject.warnings({"settings": {"oauth": {**oauth, "allowInsecureRequests": True}}}) == {}


def test_a_changed_value_below_an_unknown_name_is_seen_within_a_run(subject):
    assert subject.warnings({"settings": {"newer": {"a": "1"}}})
    assert subject.errors({**REQUIRED, "settings": {"newer": {"a": b"1"}}})


def test_no_setting_of_immich_is_handed_on(subject):
    found = subject.get({"settings": {"oauth": {"clientSecret": "of-oauth-1"}, "theme": {"customCss": "p\n\tq"}}})
    assert "settings" not in found
    assert "of-oauth-1" not in json.dumps(found)
    assert found["server"]["settings_managed"] is True
    assert subject.get({})["server"]["settings_managed"] is False
    assert subject.get({"settings": {}})["server"]["settings_managed"] is True


def test_variables_with_a_setting_of_their_own_are_refused_where_it_is_used(subject, tmp_path):
    variables = {"IMMICH_CONFIG_FILE": "/mnt/immich.json", "NODE_EXTRA_CA_CERTS": "/mnt/ca.pem"}
    assert subject.errors({**REQUIRED, "server": {"environment": variables}}) == {}
    found = subject.errors({**REQUIRED, "settings": {}, "server": {"environment": variables}})
    assert found == {"immich:server:environment:IMMICH_CONFIG_FILE": "has a setting of its own; use immich:settings"}


def test_certificates_have_to_be_some(subject, tmp_path):
    file = tmp_path / "ca.pem"
    path = "immich:server:ca_certificates"

    def errors():
        subject.module.__context__.pop("immich_settings.evaluated", None)
        return subject.errors({**REQUIRED, "server": {"ca_certificates": str(file)}})

    assert "cannot be read: No such file" in errors()[path]
    file.write_text("-----BEGIN CERTIFICATE-----\nnonsense")
    assert errors() == {path: f"names {file}, which does not contain certificates in PEM format"}
    context = ssl.create_default_context()
    (der,) = context.get_ca_certs(binary_form=True)[:1] or (None,)
    if der:
        file.write_text(ssl.DER_cert_to_PEM_cert(der))
        assert errors() == {}


# The file

SECRET_SETTINGS = {
    "oauth": {"clientSecret": {"pillar": "secrets:oauth"}, "clientId": None, "roleClaim": "rôle"},
    "notifications": {"smtp": {"transport": {"password": "in place"}}},
    "trash": None,
}


def test_the_file_has_what_is_declared_and_the_secrets():
    pillar = {"immich": {"settings": SECRET_SETTINGS}, "secrets": {"oauth": 'of "oauth" \\ ü\n'}}
    text = secret_files.settings_text({"hardware": {"transcoding": None}}, pillar)
    assert json.loads(text) == {
        "oauth": {"clientSecret": 'of "oauth" \\ ü', "roleClaim": "rôle"},
        "notifications": {"smtp": {"transport": {"password": "in place"}}},
    }
    assert text.isascii()


def test_a_secret_can_be_in_a_file(tmp_path):
    file = tmp_path / "secret"
    file.write_text("of a file\n")
    assert secret_files.secret({"file": str(file)}, {}) == "of a file"
    for held in ("", "two\nlines", "x" * (secret_files.LARGEST + 1)):
        file.write_text(held)
        with pytest.raises(CommandExecutionError, match=f"names {file}, which "):
            secret_files.secret({"file": str(file)}, {})


def test_changes_name_settings_and_show_no_value():
    former = server_settings.text({"oauth": {"clientSecret": "one", "scope": "openid"}, "trash": {"days": 7}}, {})
    desired = server_settings.text({"oauth": {"clientSecret": "two"}, "trash": {"days": 7}, "x": {"y": [1]}}, {})
    assert server_settings.changes(former, desired) == {
        "immich:settings:oauth:clientSecret": {"old": "set", "new": "another value"},
        "immich:settings:oauth:scope": {"old": "set", "new": None},
        "immich:settings:x:y": {"old": None, "new": "set"},
    }
    assert server_settings.changes(former, former) == {}
    assert server_settings.changes("{", "{}\n") == {"immich:settings": {"old": "another file", "new": "as declared"}}
    assert server_settings.changes(None, "{}\n") == {"immich:settings": {"old": None, "new": "as declared"}}


# What the server says


def test_what_the_server_says_is_compared_with_what_is_declared():
    declared = {"oauth": {"enabled": True, "buttonText": "Log in"}, "trash": {"days": 7}, "map": {"enabled": False}}
    features = {"configFile": True, "oauth": True, "map": True, "trash": False}
    config = {"oauthButtonText": "Login with OAuth", "trashDays": 7}
    assert server_settings.differing(declared, {"features": features, "config": config}) == [
        "immich:settings:map:enabled",
        "immich:settings:oauth:buttonText",
    ]
    assert server_settings.differing(declared, {"features": {"configFile": False}}) == ["immich:settings"]
    assert server_settings.differing(declared, {"features": {}, "config": {}}) == []


def test_what_follows_from_other_settings_is_below_what_is_declared():
    below = {"ffmpeg": {"accel": "vaapi"}}
    assert server_settings.merged(below, {"trash": {"days": 7}}) == {**below, "trash": {"days": 7}}
    assert server_settings.merged(below, {"ffmpeg": {"crf": 23}}) == {"ffmpeg": {"accel": "vaapi", "crf": 23}}
    for declared in ({"accel": "qsv"}, {"accel": None}, None):
        assert server_settings.merged(below, {"ffmpeg": declared}) == {"ffmpeg": declared or None}


def test_a_word_of_hardware_is_in_the_file():
    settings, pillar = {"hardware": {"transcoding": "quicksync"}}, {"immich": {"settings": {"trash": {"days": 7}}}}
    held = json.loads(secret_files.settings_text(settings, pillar))
    assert held == {"ffmpeg": {"accel": "qsv"}, "trash": {"days": 7}}


def test_what_an_administrator_is_told_is_compared_with_the_file():
    desired = {"trash": {"days": 7.0}, "oauth": {"clientSecret": "x"}, "ffmpeg": {"acceptedVideoCodecs": ["hevc"]}}
    used = {"trash": {"days": 7}, "oauth": {"clientSecret": "x"}, "ffmpeg": {"acceptedVideoCodecs": ["hevc", "h264"]}}
    assert server_settings.unlike({**desired, "newer": {"than": "this"}}, used) == []
    used = {"trash": {"days": 30}, "oauth": {"clientSecret": "y"}}
    assert server_settings.unlike(desired, used) == ["immich:settings:oauth:clientSecret", "immich:settings:trash:days"]
    found = used_settings.unlike(
        {"hardware": {"transcoding": None}},
        {"immich": {"settings": {"oauth": {"clientSecret": "x"}}}},
        SimpleNamespace(system_config=lambda: used),
    )
    assert [(each["path"], each["severity"]) for each in found] == [("immich:settings:oauth:clientSecret", "warning")]
    assert "y" not in found[0]["seen"].split()
