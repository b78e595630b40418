"""What the service is told, and what a dry run says of it."""

import pytest
from salt.exceptions import CommandExecutionError

from _states import immich_app as states_immich_app
from immich_host import identity, stop_reasons, update


def test_mounts_of_the_unit_are_quoted(modules, settings):
    apart = {**settings["storage"], "thumbs": "/mnt/ssd"}
    unit = modules.immich_app.unit({**settings, "upload_location": "/srv/my photos 100%", "storage": apart})
    assert unit["mounts"] == ['"/srv/my photos 100%%"', '"/mnt/ssd"']


HELD = {"db_password": b"postgres-secret-1", "redis_password": b"valkey-secret-12"}


@pytest.mark.parametrize(
    ("held", "would"),
    (
        (HELD, False),
        ({**HELD, "redis_password": b"another"}, True),
        ({"db_password": HELD["db_password"]}, True),
    ),
)
def test_a_dry_run_says_that_a_secret_would_be_written(settings, loaders, monkeypatch, tmp_path, held, would):
    (tmp_path / "secrets").mkdir()
    for name, secret in held.items():
        (tmp_path / "secrets" / name).write_bytes(secret)
    monkeypatch.setattr(states_immich_app, "__pillar__", loaders.opts["pillar"], raising=False)
    for test in (True, False):
        # In a real run the state before has written the file.
        monkeypatch.setattr(states_immich_app, "__opts__", {"test": test}, raising=False)
        asked = states_immich_app._secret_would_change({**settings, "project_dir": str(tmp_path)})
        assert asked is (would and test)


def test_a_dry_run_says_that_immichs_own_settings_would_be_written(settings, loaders, monkeypatch, tmp_path):
    (tmp_path / "secrets").mkdir()
    for name, secret in {**HELD, "server_settings": b'{\n "trash": {\n  "days": 7\n }\n}'}.items():
        (tmp_path / "secrets" / name).write_bytes(secret)
    monkeypatch.setattr(states_immich_app, "__opts__", {"test": True}, raising=False)
    declared = {"project_dir": str(tmp_path), "server": {**settings["server"], "settings_managed": True}}
    for days, would in ((7, False), (8, True)):
        of_immich = {**loaders.opts["pillar"]["immich"], "settings": {"trash": {"days": days}}}
        monkeypatch.setattr(states_immich_app, "__pillar__", {"immich": of_immich}, raising=False)
        assert states_immich_app._secret_would_change({**settings, **declared}) is would


def test_a_dry_run_that_fails_puts_nothing_back(monkeypatch):
    def fails(_unit):
        raise CommandExecutionError("systemd does not answer")

    monkeypatch.setattr(states_immich_app, "__salt__", {"systemd_unit.status": fails}, raising=False)
    monkeypatch.setattr(states_immich_app, "__opts__", {"test": True}, raising=False)
    monkeypatch.setattr(update, "roll_back", lambda *_: pytest.fail("it was put back"))
    ret = states_immich_app.running("immich.service", {})
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "systemd does not answer")


@pytest.mark.parametrize(("active", "result"), (("active", True), ("failed", False)))
def test_only_a_real_run_says_that_immich_was_left_stopped(monkeypatch, active, result):
    functions = {"systemd_unit.status": lambda _unit: {"active": active}}
    monkeypatch.setattr(states_immich_app, "__salt__", functions, raising=False)
    for test, expected in ((False, result), (True, True)):
        monkeypatch.setattr(states_immich_app, "__opts__", {"test": test}, raising=False)
        ret = states_immich_app.still_active("immich.service")
        assert (ret["result"], ret["changes"]) == (expected, {})


@pytest.mark.parametrize(
    ("reasons", "active", "containers", "service"),
    (
        ([{"seen": "the network immich is recreated"}], "active", ["immich-server"], "stopped for the changes above"),
        ([{"seen": "the network immich is recreated"}], "active", [], "stopped for the changes above"),
        ([{"seen": "the network immich is recreated"}], "failed", [], "failed"),
        ([], "active", ["immich-server"], "active"),
    ),
)
def test_a_dry_run_knows_that_it_would_have_stopped_immich(monkeypatch, reasons, active, containers, service):
    asked = []
    functions = {"systemd_unit.status": lambda _unit: {"active": active}}
    monkeypatch.setattr(identity, "plan", lambda *_: {"refusals": [], "changes": {}})
    monkeypatch.setattr(identity, "project_dir", lambda _: "/opt/podman/immich")
    monkeypatch.setattr(stop_reasons, "found", lambda *given: asked.append(given[:2]) or reasons)
    monkeypatch.setattr(states_immich_app, "__salt__", functions, raising=False)
    monkeypatch.setattr(states_immich_app, "__pillar__", {}, raising=False)
    monkeypatch.setattr(states_immich_app, "__opts__", {"test": True}, raising=False)
    monkeypatch.setattr(states_immich_app, "__context__", {}, raising=False)
    monkeypatch.setattr(states_immich_app.containers, "names", lambda _: containers)
    stopped = states_immich_app.stopped_for_changes("immich.service", {})
    assert stopped["result"] is (None if reasons and active == "active" else True)
    assert states_immich_app._foreseen_status("immich.service")["active"] == service
    assert asked == [({}, {})]
