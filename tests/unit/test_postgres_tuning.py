"""Settings of the PostgreSQL server for Immich, and the way back from them."""

import pytest

from immich_core import postgres_tuning


def held(persisted, below=None):
    return {"persisted": persisted, "below": below or persisted}


@pytest.mark.parametrize(
    ("memory", "buffers", "work"),
    (
        (512, "128MB", "4MB"),
        (3915, "512MB", "16MB"),
        (4096, "512MB", "16MB"),
        (7952, "1024MB", "32MB"),
        (10**6, "2048MB", "64MB"),
    ),
)
def test_what_is_kept_in_memory_grows_with_the_hosts(memory, buffers, work):
    for profile in ("ssd", "hdd"):
        values = postgres_tuning.values(profile, memory)
        assert (values["shared_buffers"], values["work_mem"]) == (buffers, work)


def test_only_an_ssd_gets_the_costs_of_one():
    ssd, hdd = postgres_tuning.values("ssd", 4096), postgres_tuning.values("hdd", 4096)
    assert set(ssd) - set(hdd) == {"random_page_cost", "effective_io_concurrency"}
    assert postgres_tuning.values("none", 4096) == {}
    assert [postgres_tuning.values("hdd", 4096, major)["wal_compression"] for major in (14, 15, 17)] == [
        "on",
        "pglz",
        "pglz",
    ]


def plan(desired, record, current):
    return postgres_tuning.planned(desired, record, current, lambda name, value: current[name]["persisted"] == value)


def test_a_value_of_an_administrator_comes_back():
    desired, current = (
        {"work_mem": "16MB", "max_wal_size": "5GB"},
        {"work_mem": held("8MB", "4MB"), "max_wal_size": held("1GB")},
    )
    settings, record = plan(desired, {}, current)
    assert settings == desired
    assert record == {"work_mem": {"set": "16MB", "before": "8MB"}, "max_wal_size": {"set": "5GB", "before": None}}
    # A second run, or one after a kill, does not take the formula's own values for the former ones.
    tuned = {"work_mem": held("16MB", "4MB"), "max_wal_size": held("5GB", "1GB")}
    assert plan(desired, record, tuned) == (desired, record)
    assert plan({}, record, tuned) == ({"work_mem": "8MB", "max_wal_size": None}, {})


def test_what_somebody_has_changed_since_stays():
    record = {"work_mem": {"set": "16MB", "before": None}}
    assert plan({}, record, {"work_mem": held("99MB", "4MB")}) == ({}, {})
