"""What a state of units says of files that it could not remove."""

from _states import systemd_unit


def test_a_removal_that_fails_midway_names_what_is_gone(monkeypatch, tmp_path):
    monkeypatch.setattr(systemd_unit, "__opts__", {"test": False}, raising=False)
    removed, stays = tmp_path / "a.service", tmp_path / "b.service"
    removed.write_text("[Service]")
    stays.mkdir()
    ret = systemd_unit.files_absent("x", [str(removed), str(stays)])
    assert (ret["result"], ret["changes"]) == (False, {str(removed): {"old": "present", "new": None}})
    assert str(stays) in ret["comment"]
