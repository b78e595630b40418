"""Records of pg_hba.conf, written and compared without a server."""

import pytest

from pgsql_core import hba
from pgsql_core.errors import InvalidArgumentError

RECORD = {"type": "host", "database": "a", "user": "u", "address": "10.0.0.0/8", "method": "md5"}


@pytest.mark.parametrize(
    ("changed", "line"),
    (
        ({}, "host  a  u  10.0.0.0/8  md5"),
        ({"database": ["a", "b c"], "user": "+g"}, 'host  a,"b c"  +g  10.0.0.0/8  md5'),
        ({"type": "local", "address": None, "options": {"map": "m"}}, "local  a  u  md5  map=m"),
    ),
)
def test_record(changed, line):
    assert hba.line({**RECORD, **changed}) == line


def test_record_with_an_unknown_key():
    with pytest.raises(InvalidArgumentError, match="adress"):
        hba.line({**RECORD, "adress": "x"})


def test_networks_of_ipv6():
    rule = {"address": "fd00::", "netmask": "ffff:ffff::"}
    assert str(hba.network(rule)) == "fd00::/32"


def rule(line, **changed):
    common = {"file": "/hba", "type": "host", "database": ["all"], "user": ["all"], "netmask": None, "method": "md5"}
    return {**common, "address": "all", "line": line, **changed}


def test_a_record_goes_ahead_of_a_wider_one_and_behind_a_narrower_one():
    texts = ["local all all peer", "host all all 10.0.0.9/32 reject", "host all all all md5"]
    rules = [
        rule(1, type="local", address=None),
        rule(2, database=["a"], user=["u"], address="10.0.0.9", netmask="255.255.255.255", method="reject"),
        rule(3),
    ]
    file = {"path": "/hba", "rules": rules}
    new = hba.replaced(texts, "t", RECORD, file)
    assert new == [*texts[:2], "host  a  u  10.0.0.0/8  md5  # Salt: t", texts[2]]
    assert [each["line"] for each in hba.ahead(file, RECORD, [])] == [3]
    assert hba.replaced(new, "t", None, {"path": "/hba", "rules": []}) == texts


def test_a_tag_is_one_comment():
    hba.check_tag("t")
    for tag in ("a\nb", "a#b", " a"):
        with pytest.raises(InvalidArgumentError):
            hba.check_tag(tag)
