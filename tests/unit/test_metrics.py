"""The figures of an installation: what stands in them, how Prometheus reads them, and what a run leaves for them."""

import json
import re
from pathlib import Path

import pytest
import yaml

from immich_core import exposition, releases, status

REPO = Path(__file__).resolve().parents[2]

IMAGE = "ghcr.io/immich-app/immich-server:"
NO_RECORDS = {name: {} for name in ("apply", "plan", "update", "drill")}


def row(part, result):
    return {"part": part, "result": result, "code": "x", "seen": "…", "remedy": ""}


def made(rows=(), installed=f"{IMAGE}v3.3.1", declared=f"{IMAGE}v3.3.1", backups=(), known=(), **records):
    images = {"installed": installed, "declared": declared}
    return status.of(1000.7, list(rows), images, backups and list(backups), known, {**NO_RECORDS, **records})


def test_a_part_has_the_worst_result_of_its_rows():
    found = made([row("disk space", "ok"), row("Valkey", "warning"), row("disk space", "failed"), row("Valkey", "ok")])
    assert found["parts"] == {"disk space": "failed", "Valkey": "warning"}
    assert (found["result"], found["ok"], found["warning"], found["failed"]) == ("failed", 2, 1, 1)
    assert made()["result"] == "ok"


def test_what_is_not_known_has_no_metric():
    text = exposition.text(made(backups=None))
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert names == {
        "immich_host_status_timestamp_seconds",
        "immich_host_version_info",
        "immich_host_version_as_declared",
    }


def test_all_that_is_known_has_a_metric():
    records = {
        "apply": {"time": 900, "seconds": 12.5, "success": True},
        "plan": {"time": 950, "drift": 3},
        "update": {"time": 800, "downtime": 4.25},
        "drill": {"time": 700, "success": False},
    }
    known = ["v3.5.0", "v3.4.0", "v3.3.1", "v3.3.0"]
    backups = [{"moment": 600, "size": 5}, {}]
    text = exposition.text(made([row('a "b"\\\n', "warning")], backups=backups, known=known, **records))
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples == [
        r'immich_host_part_status{part="a \"b\"\\\n"} 1',
        'immich_host_version_info{installed="v3.3.1",declared="v3.3.1"} 1',
        'immich_host_newest_release_info{version="v3.5.0"} 1',
        "immich_host_status_timestamp_seconds 1000",
        "immich_host_version_as_declared 1",
        "immich_host_releases_behind 2",
        "immich_host_backups 2",
        "immich_host_backup_timestamp_seconds 600",
        "immich_host_backup_size_bytes 5",
        "immich_host_restore_drill_timestamp_seconds 700",
        "immich_host_restore_drill_success 0",
        "immich_host_update_timestamp_seconds 800",
        "immich_host_update_downtime_seconds 4.25",
        "immich_host_apply_timestamp_seconds 900",
        "immich_host_apply_duration_seconds 12.5",
        "immich_host_apply_success 1",
        "immich_host_dry_run_timestamp_seconds 950",
        "immich_host_drift_states 3",
    ]
    assert text.endswith("\n")


def test_a_version_that_was_not_applied_yet():
    found = made(declared=f"{IMAGE}v3.4.0")
    assert (found["version_installed"], found["version_declared"]) == ("v3.3.1", "v3.4.0")
    assert found["version_as_declared"] is False
    unknown = made(installed=None)
    assert (unknown["version_installed"], unknown["version_as_declared"]) == (None, None)


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    (
        ({"a": "ok"}, {"a": "ok"}, {}),
        ({"a": "ok"}, {"a": "failed"}, {"a": {"old": "ok", "new": "failed"}}),
        ({"a": "failed"}, {"a": "ok"}, {"a": {"old": "failed", "new": "ok"}}),
        ({}, {"a": "ok", "b": "warning"}, {"b": {"old": None, "new": "warning"}}),
        ({"a": "ok", "b": "failed"}, {}, {"b": {"old": "failed", "new": None}}),
    ),
)
def test_what_changed_between_two_statuses(before, now, changed):
    assert status.changed_parts(before, now) == changed


# -- what a run leaves ----------------------------------------


def state(result=True, sls="immich.app", changes=None, duration=1000.0):
    return {"result": result, "changes": changes or {}, "duration": duration, "__sls__": sls}


