"""What the doctor finds in the folders of containers, where it takes root to put it there."""

import os
import subprocess

from immich_diagnosis import folders


def test_what_a_container_has_left_for_others_is_named(tmp_path):
    uploads, cache = tmp_path / "my uploads", tmp_path / "cache"
    for folder in (uploads / "upload", cache):
        folder.mkdir(parents=True)
    here = {"uploads": str(uploads), "cache": str(cache), "seconds": 20}
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
