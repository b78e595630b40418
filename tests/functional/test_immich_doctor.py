"""What the doctor finds, where it takes root to put it there, or where other hosts on the machine would disturb it."""

import os
import subprocess
import time

import pytest

from immich_diagnosis import folders, leftovers

WORK = {"what": "restore", "since": "2026-11-27T04:09:25Z", "pid": 4711}


def test_what_a_container_has_left_for_others_is_named(tmp_path):
    uploads, cache = tmp_path / "my uploads", tmp_path / "cache"
    for folder in (uploads / "upload", cache):
        folder.mkdir(parents=True)
    here = {"uploads": str(uploads), "storage": {}, "volumes": [], "cache": str(cache), "seconds": 20}
    assert folders._planted(here) == [("ok", "none among 1 files")]

    planted = uploads / "upload" / "sh\x1b[2J; reboot"
    planted.write_text("shell")
    (uploads / "link").symlink_to("/usr/bin/passwd")
    planted.parent.chmod(0o2755)
    assert folders._planted(here)[0][0] == "ok"
    planted.chmod(0o4755)
    os.mknod(cache / "disk", 0o60666, os.makedev(7, 0))
    (setuid, device) = folders._planted(here)
    assert (setuid[0], device[0]) == ("failed", "failed")
    assert f"{uploads}/upload/sh; reboot: setuid or setgid" in setuid[1]
    assert f"{cache}/disk: a device" in device[1]
    for _, _, remedy in (setuid, device):
        assert "reboot" not in remedy
        subprocess.run(remedy, shell=True, check=True)
    assert folders._planted(here)[0][0] == "ok"
    assert planted.exists()

    for number in range(5):
        (cache / f"s{number}").write_text("")
        (cache / f"s{number}").chmod(0o2755)
    assert folders._planted(here)[0][1].count(str(cache)) == folders.MOST_PLANTED
    assert "and more" in folders._planted(here)[0][1]


def begun(pid, states):
    """Wait until the states of a process and its child are as given: S waits, R runs."""
    deadline = time.monotonic() + 120
    while True:
        ps = ["ps", "-o", "stat=", "-p", str(pid), "--ppid", str(pid)]
        told = subprocess.run(ps, stdout=subprocess.PIPE, text=True, check=False).stdout.split()
        if sorted(each[0] for each in told) == sorted(states):
            return
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


@pytest.mark.parametrize(("program", "goes_on"), (("while :; do :; done", True), ("read line <fifo", False)))
def test_work_of_half_a_day_is_ended_only_if_it_does_not_go_on(monkeypatch, tmp_path, program, goes_on):
    """What waits is a shell's own command: the start of a program would take time, on a busy machine any time."""
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(leftovers, "_last_line_of_work", lambda _here: "2026-11-27T10:00:00+0000")
    monkeypatch.setattr(leftovers, "WORK_SECONDS", 3 if goes_on else 0.5)
    now = leftovers.calendar.timegm((2026, 11, 27, 16, 10, 0))
    with subprocess.Popen(["sh", "-c", f"({program}) & wait"], start_new_session=True, cwd=tmp_path) as holder:
        try:
            begun(holder.pid, "SR" if goes_on else "SS")
            result, seen, *do = leftovers._working_row({}, {**WORK, "pid": holder.pid}, now)
        finally:
            os.killpg(holder.pid, 9)
    assert seen.startswith("restore under way since 2026-11-27T04:09:25Z")
    if goes_on:
        assert (result, do) == ("ok", [])
        assert "it makes progress" in seen
    else:
        assert result == "warning"
        assert "its last line in the journal is of 2026-11-27T10:00:00" in seen
        assert do[0].startswith("check again in ten minutes")
    recent = leftovers._working_row({}, WORK, now - 3600 * 11)
    assert recent == ("ok", "restore under way since 2026-11-27T04:09:25Z")
