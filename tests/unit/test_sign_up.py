"""Who can sign up as Immich's administrator, and what follows for port, firewall and environment."""

import pytest

from immich_core import compose, gateway, sign_up
from immich_host import administrator
from immich_io import compose_file, overview

NETWORK = {"name": "immich", "subnet": "172.20.0.0/16", "ipv6_subnet": "fd49::/64", "interface_name": "immich0"}


@pytest.mark.parametrize(
    ("setup", "email", "signed_up", "expected"),
    (
        ("open", None, False, "open"),
        ("open", None, True, "open"),
        ("closed", None, False, "closed"),
        ("host", None, False, "host"),
        ("host", None, True, "closed"),
        ("host", None, None, "host"),
        ("open", "ana@example.org", False, "root"),
        ("closed", "ana@example.org", False, "root"),
        ("host", "ana@example.org", None, "root"),
        ("open", "ana@example.org", True, "closed"),
    ),
)
def test_nobody_comes_in_before_somebody_has_been_seen(setup, email, signed_up, expected):
    asked = []
    found = sign_up.mode({"setup": setup, "admin": {"email": email}}, lambda: asked.append(1) or signed_up)
    assert found == expected
    # A pillar of before costs no question.
    assert bool(asked) is (email is not None or setup == "host")


def test_the_port_is_published_for_this_host_alone_until_then(settings):
    local = {**settings, **sign_up.derived(settings, "root", ["192.0.2.7"])}
    assert compose.server_url(local) == "http://127.0.0.1:2283"
    (server, _) = compose.project(local, "pgvector")["services"].values()
    assert server["ports"] == ["127.0.0.1:2283:2283"]
    assert sign_up.VARIABLE not in server["environment"]
    opened = {**local, **local["once_signed_up"]}
    (server, _) = compose.project(opened, "pgvector")["services"].values()
    assert server["ports"] == ["192.0.2.7:2283:2283"]
    assert server["environment"][sign_up.VARIABLE] == "false"
    assert sign_up.derived(settings, "closed", ["192.0.2.7"]) == {
        "sign_up": "closed",
        "bind_address": ["192.0.2.7"],
        "once_signed_up": {},
    }


@pytest.mark.parametrize(("mode", "closed", "chains"), (("open", False, 0), ("host", True, 0), ("root", True, 2)))
def test_the_firewall_keeps_others_from_the_server(mode, closed, chains):
    plan = gateway.plan("10.88.0.1", NETWORK, [], [], {}, [], mode)
    assert (plan["closed"], len(plan["root_alone"])) == (closed, chains)
    assert plan["root_alone"][:1] == ["ip daddr 172.20.0.0/16"][:chains]


@pytest.mark.parametrize(
    ("mode", "words"), (("open", "start-restore"), ("host", "ssh -L"), ("root", "root on this host"))
)
def test_a_warning_says_what_is_open_and_what_to_do(mode, words):
    assert words in " ".join(sign_up.warning({"sign_up": mode, "port": 2283}, "http://photos.example:2283"))


def asked(answer):
    """What `pgsql_database.query_as` is in a host whose database answers so."""
    from salt.exceptions import CommandExecutionError

    def query_as(*_):
        if isinstance(answer, str):
            raise CommandExecutionError(answer)
        return [{"found": answer}]

    return {"pgsql_database.query_as": query_as}


POSTGRES = {"user": "immich", "database": "immich", "connection": {}}


def test_a_database_that_does_not_answer_leaves_what_the_compose_file_says(tmp_path, settings):
    def signed_up(salt):
        return administrator.signed_up(POSTGRES, tmp_path, salt)

    assert signed_up(asked(True)) is True
    assert signed_up(asked("connection refused")) is False
    assert signed_up({}) is False
    # What the role can write is no yes unless it is one.
    assert signed_up(asked("t")) is False
    text = compose.text({**settings, "sign_up": "closed"}, "pgvector")
    (tmp_path / "docker-compose.yml").write_text(text, encoding="utf8")
    assert signed_up(asked("connection refused")) is True
    assert signed_up(asked(False)) is False
    assert compose_file.sign_up_closed("services: [") is False


@pytest.mark.parametrize(("components", "local"), ((["app", "accounts"], False), (["app"], True)))
def test_a_plan_says_where_immich_is_reached_at_the_end_of_the_run(settings, components, local):
    """The administrator is signed up by the run; with `setup: host` a person does that later."""
    closed = {**settings, **sign_up.derived(settings, "root", ["192.0.2.7"]), "components": components}
    found = overview.overview(closed, {})
    assert (found["urls"], found["local_only"]) == ([f"http://{'127.0.0.1' if local else '192.0.2.7'}:2283"], local)
