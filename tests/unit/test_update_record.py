"""The record of what has not been completed."""

import pytest

from immich_io import update_record

UPDATE = {"from": "v3.3.1", "to": "v3.4.0", "image": "a:v3.4.0", "migrations": ["1"], "compose": "former"}


def test_a_record_is_of_an_update_or_of_settings(tmp_path):
    assert update_record.read(tmp_path) is None
    assert update_record.of_update(None) is None
    assert update_record.former_compose(tmp_path) is None
    update_record.write(tmp_path, UPDATE)
    assert update_record.of_update(update_record.read(tmp_path)) == UPDATE
    update_record.write(tmp_path, {"what": update_record.SETTINGS, "compose": "of settings"})
    assert update_record.of_update(update_record.read(tmp_path)) is None
    assert update_record.former_compose(tmp_path) == "of settings"
    assert (tmp_path / update_record.NAME).stat().st_mode & 0o777 == 0o600
    update_record.remove(tmp_path)
    update_record.remove(tmp_path)
    assert update_record.read(tmp_path) is None


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / update_record.NAME).write_text("{")
    with pytest.raises(update_record.DamagedError, match=r"update\.json is damaged: .* remove it"):
        update_record.read(tmp_path)
