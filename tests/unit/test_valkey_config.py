"""The decisions of `valkey_config` that need no server: what a configuration file says and how it is edited."""

import pytest

from _modules import valkey_config

TEXT = """\
# bind 192.0.2.9
bind 127.0.0.1 -::1
requirepass "a b"
save ""
Bind 127.0.0.1
user alice on #00 ~* +@all
"""


def test_the_last_directive_counts():
    assert valkey_config._directive(TEXT, "bind") == ["127.0.0.1"]
    assert valkey_config._directive(TEXT, "save") == [""]
    assert valkey_config._directive(TEXT, "port") is None


def test_edited_where_it_stood_or_at_the_end():
    text = valkey_config._edited(TEXT, {"bind": ["127.0.0.1", "192.0.2.1"], "save": [""], "logfile": ["a b"]})
    lines = text.splitlines()
    assert lines[4] == "bind 127.0.0.1 192.0.2.1"
    assert lines[3] == 'save ""'
    assert lines[-1] == 'logfile "a b"'
    assert lines[:3] == TEXT.splitlines()[:3]


def test_users_and_password_leave_no_trace_of_themselves():
    text = valkey_config._without_users(TEXT)
    assert "#00" not in text
    assert "a b" not in text
    assert [line for line in text.splitlines() if line.startswith(("user", "requirepass"))] == []
    assert valkey_config._without_users(text) == text


@pytest.mark.parametrize(
    ("word", "other"), (("1gb", "1073741824"), ("1g", "1000000000"), ("64MB", "67108864"), ("5", "5"), ("yes", "yes"))
)
def test_sizes_are_the_same_in_any_unit(word, other):
    assert valkey_config._equal([word], [other])


def test_values_as_words():
    assert valkey_config._value_words(True) == ["yes"]
    assert valkey_config._value_words("3600 1 300 100") == ["3600", "1", "300", "100"]
    assert valkey_config._value_words("") == []
