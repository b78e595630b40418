"""From a host that has only systemd, Python and Salt to a verified Immich, and then nothing more to do."""

import json
import re

import pytest

from tests.scenarios.conftest import changed, get, on_terminal, pillar_with, plain, post, untimed

VALKEY = "REDISCLI_AUTH=$(cat /etc/immich-formula/valkey.password) valkey-cli --user immich-formula"
APPLY = "salt-call --local state.apply immich"
# Salt's own outputter over a return that was recorded, as salt-call calls it.
OUTPUTTER = """
import json, salt.config, salt.output
opts = salt.config.minion_config("/etc/salt/minion")
salt.output.display_output({"local": json.load(open("/run/test/return.json"))}, "highstate", opts)
"""


def failed(states):
    return [state["id"] for state in states if state["result"] is False]


def shown(host, states):
    """What a terminal shows of recorded states."""
    host.write("/run/test/return.json", json.dumps({state["function"]: state for state in states}))
    host.write("/run/test/outputter.py", OUTPUTTER)
    return plain(on_terminal(host, "/opt/salt/bin/python /run/test/outputter.py"))


def assert_readable(text, warnings, lines):
    """States in the order in which they ran, each warning once, and no data structure in place of them."""
    started = re.findall(r"Started: ([\d:.]+)", text)
    assert started
    # A day may end meanwhile.
    days = [(started[0] >= "23:" and each < "01:", each) for each in started]
    assert days == sorted(days)
    assert "__run_num__" not in text
    in_states, in_summary = re.findall(r"Warnings:(?!  +\d)", text), re.findall(r"Warnings:  +\d", text)
    assert len(in_states) == warnings, text
    assert warnings or not in_summary, text
    assert len(text.splitlines()) <= lines


def test_terminal_shows_a_plan_and_a_first_run(first_run, host):
    plan, states = shown(host, first_run.plan), shown(host, first_run.states)
    assert_readable(plan, warnings=0, lines=100)
    assert_readable(states, warnings=1, lines=2050)  # all but some 500 name packages and files that are new
    assert re.search(r"Failed: +0\b", states)
    assert "Fix what failed" not in plan + states


def test_plan_and_first_run_warn_of_nothing_on_standard_error(first_run):
    # Python's own, as of a Salt that calls what a newer Python deprecates, begin with a file and a class: "…Warning: ".
    assert not re.search(r"\[(WARNING|ERROR|CRITICAL)|Warning: ", first_run.errors), first_run.errors


def test_terminal_shows_a_converged_run(host):
    text = plain(on_terminal(host, APPLY))
    assert_readable(text, warnings=1, lines=700)
    assert "[WARNING" not in text
    assert "[ERROR" not in text


def test_terminal_shows_a_warned_and_a_failed_run(host):
    host.pillar(pillar_with(version="v3"))
    text = plain(on_terminal(host, f"{APPLY} test=True"))
    assert_readable(text, warnings=2, lines=730)
    assert text.count("is a moving tag") == 1
    host.pillar(pillar_with(upload_location="/srv/elsewhere"))
    text = plain(on_terminal(host, APPLY, check=False))
    assert_readable(text, warnings=0, lines=700)
    (told,) = re.findall(r"Comment: (immich:upload_location: the installation's library is .*)", text)
    assert "immich:upload_location_moved_from" in told


def test_deploy_has_nothing_to_do_and_does_not_ask(host):
    text = plain(on_terminal(host, "/srv/formula/bin/deploy"))
    assert "Nothing to do" in text
    assert f"http://{host.address}:2283" in text
    assert len(untimed(text)) <= 24
    assert host.run("ls /opt/immich-formula /usr/local/bin/salt-call.new", check=False).stdout == ""


def test_dry_run_without_modules_says_what_to_type_and_shows_nothing_red(first_run):
    assert not failed(first_run.plan)
    texts = "\n".join(state["comment"] for state in first_run.plan)
    assert "salt-call --local saltutil.sync_all" in texts
    assert "redis psycopg2-binary jsonschema" in texts
    planned = changed(first_run.plan)
    assert "valkey-server" in str(planned)
    assert "podman" in str(planned)


