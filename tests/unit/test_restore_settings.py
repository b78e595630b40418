"""Memory and workers of a restore. Nothing runs here."""

import pytest

from pgsql_core import restore_settings

GIB = 1024**3


@pytest.mark.parametrize(
    ("size", "processors", "free", "memory"),
    (
        (4 * GIB, 2, 16 * GIB, "2097152kB"),  # what the vectors need
        (64 * GIB, 2, 16 * GIB, "4194304kB"),  # what is free, for two
        (0, 2, 16 * GIB, "65536kB"),
        (4 * GIB, 4, GIB // 8, "65536kB"),
        (1000 * GIB, 8, 1000 * GIB, "8388608kB"),
    ),
)
def test_an_index_gets_what_it_needs_of_what_is_free(size, processors, free, memory):
    assert f"-c maintenance_work_mem={memory}" in restore_settings.of_session(size, processors, free)


def test_a_server_elsewhere_keeps_its_memory():
    options = restore_settings.of_session(GIB, 2, None)
    assert "maintenance_work_mem" not in options
    assert "-c max_parallel_maintenance_workers=2 -c min_parallel_table_scan_size=0" in options


def test_jobs_are_as_many_as_processors_up_to_four():
    assert [restore_settings.jobs(number) for number in (None, 1, 2, 64)] == [1, 1, 2, 4]
