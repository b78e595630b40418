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