def test_first_apply_brings_everything_in_one_run(first_run):
    assert not failed(first_run.states)
    done = changed(first_run.states)
    assert "The formula's modules are synced" in done
    assert "downtime" not in done["Immich is running"]  # nothing was down that had served
    # What Salt adds up as "Total run time" is not longer than the run.
    assert sum(state["duration"] for state in first_run.states) < first_run.seconds * 1000
    assert first_run.states[-1]["id"] in ("Immich is as declared", "immich is applied with the modules just synced")


def test_restarts_of_shared_services_are_announced_and_happen_once(first_run):
    comments = {state["id"]: state["comment"] for state in first_run.states}
    restarted = [identifier for identifier, comment in comments.items() if "restarted" in comment]
    assert any("Valkey" in identifier for identifier in restarted)
    assert any("PostgreSQL" in identifier for identifier in restarted)
    assert not [state for state in first_run.again if "restarted" in state["comment"]]


def test_second_apply_and_dry_run_after_it_change_nothing(first_run):
    assert changed(first_run.again) == {}
    assert changed(first_run.plan_after) == {}
    assert not [state["id"] for state in first_run.plan_after if state["result"] is not True]


def test_it_warns_until_an_administrator_signs_up(first_run, host):
    for states in (first_run.states, first_run.again):
        warnings = [text for state in states for text in state.get("warnings", [])]
        assert any("administrator" in text for text in warnings)
    answer = post(host, "/api/auth/admin-sign-up", {"email": "a@example.org", "password": "x" * 12, "name": "A"})
    assert answer["email"] == "a@example.org"
    assert get(host, "/api/server/config")["isInitialized"] is True
    assert_readable(plain(on_terminal(host, f"{APPLY} --state-output=changes")), warnings=0, lines=90)


def test_what_valkey_refused_is_a_warning_of_the_apply_with_the_line_that_grants_it(host):
    host.run(
        'export REDISCLI_AUTH="$(cat /opt/podman/immich/secrets/redis_password; printf x)";'
        ' REDISCLI_AUTH="${REDISCLI_AUTH%x}"; valkey-cli --user immich ECHO x'
    )
    warnings = [text for state in host.apply("immich.verify") for text in state.get("warnings", [])]
    host.run(f"{VALKEY} ACL LOG RESET")
    (told,) = [text for text in warnings if "Valkey denied ECHO to the user immich" in text]
    assert 'extra_rules: ["+echo"]' in told


def test_jobs_pass_all_queues_and_valkey_denied_nothing(host):
    jobs = post(host, "/standin/jobs")
    assert jobs["denied"] == []
    assert len(jobs["completed"]) >= 15
    assert (
        host.salt(
            "valkey_acl.log",
            'connection={"username": "immich-formula", "password_file": "/etc/immich-formula/valkey.password"}',
        )
        == []
    )


def test_everything_is_back_after_a_reboot(host):
    posted = post(host, "/standin/assets")
    host.reboot()
    host.wait_for("systemctl is-active immich", 300)
    assert get(host, "/api/server/ping") == {"res": "pong"}
    assert get(host, "/standin/state")
    assert posted
    for container in ("immich-server", "immich-machine-learning"):
        assert "10.88.0.1" in host.out(f"podman exec {container} cat /etc/hosts")
    assert "10.88.0.1" in host.out("ip -4 -br address show dev lo")
    assert changed(host.apply()) == {}


@pytest.mark.long
def test_postgresql_down_at_boot_and_started_later(host):
    host.run("systemctl disable --now postgresql; systemctl mask postgresql@17-main")
    host.reboot()
    host.wait_for("journalctl -u immich | grep -q 'time(s) in a row'", 300)
    assert host.out("systemctl is-active immich", check=False) != "active"
    host.run(
        "systemctl unmask postgresql@17-main; systemctl enable --now postgresql; systemctl start postgresql@17-main"
    )
    host.wait_for("systemctl is-active immich", 300)
    assert get(host, "/api/server/ping") == {"res": "pong"}
