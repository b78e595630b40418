"""What a run that has synced newer modules forgets of the older ones."""

from types import SimpleNamespace

from _states import immich


def test_every_package_that_was_synced_is_forgotten_and_nothing_else(monkeypatch, tmp_path):
    for package in ("immich_core", "another_core"):
        (tmp_path / "utils" / package).mkdir(parents=True)
    kept = ["immich_core_of_others", "json", "salt.loaded.ext.utils.immich_core"]
    modules = dict.fromkeys(["immich_core", "immich_core.settings.schema", "another_core.scram", *kept])
    monkeypatch.setattr(immich, "sys", SimpleNamespace(modules=modules))
    monkeypatch.setattr(immich, "__opts__", {"extension_modules": str(tmp_path)}, raising=False)
    immich._forget_packages()
    assert list(modules) == kept
