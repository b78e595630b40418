"""Records of pg_hba.conf, as `pgsql_hba` writes and compares them without a server."""

import pytest
from salt.exceptions import SaltInvocationError

from _modules import pgsql_hba

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
    assert pgsql_hba._line({**RECORD, **changed}) == line


def test_record_with_an_unknown_key():
    with pytest.raises(SaltInvocationError, match="adress"):
        pgsql_hba._line({**RECORD, "adress": "x"})


def test_networks_of_ipv6():
    rule = {"address": "fd00::", "netmask": "ffff:ffff::"}
    assert str(pgsql_hba._network(rule)) == "fd00::/32"
