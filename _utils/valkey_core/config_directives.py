"""
Directives: what is declared against what file and running server have
======================================================================
"""

from valkey_core import config_file
from valkey_core.errors import ServerError

# In `bind`, these include each IPv4 address.
ALL_ADDRESSES = {"*", "0.0.0.0"}


def desired(in_file, running, include, exclude, settings):
    """
    Return the words that each directive should have.

    in_file
        Words by name, or None for what the file does not have.

    running
        Words by name.

    include, exclude, settings
        As for ``valkey_config.compare``.

    Raises ``ServerError`` if nothing would be left of a directive.
    """
    found = {name: config_file.value_words(value) for name, value in (settings or {}).items()}
    for name, words in (include or {}).items():
        have = running[name] if in_file[name] is None else in_file[name]
        everywhere = name == "bind" and ALL_ADDRESSES & set(have)
        found[name] = have if everywhere else [*have, *(word for word in words if word not in have)]
    for name, words in (exclude or {}).items():
        have = running[name] if in_file[name] is None else in_file[name]
        left = [word for word in have if word not in words]
        if not left and have:
            raise ServerError(f"Without {' '.join(words)}, nothing would be left of the directive {name}.")
        found[name] = left
    return found


def acl_file_to_switch_on(in_file, running, acl_file):
    """Return the ACL file that the server does not use yet, or None. One that it uses already is as good as ours."""
    if not acl_file or running["aclfile"]:
        return None
    return in_file["aclfile"][0] if in_file["aclfile"] else acl_file


def differing(desired, running):
    """Return the names of the directives that the running server does not have."""
    return [name for name, words in desired.items() if not config_file.equal(words, running[name])]


def changes(desired, in_file, running):
    """Return old and new of each directive that differs in file or running server."""
    names = differing(desired, running)
    return {
        name: {"old": " ".join(running[name] if name in names else in_file[name] or []), "new": " ".join(words)}
        for name, words in desired.items()
        if name in names or words != in_file[name]
    }
