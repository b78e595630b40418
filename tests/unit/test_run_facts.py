"""What the states of one run hand on to each other."""

from immich_core import run_facts


def test_a_run_has_its_own_facts():
    first, second = {"other": 1}, {}
    run_facts.of(first).server_pid = 7
    assert run_facts.of(first).server_pid == 7
    assert run_facts.of(second) == run_facts.Facts()


def test_a_fact_is_taken_once():
    run = {}
    run_facts.of(run).images = (["a"], {"a": "id"})
    assert run_facts.of(run).take("images") == (["a"], {"a": "id"})
    assert run_facts.of(run).take("images") is None


def test_a_run_begins_without_the_facts_of_another_one():
    process = {}
    run_facts.of(process).migrated = True
    run = dict(process)  # as Salt copies it
    run_facts.begin(run)
    assert run_facts.of(run) == run_facts.Facts()
    assert run_facts.of(process).migrated
