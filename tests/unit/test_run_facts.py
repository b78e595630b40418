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


def test_what_becomes_of_the_installation_is_asked_once():
    run, asked = {}, []
    functions = {"immich_identity.plan": lambda settings: asked.append(settings) or {"refusals": [], "changes": {}}}
    for _ in range(2):
        assert run_facts.identity_plan(run, functions, {"x": 1}) == {"refusals": [], "changes": {}}
    assert asked == [{"x": 1}]
    run_facts.of(run).identity_plan = None
    run_facts.identity_plan(run, functions, {"x": 2})
    assert asked == [{"x": 1}, {"x": 2}]
