"""What `valkey_core` decides about the configuration: what a file says, how it is edited, and what would change."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valkey_core import config_directives, config_file
from valkey_core.errors import ServerError

TEXT = """\
# bind 192.0.2.9
bind 127.0.0.1 -::1
requirepass "a b"
save ""
Bind 127.0.0.1
user alice on #00 ~* +@all
"""


def test_the_last_directive_counts():
    assert config_file.directive(TEXT, "bind") == ["127.0.0.1"]
    assert config_file.directive(TEXT, "save") == [""]
    assert config_file.directive(TEXT, "port") is None


def test_edited_where_it_stood_or_at_the_end():
    text = config_file.edited(TEXT, {"bind": ["127.0.0.1", "192.0.2.1"], "save": [""], "logfile": ["a b"]})
    lines = text.splitlines()
    assert lines[4] == "bind 127.0.0.1 192.0.2.1"
    assert lines[3] == 'save ""'
    assert lines[-1] == 'logfile "a b"'
    assert lines[:3] == TEXT.splitlines()[:3]


def test_users_and_password_leave_no_trace_of_themselves():
    text = config_file.without_users(TEXT)
    assert "#00" not in text
    assert "a b" not in text
    assert [line for line in text.splitlines() if line.startswith(("user", "requirepass"))] == []
    assert config_file.without_users(text) == text


@pytest.mark.parametrize(
    ("word", "other"), (("1gb", "1073741824"), ("1g", "1000000000"), ("64MB", "67108864"), ("5", "5"), ("yes", "yes"))
)
def test_sizes_are_the_same_in_any_unit(word, other):
    assert config_file.equal([word], [other])


def test_values_as_words():
    assert config_file.value_words(True) == ["yes"]
    assert config_file.value_words("3600 1 300 100") == ["3600", "1", "300", "100"]
    assert config_file.value_words("") == []


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=8), min_size=1))
def test_any_words_are_read_as_they_were_written(words):
    text = config_file.edited(TEXT, {"logfile": words})
    assert config_file.directive(text, "logfile") == words
    assert config_file.edited(text, {"logfile": words}) == text
    assert text.startswith(TEXT)


# -- declared against current ----------------------------------------------------------------------------

IN_FILE = {"bind": ["127.0.0.1", "-::1"], "maxmemory": None, "aclfile": None}
RUNNING = {"bind": ["127.0.0.1", "-::1"], "maxmemory": ["1073741824"], "aclfile": []}


@pytest.mark.parametrize(
    ("include", "exclude", "settings", "desired"),
    (
        ({"bind": ["192.0.2.1", "127.0.0.1"]}, None, None, {"bind": ["127.0.0.1", "-::1", "192.0.2.1"]}),
        (None, {"bind": ["-::1", "192.0.2.1"]}, None, {"bind": ["127.0.0.1"]}),
        (None, None, {"maxmemory": "1gb", "appendonly": True}, {"maxmemory": ["1gb"], "appendonly": ["yes"]}),
        (None, None, None, {}),
    ),
)
def test_wanted_words(include, exclude, settings, desired):
    assert config_directives.desired(IN_FILE, RUNNING, include, exclude, settings) == desired


def test_a_server_that_listens_everywhere_needs_no_address():
    everywhere = {"bind": ["*", "-::*"]}
    assert config_directives.desired(everywhere, everywhere, {"bind": ["192.0.2.1"]}, None, None) == everywhere


def test_what_is_not_in_the_file_is_as_the_server_has_it():
    found = config_directives.desired({"bind": None}, RUNNING, {"bind": ["192.0.2.1"]}, None, None)
    assert found["bind"] == ["127.0.0.1", "-::1", "192.0.2.1"]


def test_a_directive_is_not_emptied():
    with pytest.raises(ServerError, match=r"Without 127\.0\.0\.1 -::1, nothing would be left of the directive bind"):
        config_directives.desired(IN_FILE, RUNNING, None, {"bind": ["127.0.0.1", "-::1"]}, None)


def test_an_acl_file_that_is_in_use_or_in_the_file_is_as_good_as_ours():
    switch = config_directives.acl_file_to_switch_on
    assert switch({"aclfile": None}, {"aclfile": []}, None) is None
    assert switch({"aclfile": None}, {"aclfile": []}, "/ours") == "/ours"
    assert switch({"aclfile": ["/theirs"]}, {"aclfile": []}, "/ours") == "/theirs"
    assert switch({"aclfile": ["/theirs"]}, {"aclfile": ["/theirs"]}, "/ours") is None


def test_what_differs_in_file_or_server():
    desired = {"bind": ["127.0.0.1"], "maxmemory": ["1gb"]}
    assert config_directives.differing(desired, RUNNING) == ["bind"]
    assert config_directives.changes(desired, IN_FILE, RUNNING) == {
        "bind": {"old": "127.0.0.1 -::1", "new": "127.0.0.1"},
        "maxmemory": {"old": "", "new": "1gb"},
    }
    assert config_directives.changes({"bind": IN_FILE["bind"]}, IN_FILE, RUNNING) == {}
