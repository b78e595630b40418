"""`systemd_unit` against the systemd of the test host."""

import subprocess
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

NAME = "t-unit.service"
UNIT = Path("/etc/systemd/system") / NAME
TEXT = "[Service]\nExecStart={program}\n[Install]\nWantedBy=multi-user.target\n"


def systemctl(*arguments, check=True):
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=check).stdout.strip()


@pytest.fixture
def unit():
    """A function that writes the unit, which runs a program."""

    def write(program="/usr/bin/sleep 1000"):
        UNIT.write_text(TEXT.format(program=program), encoding="ascii")
        return NAME

    yield write
    systemctl("disable", "--now", NAME, check=False)
    UNIT.unlink(missing_ok=True)
    systemctl("daemon-reload")
    systemctl("reset-failed", NAME, check=False)


def seen():
    return systemctl("is-active", NAME, check=False), systemctl("is-enabled", NAME, check=False)


def test_running(states, unit, testmode):
    unit()
    ret = states.systemd_unit.running(NAME, test=testmode)
    assert ret.result is (None if testmode else True)
    assert ret.changes == {
        "enabled": {"old": "disabled", "new": "enabled"},
        "active": {"old": "inactive", "new": "active"},
    }
    assert seen() == (("inactive", "disabled") if testmode else ("active", "enabled"))


def test_enabled_starts_nothing(states, unit, testmode):
    unit()
    ret = states.systemd_unit.enabled(NAME, test=testmode)
    assert ret.changes == {"enabled": {"old": "disabled", "new": "enabled"}}
    assert seen() == ("inactive", "disabled" if testmode else "enabled")


def test_nothing_changes_twice(states, unit):
    unit()
    assert states.systemd_unit.running(NAME).changes
    for state in (states.systemd_unit.running, states.systemd_unit.enabled):
        again = state(NAME)
        assert (again.result, again.changes) == (True, {})


def test_a_unit_file_that_changed_is_read_again(states, modules, unit):
    unit("/usr/bin/sleep 1")
    assert systemctl("show", "--property=LoadState", "--value", NAME) == "loaded"
    unit("/usr/bin/sleep 2000")
    assert states.systemd_unit.running(NAME).result is True
    assert "sleep 2000" in systemctl("show", "--property=ExecStart", "--value", NAME)
    assert modules.systemd_unit.status(NAME)["outdated"] is False


def test_files_absent(states, modules, unit, testmode):
    unit()
    assert modules.systemd_unit.status(NAME)["loaded"] == "loaded"
    ret = states.systemd_unit.files_absent("the unit", files=[str(UNIT), f"{UNIT}.absent"], test=testmode)
    assert ret.result is (None if testmode else True)
    assert ret.changes == {str(UNIT): {"old": "present", "new": None}}
    assert UNIT.exists() is testmode
    assert modules.systemd_unit.status(NAME)["loaded"] == ("loaded" if testmode else "not-found")
    assert not states.systemd_unit.files_absent("the unit", files=[f"{UNIT}.absent"]).changes


def test_a_static_unit_need_not_be_enabled(states):
    assert states.systemd_unit.enabled("systemd-journald.service").changes == {}


def test_a_unit_that_is_not_there(states, testmode):
    ret = states.systemd_unit.running("t-nowhere.service", test=testmode)
    if testmode:  # a package that this run installs may bring it
        assert ret.result is None
        assert set(ret.changes) == {"enabled", "active"}
    else:
        assert (ret.result, ret.changes) == (False, {})
        assert "is its package installed?" in ret.comment


def test_the_error_of_a_unit_that_does_not_start_names_its_log(states, unit):
    UNIT.write_text("[Service]\nType=oneshot\nExecStart=/usr/bin/false\n[Install]\nWantedBy=multi-user.target\n")
    ret = states.systemd_unit.running(NAME)
    assert (ret.result, ret.changes) == (False, {})
    assert f"journalctl -u {NAME}" in ret.comment


def test_a_failing_call_raises_the_message_of_systemd(modules):
    with pytest.raises(CommandExecutionError, match="t-nowhere"):
        modules.systemd_unit.call("start", "t-nowhere.service")


def test_status_has_the_words_of_systemd(modules, states, unit):
    unit()
    assert modules.systemd_unit.status(NAME)["active"] == "inactive"
    states.systemd_unit.running(NAME)
    found = modules.systemd_unit.status(NAME)
    assert (found["loaded"], found["active"], found["enabled"]) == ("loaded", "active", "enabled")


def test_several_units_in_one_look(modules):
    units = modules.systemd_unit.statuses("dbus.service", "t-there-is-none.timer", "dbus.socket")
    assert [unit["loaded"] for unit in units.values()] == ["loaded", "not-found", "loaded"]
    assert units["dbus.service"] == modules.systemd_unit.status("dbus.service")


def test_loaded_reads_a_drop_in_and_restarts_nothing(states, loaders, unit, testmode):
    unit()
    systemctl("start", NAME)
    run = systemctl("show", "--property=MainPID", NAME)
    drop_in = Path(f"{UNIT}.d/stop.conf")
    drop_in.parent.mkdir()
    # systemd 252 does not look into a directory that is newer than its last reload: then `watch` brings the reload.
    systemctl("daemon-reload")
    try:
        assert states.systemd_unit.loaded(NAME, test=testmode).changes == {}
        # A dry run knows of a file that is not written yet by `watch` alone.
        watched = loaders.quick[testmode]["systemd_unit.mod_watch"](NAME, sfun="loaded")
        assert (watched["result"], bool(watched["changes"])) == (None if testmode else True, True)
        drop_in.write_text("[Service]\nTimeoutStopSec=77\n")
        ret = states.systemd_unit.loaded(NAME, test=testmode)
        assert ret.result is (None if testmode else True)
        assert ret.changes == {"files": {"old": "outdated", "new": "loaded"}}
        timeout = systemctl("show", "--property=TimeoutStopUSec", "--value", NAME)
        assert (timeout == "1min 17s") is not testmode
        assert states.systemd_unit.loaded(NAME).result is True
        assert states.systemd_unit.loaded(NAME).changes == {}
        assert systemctl("show", "--property=MainPID", NAME) == run
    finally:
        drop_in.unlink()
        drop_in.parent.rmdir()
