"""`valkey_acl` when something breaks on the way: nothing is half done, and a re-run completes."""

import subprocess

import pytest

from tests.functional.proxy import Proxy
from tests.functional.release import OWN_SERVER
from tests.functional.valkey_servers import Server

pytestmark = pytest.mark.once

OLD = {"name": "alice", "password": "old", "rules": "~app:* +get +acl|whoami"}
NEW = [
    {"name": "alice", "password": "new", "rules": "~app:* +@read +acl|whoami", "denies": ["FLUSHALL"]},
    {"name": "bob", "password": "bob", "rules": "~b +get"},
]


@pytest.fixture
def server(tmp_path, quick_states):
    """A server with alice and a stranger, whom the new list has no more."""
    server = Server(OWN_SERVER, tmp_path)
    for user in (OLD, {"name": "stranger", "rules": "~x +get"}):
        assert quick_states("valkey_acl.present", **user, connection=server.connection)["result"] is True
    yield server
    server.stop()


def managed(quick_states, connection):
    return quick_states("valkey_acl.managed", "all", users=NEW, remove_unlisted=True, connection=connection)


def held(server):
    """The users of the running server, and those of its file. Redis 7.0 orders the rules of a file as it likes."""
    texts = server.run("ACL", "LIST"), server.aclfile.read_text().splitlines()
    return [sorted(sorted(line.split()) for line in lines) for lines in texts]


def assert_completed(quick_states, server):
    assert managed(quick_states, server.connection)["result"] is True
    assert server.names() == {"default", "alice", "bob"}
    assert held(server)[0] == held(server)[1]
    assert server.client("alice", "new").execute_command("ACL", "WHOAMI") == "alice"
    assert managed(quick_states, server.connection)["changes"] == {}


# What each step of a change begins with: its dry run, its first save, the change itself.
STEPS = {"dry run": b"DRYRUN", "save": b"SAVE", "change": b"DELUSER\r\n$8\r\nstranger"}


@pytest.mark.parametrize("step", STEPS)
def test_server_that_is_stopped_on_the_way(quick_states, server, step):
    before = held(server)
    with Proxy(("127.0.0.1", server.port), STEPS[step], server.stop) as proxy:
        ret = managed(quick_states, {**server.connection, "port": proxy.port})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "cannot be reached" in ret["comment"]
    server.start()
    assert held(server) == before
    assert_completed(quick_states, server)


@pytest.mark.parametrize("after", (False, True), ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_connection_that_is_cut_on_the_way(quick_states, server, step, after):
    """Once is no harm: what was sent is sent again, whether or not the server had got it."""
    with Proxy(("127.0.0.1", server.port), STEPS[step], after=after) as proxy:
        ret = managed(quick_states, {**server.connection, "port": proxy.port})
        assert proxy.word is None
    assert ret["result"] is True, ret["comment"]
    assert_completed(quick_states, server)


@pytest.mark.parametrize("after", (False, True), ids=["before", "after"])
def test_connection_that_is_cut_while_a_user_is_deleted(modules, server, after):
    """Sent again, the command found nobody to delete, which was taken for a failure."""
    with Proxy(("127.0.0.1", server.port), STEPS["change"], after=after) as proxy:
        assert modules.valkey_acl.delete("stranger", connection={**server.connection, "port": proxy.port}) is True
    assert "stranger" not in str(held(server))


def test_client_that_is_killed_between_two_states(quick_states, server):
    managed(quick_states, server.connection)
    server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert managed(quick_states, server.connection)["changes"] == {}


@pytest.fixture
def cramped(tmp_path, quick_states):
    """A server whose ACL file is alone on a disk of four pages."""
    folder = tmp_path / "acl"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], check=True)
    (folder / "users.acl").touch()
    server = Server(OWN_SERVER, tmp_path, aclfile=False, config=f"aclfile {folder}/users.acl")
    server.aclfile = folder / "users.acl"
    assert quick_states("valkey_acl.present", **OLD, connection=server.connection)["result"] is True
    assert quick_states("valkey_acl.present", "stranger", rules="~x", connection=server.connection)["result"] is True
    yield server
    server.stop()
    subprocess.run(["umount", folder], check=True)


def test_disk_that_is_full(quick_states, cramped):
    before = held(cramped)
    filler = cramped.aclfile.with_name("filler")
    with pytest.raises(OSError, match="No space left"), open(filler, "wb") as stream:
        stream.write(b"x" * 65536)
    ret = managed(quick_states, cramped.connection)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "nothing was changed" in ret["comment"]
    assert held(cramped) == before
    filler.unlink()
    assert_completed(quick_states, cramped)


@pytest.mark.parametrize("how", ("managed", "present"))
def test_disk_that_the_old_users_fit_on_and_the_new_ones_do_not(quick_states, cramped, how):
    """They were left in memory alone, to be forgotten at the next start."""
    before = held(cramped)
    large = {"name": "alice", "password": "new", "rules": [f"~{'k' * 100}{number}" for number in range(150)]}
    if how == "managed":
        users = [large, {"name": "bob"}]
        declared = {"name": "all", "users": users, "remove_unlisted": True}
    else:
        declared = large
    ret = quick_states(f"valkey_acl.{how}", **declared, connection=cramped.connection)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "they are as they were" in ret["comment"]
    assert held(cramped) == before
    assert cramped.client("alice", "old").execute_command("ACL", "WHOAMI") == "alice"
    assert [path.name for path in cramped.aclfile.parent.iterdir()] == ["users.acl"]
    assert_completed(quick_states, cramped)


def test_user_that_cannot_be_deleted_for_good_stays(modules, cramped):
    filler = cramped.aclfile.with_name("filler")
    with pytest.raises(OSError, match="No space left"), open(filler, "wb") as stream:
        stream.write(b"x" * 65536)
    with pytest.raises(Exception, match="nothing was changed"):
        modules.valkey_acl.delete("stranger", connection=cramped.connection)
    assert "stranger" in cramped.names()
    filler.unlink()
    assert modules.valkey_acl.delete("stranger", connection=cramped.connection) is True


def test_two_runs_at_once(quick_states, server, at_once):
    rets = at_once(lambda: managed(quick_states, server.connection))
    assert any(ret["result"] for ret in rets), rets
    assert all(ret["result"] or ret["comment"] for ret in rets)
    assert_completed(quick_states, server)
