"""What the metrics keep on the host, what the beacon makes of it, and what of it is reported."""

import time
from types import SimpleNamespace

import pytest

from _beacons import immich as beacon
from _modules import immich_metrics
from _states import immich_metrics as states
from host_core.command import CommandError
from immich_core import units
from immich_diagnosis import metrics as diagnosis
from immich_host import releases, status, telemetry
from immich_io import records

IMAGE = "registry.test:5000/immich/server:v3.3.1@sha256:00"
RUNNING = {"active": "active", "enabled": "enabled"}
ENABLED = {"metrics": {"enabled": True, "listen": "127.0.0.1", "api_port": 8081, "microservices_port": 8082}}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The directory of the records."""
    folder = tmp_path / "formula/records"
    monkeypatch.setattr(records, "DIRECTORY", folder)
    return folder


def test_a_record_is_roots_alone_and_has_its_time(kept):
    began = time.time()
    records.note("drill", success=True)
    found = records.read("drill")
    assert (found["success"], began - 1 < found["time"] < time.time() + 1) == (True, True)
    assert [path.stat().st_mode & 0o777 for path in (kept, kept / "drill.json")] == [0o700, 0o600]


@pytest.mark.parametrize("text", (None, "", "[]", "{", "\xff"))
def test_a_record_that_cannot_be_read_is_none(kept, text):
    kept.mkdir(parents=True)
    if text is not None:
        (kept / "apply.json").write_text(text, encoding="latin-1")
    assert records.read("apply") == {}


# -- beacon ----------------------------------------


def test_the_beacon_reports_each_change_once():
    assert beacon.beacon([{"interval": 60}]) == []  # nothing was written yet
    records.note("status", parts={"Valkey": "ok", "backups": "warning"})
    assert beacon.beacon([]) == [{"tag": "health", "part": "backups", "old": None, "new": "warning"}]
    assert beacon.beacon([]) == []
    records.note("status", parts={"Valkey": "failed", "backups": "warning"})
    assert beacon.beacon([]) == [{"tag": "health", "part": "Valkey", "old": "ok", "new": "failed"}]
    assert beacon.beacon([]) == []


def test_the_beacon_raises_nothing_that_it_would_raise_again(monkeypatch):
    records.note("status", parts={"Valkey": "failed"})

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(records, "note", full)
    assert beacon.beacon([]) == []


def test_the_beacon_is_configured_by_a_list():
    assert beacon.validate([{"interval": 60}])[0] is True
    assert beacon.validate({})[0] is False


# -- what a run leaves ----------------------------------------


@pytest.mark.parametrize(("test", "left"), ((False, ["apply"]), (True, ["plan"])))
def test_a_run_leaves_a_record_and_reports_no_change(monkeypatch, kept, test, left):
    monkeypatch.setattr(states, "__opts__", {"test": test}, raising=False)
    running = {"a": {"result": None if test else True, "changes": {}, "duration": 5.0, "__sls__": "immich.app"}}
    monkeypatch.setattr(states, "__running__", running, raising=False)
    ret = states.run_recorded("This run is recorded")
    assert (ret["result"], ret["changes"]) == (True, {})
    assert [path.stem for path in kept.iterdir()] == left


# -- releases ----------------------------------------


@pytest.fixture
def registry(monkeypatch):
    """Answers of ``podman search``, and what it was asked."""
    asked = []

    def run(*words, **_):
        asked.append(words)
        if registry.tags is None:
            raise CommandError(["podman", *words], 125, "no route to host")
        return "\n".join(registry.tags)

    registry = SimpleNamespace(asked=asked, tags=["v3", "v3.4.0", "v3.3.1"])
    monkeypatch.setattr(releases.podman, "run", run)
    return registry


def test_the_registry_is_asked_once_a_day(registry, monkeypatch):
    assert releases.refresh(IMAGE) is None
    assert releases.refresh(IMAGE) is None
    assert [words[-1] for words in registry.asked] == ["registry.test:5000/immich/server"]
    assert releases.recorded(IMAGE) == ["v3.4.0", "v3.3.1"]
    assert releases.recorded("ghcr.io/immich-app/immich-server:v3.3.1") is None
    now = time.time()
    monkeypatch.setattr(releases.time, "time", lambda: now + 1.5 * releases.DAY)
    assert releases.recorded(IMAGE) == ["v3.4.0", "v3.3.1"]
    registry.tags = None
    assert "no route to host" in releases.refresh(IMAGE)
    assert releases.recorded(IMAGE) == ["v3.4.0", "v3.3.1"]
    monkeypatch.setattr(releases.time, "time", lambda: now + 3 * releases.DAY)
    assert releases.recorded(IMAGE) is None


def test_the_doctor_asks_the_registry_only_if_it_is_to(registry):
    settings = {"update": {"check_releases": False}, "server": {"image": IMAGE}}
    here = {"settings": settings, "seconds": 5, "compose": {"services": {"immich-server": {"image": IMAGE}}}}
    assert list(diagnosis._releases(here)) == []
    assert list(diagnosis._releases({**here, "settings": {}})) == []
    assert registry.asked == []
    settings["update"]["check_releases"] = True
    ((result, seen, _, code),) = diagnosis._releases(here)
    assert (result, code) == ("warning", "release-newer")
    assert seen.startswith("v3.4.0 is out; this host has v3.3.1")
    registry.tags = None
    ((result, seen),) = diagnosis._releases(here)
    assert (result, seen.partition(":")[0]) == ("warning", "not checked")


def test_releases_are_forgotten_where_nobody_looks_for_them(registry, monkeypatch, tmp_path):
    assert releases.refresh(IMAGE) is None
    monkeypatch.setattr(status.listing, "backups", lambda **_: [])
    update, others = {"check_releases": True}, {"project_dir": tmp_path, "postgres": {"database": "immich"}}
    settings = {"update": update, "server": {"image": IMAGE}, **others}
    assert status.gathered(settings, [])["newest_release"] == "v3.4.0"
    update["check_releases"] = False
    assert status.gathered(settings, [])["newest_release"] is None
    assert status.gathered({}, [])["newest_release"] is None


# -- verification ----------------------------------------


@pytest.mark.parametrize(
    ("service", "timer", "age", "codes"),
    (
        ("inactive", RUNNING, 60, []),
        ("inactive", RUNNING, None, ["metrics-outdated"]),
        ("inactive", RUNNING, 4000, ["metrics-outdated"]),
        ("activating", RUNNING, None, []),
        ("failed", RUNNING, 60, ["metrics-failed"]),
        ("inactive", {**RUNNING, "active": "inactive"}, 60, ["metrics-timer"]),
        ("inactive", {**RUNNING, "enabled": "disabled"}, 60, ["metrics-timer"]),
    ),
)
def test_figures_that_are_not_written(monkeypatch, service, timer, age, codes):
    there = {units.METRICS: {"active": service}, units.METRICS_TIMER: timer}
    monkeypatch.setattr(immich_metrics, "__salt__", {"systemd_unit.statuses": lambda *_: there}, raising=False)
    monkeypatch.setattr(immich_metrics, "_age", lambda _: age)
    assert [each["code"] for each in immich_metrics._not_written("/x/immich.prom")] == codes


@pytest.mark.parametrize(
    ("answers", "urls"),
    (
        ({8081: b"# HELP a b", 8082: b"# HELP a b"}, []),
        ({8081: b"# HELP a b", 8082: OSError("refused")}, ["http://127.0.0.1:8082/metrics"]),
        ({8081: b"<html>", 8082: b"# TYPE a gauge"}, ["http://127.0.0.1:8081/metrics"]),
    ),
)
def test_workers_without_metrics(monkeypatch, answers, urls):
    def beginning(url, *_):
        answer = answers[int(url.split(":")[2].partition("/")[0])]
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(telemetry.untrusted, "beginning", beginning)
    found = telemetry.silent({**ENABLED, "server": {"environment": {}}})
    assert [each["seen"].split(" ")[0] for each in found] == urls


def test_disabled_metrics_have_no_obstacles_and_nothing_to_verify():
    settings = {"metrics": {"enabled": False}}
    assert immich_metrics.obstacles(settings, None) == immich_metrics.verify(settings) == []
