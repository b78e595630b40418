"""
Users in files: the ACL file, and the `user` and `requirepass` lines of a configuration file
============================================================================================
"""

import re

from valkey_core import acl_rules, passwords
from valkey_core.errors import InvalidArgumentError

# What the server makes of itself when no file speaks of it.
DEFAULT_RULES = ("on", "nopass", "~*", "&*", "+@all")


def lines_of(text_lines):
    """Return the lines that are about users, by name as ``users``, and the ``requirepass`` lines."""
    found = {"users": {}, "requirepass": []}
    for line in (line.strip(" \t\r\n") for line in text_lines):
        if line.startswith("user "):
            found["users"][re.split(acl_rules.BLANKS, line, maxsplit=2)[1]] = line
        elif line.startswith("requirepass "):
            found["requirepass"].append(line)
    return found


def users_of(found, names, is_acl_file):
    """
    Return the definitions of users that a server would take from a file, by name; none if one is not ACL grammar.

    found
        The file's lines, as of ``lines_of``.

    names
        Only these, or all if it is None. ``default`` is always among them.

    is_acl_file
        Whether the file is an ACL file; of a configuration file, ``requirepass`` counts.
    """
    lines = found["users"]
    desired = lines if names is None else [name for name in names if name in lines]
    try:
        users = dict(acl_rules.parse_line(" ".join(acl_rules.split(lines[name]))) for name in desired)
    except InvalidArgumentError:
        return {}
    if "default" not in lines:
        users["default"] = acl_rules.parse(DEFAULT_RULES)
        given = [line.split(None, 1)[1].strip('"') for line in found["requirepass"]]
        if given and not is_acl_file:
            users["default"].update(nopass=False, passwords={passwords.sha256(given[-1])})
    return users