def test_a_run_is_recorded_with_its_own_states_alone():
    running = {
        "file_|-a_|-a_|-managed": state(duration=1500.0),
        "test_|-b_|-b_|-nop": state(duration=1250.0, sls="immich"),
        "file_|-c_|-c_|-managed": state(False, sls="immichlike", duration=99000.0),
        "file_|-d_|-d_|-managed": {"result": True, "changes": {}, "__sls__": "immich.app"},
    }
    assert status.records_of_run(running, test=False) == {"apply": {"seconds": 2.8, "success": True}}
    running["file_|-e_|-e_|-managed"] = state(False, duration=0)
    assert status.records_of_run(running, test=False)["apply"]["success"] is False


def test_drift_is_what_a_dry_run_would_change():
    running = {
        "a": state(None, changes={"x": 1}),
        "b": state(True),
        "c": state(None, sls="immich.verify"),
        "d": state(None, sls="other", changes={"x": 1}),
    }
    assert status.records_of_run(running, test=True) == {"plan": {"drift": 1}}


def test_the_downtime_is_that_of_an_update():
    running = {
        "immich_app_|-Immich is running_|-immich.service_|-running": state(
            changes={"downtime": {"old": None, "new": "4.2 s"}}
        )
    }
    assert "update" not in status.records_of_run(running, test=False)  # of a change of settings
    running["immich_update_|-x_|-x_|-prepared"] = state(changes={"version": {"old": "v3.3.1", "new": "v3.4.0"}})
    assert status.records_of_run(running, test=False)["update"] == {"downtime": 4.2}
    running["z"] = state(False)
    assert "update" not in status.records_of_run(running, test=False)


# -- releases ----------------------------------------


def test_releases_among_tags():
    tags = ["v3", "release", "v3.3.1", "v3.10.0", "v3.9.0", "v3.11.0-rc.1", "pr-1", "v3.3.1-cuda", "3.12.0", "v3.9.0"]
    assert releases.of_tags(tags) == ["v3.10.0", "v3.9.0", "v3.3.1"]


@pytest.mark.parametrize(
    ("found", "installed", "code", "words"),
    (
        (
            ["v3.5.0", "v3.4.0", "v3.3.1"],
            "v3.3.1",
            "release-newer",
            "v3.5.0 is out; this host has v3.3.1, and is 2 rel",
        ),
        (
            ["v3.4.0", "v3.3.1"],
            "v3.3.1@sha256:00",
            "release-newer",
            "v3.4.0 is out; this host has v3.3.1, and is 1 release b",
        ),
        (["v3.3.1"], "v3.3.1", "release-newest", "none is newer than v3.3.1"),
        (["v3.3.1"], "v3", "release-unknown", "v3.3.1 is the newest"),
        ([], "v3.3.1", "releases-missing", "the registry has no release"),
    ),
)
def test_news(found, installed, code, words):
    news = releases.news(found, f"{IMAGE}{installed}")
    assert news["code"] == code
    assert news["seen"].startswith(words)


def test_news_name_the_version_that_has_to_run_in_between():
    assert releases.news(["v3.3.1"], f"{IMAGE}v1.131.0")["remedy"].endswith("immich:version: v1.132.3")


# -- what is made of the figures ----------------------------------------

FILES = REPO / "immich/metrics/files"
ALERTS = yaml.safe_load((FILES / "alerts.yml").read_text(encoding="utf8"))["groups"][0]["rules"]
DASHBOARD = json.loads((FILES / "dashboard.json").read_text(encoding="utf8"))
NAMES = {f"{exposition.PREFIX}{name}" for name, *_ in exposition.GAUGES}
NAMES |= {f"{exposition.PREFIX}{name}" for name in ("part_status", "version_info", "newest_release_info")}


def expressions():
    yield from ((rule["alert"], rule["expr"]) for rule in ALERTS)
    yield from ((panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"])
    yield from ((each["name"], json.dumps(each["query"])) for each in DASHBOARD["templating"]["list"])


def test_every_metric_that_is_asked_for_is_written():
    """A misspelt one would have no samples: its alert would never fire."""
    asked = {name for _, expression in expressions() for name in re.findall(r"immich_host_\w+", expression)}
    assert asked <= NAMES
    assert NAMES - asked == {
        "immich_host_newest_release_info",
        "immich_host_restore_drill_timestamp_seconds",
        "immich_host_update_timestamp_seconds",
    }  # for a person who looks


def test_every_alert_is_in_the_page():
    page = (REPO / "docs/howto/metrics.md").read_text(encoding="utf8")
    table = "\n".join(line for line in page.splitlines() if line.startswith("| `Immich"))
    assert sorted(re.findall(r"`(Immich\w+)`", table)) == sorted(rule["alert"] for rule in ALERTS)


def test_an_alert_says_what_to_do_and_how_urgent_it_is():
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
