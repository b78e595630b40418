"""What an installation is on record as, where it takes root: owners that change."""

import pytest

from immich_core import identity as core
from immich_io import installation, owners
from tests.unit import test_immich_identity as as_any_user

identity, migration, deployed = as_any_user.identity, as_any_user.migration, as_any_user.deployed


def test_owners_are_on_record_while_they_change(identity, migration, modules, deployed, tmp_path, monkeypatch):
    """Whichever user the next run wants, it knows that files of both are there."""
    folder = tmp_path / "photos"
    (folder / "upload").mkdir(parents=True)
    deployed["upload_location"] = str(folder)
    parts = {**core.declared(deployed), "server_user": "0:0"}
    installation.note(**parts)

    def killed(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(owners, "_change", killed)
        with pytest.raises(OSError, match="killed"):
            migration._change_owner(deployed, "server_user", "0:0", "60883:60883")
    assert identity.known()["server_user"] == "0:0, partly 60883:60883"
    for user in ("0:0", "60883:60883"):
        deployed["server"]["user"] = user
        assert identity.plan(deployed, modules)["changes"]["server_user"]["new"] == user
    assert migration._planned_owner(deployed, "server_user", "60883:60883") == (
        f"2 files of {folder} would change their owner to 60883:60883"
    )
    assert "2 files" in migration._change_owner(deployed, "server_user", "0:0", "60883:60883")
    assert identity.plan(deployed, modules)["changes"] == {}
    assert folder.stat().st_uid == 60883


def test_photos_of_before_are_given_to_the_formulas_own_user_where_the_pillar_says_so(
    identity, migration, modules, deployed, tmp_path
):
    folder = tmp_path / "photos"
    (folder / "upload").mkdir(parents=True)
    (tmp_path / "immich.service").unlink()
    deployed.update(upload_location=str(folder), project_dir="/nonexistent")
    assert identity.plan(deployed, modules)["changes"] == {"server_user": {"old": "0:0", "new": "60883:60883"}}
    # The record is made at the end of the first run.
    migration._change_owner(deployed, "server_user", "0:0", "60883:60883")
    assert not installation.record()
    assert identity.plan(deployed, modules)["changes"] == {}
