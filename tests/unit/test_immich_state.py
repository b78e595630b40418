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


def test_modules_that_do_not_load_after_a_sync_end_the_run(monkeypatch):
    """Or it would sync and apply again without end: the inner run renders the same state."""
    context, runs = {}, []

    def inner_run(name, **_):
        runs.append(name)
        inner = immich.applied(name)
        return {f"immich_|-x_|-{name}_|-applied": {**inner, "__run_num__": 0}}

    monkeypatch.setattr(immich, "_forget_packages", lambda: None)
    dunders = {
        "context": context,
        "opts": {"test": False},
        "env": "base",
        "pillar": {},
        "salt": {"state.sls": inner_run},
    }
    for name, value in dunders.items():
        monkeypatch.setattr(immich, f"__{name}__", value, raising=False)
    ret = immich.applied("immich")
    assert ret["result"] is False
    assert runs == ["immich"]
    assert "do not load" in ret["sub_state_run"][0]["comment"]
    assert context == {}
