"""
Records of pg_hba.conf: their text, and which of them match the same connections
================================================================================

A record is a dictionary as ``pgsql_hba.get`` takes it, a rule a row of ``pg_hba_file_rules``.
"""

import ipaddress
import re

from pgsql_core.errors import InvalidArgumentError

NETWORK_TYPES = {"host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"}
TAG = "# Salt: "


def check_tag(name):
    """Raise ``InvalidArgumentError`` if a text cannot be the tag of a record, a comment at the end of its line."""
    if re.search(r"[\n#]", name) or name != name.strip():
        raise InvalidArgumentError("The tag of a record in pg_hba.conf is one line without #.")


def tagged(texts, name):
    """Return the numbers, from 1, of the lines that carry a tag."""
    return [number for number, text in enumerate(texts, 1) if text.rstrip().endswith(f"{TAG}{name}")]


def line(record):
    """Return the line of a record, without its tag. Raises ``InvalidArgumentError`` for a record that cannot be."""
    unknown = sorted(set(record) - {"type", "database", "user", "address", "method", "options"})
    if unknown:
        raise InvalidArgumentError(f"Unknown in a record of pg_hba.conf: {', '.join(unknown)}.")
    kind, address = record["type"], record.get("address")
    if kind not in {"local", *NETWORK_TYPES}:
        raise InvalidArgumentError(f"pg_hba.conf has no type {kind}.")
    if (kind == "local") == (address is not None):
        raise InvalidArgumentError("In pg_hba.conf a record of type local has no address, and every other has one.")
    words = [kind, *(",".join(map(_word, _names(record[key]))) for key in ("database", "user"))]
    words += [] if address is None else [_word(address)]
    words.append(_word(record["method"]))
    words += [f"{key}={_word(value)}" for key, value in (record.get("options") or {}).items()]
    return "  ".join(words)


def _word(word):
    word = str(word)
    if not word or re.search(r'[\n"]', word):
        raise InvalidArgumentError(f"{word!r} cannot stand in pg_hba.conf.")
    return f'"{word}"' if re.search(r"[\s,#=]", word) else word


def _names(names):
    return [names] if isinstance(names, str) else list(names)


def summary(rule):
    """Return a rule in words, with the number of its line."""
    words = [
        rule["type"],
        ",".join(rule["database"]),
        ",".join(rule["user"]),
        rule["address"],
        rule["netmask"],
    ]
    return f"line {rule['line']}: {' '.join(word for word in [*words, rule['method']] if word)}"


def replaced(texts, name, record, file):
    """
    Return the lines of pg_hba.conf with a record in place of those of the same tag, ahead of any wider one.

    texts
        The lines there are.

    name
        The tag.

    record
        The record, or nothing to take it away.

    file
        ``{"path": …, "rules": [rule, …]}``.
    """
    own = tagged(texts, name)
    new = list(texts)
    if record is not None:
        others = [rule for rule in file["rules"] if rule["file"] != file["path"] or rule["line"] not in own]
        new.insert(_position({**file, "rules": others}, record, texts), f"{line(record)}  {TAG}{name}")
    for text in [texts[number - 1] for number in own]:
        # The new line, if it is the same, stands ahead of the old one: take the last of them.
        del new[len(new) - 1 - new[::-1].index(text)]
    return new


def _position(file, record, texts):
    """The index of the first line that a record has to precede; the end if there is none."""
    wider = ahead(file, record, [])
    numbers = [rule["line"] for rule in wider if rule["file"] == file["path"]]
    if len(numbers) < len(wider):
        numbers += [number for number, text in enumerate(texts, 1) if re.match(r"\s*include", text)]
    return min(numbers) - 1 if numbers else len(texts)


def ahead(file, record, own):
    """
    Return the rules that match some of a record's connections before it does, and are not narrower.

    file
        ``{"path": …, "rules": [rule, …]}``.

    record
        The record.

    own
        Numbers of the lines that are the record's own, as ``tagged`` returns them.
    """
    found = []
    for rule in file["rules"]:
        if rule["file"] == file["path"] and rule["line"] in own:
            break
        if _overlaps(record, rule) and not _is_narrower(rule, record):
            found.append(rule)
    return found


def _overlaps(record, rule):
    if (record["type"] == "local") != (rule["type"] == "local"):
        return False
    return (
        _names_overlap(_names(record["database"]), rule["database"])
        and _names_overlap(_names(record["user"]), rule["user"])
        and _addresses_overlap(network(record), network(rule))
    )


def _names_overlap(left, right):
    if "replication" in (*left, *right) and not set(left) & set(right):
        return False  # a word of its own in the column of databases, which `all` does not contain
    vague = {"all", "sameuser", "samerole", "samegroup"}
    if set(left) & set(right):
        return True
    return any(name in vague or name.startswith(("+", "/", "@")) for name in (*left, *right))


def network(record):
    """Return the network of a record or rule, or nothing where its address is none."""
    address, netmask = record.get("address"), record.get("netmask")
    try:
        if netmask and ":" in netmask:
            netmask = bin(int(ipaddress.ip_address(netmask))).count("1")
        return ipaddress.ip_network(f"{address}/{netmask}" if netmask else address, strict=False)
    except ValueError:
        return None  # no address, a host name or a special word


def _addresses_overlap(left, right):
    if left is None or right is None:
        return True
    return left.version == right.version and left.overlaps(right)


def _is_narrower(rule, record):
    """A deliberate exception, such as a reject for one address, stays ahead."""
    inner, outer = network(rule), network(record)
    if inner is None or outer is None or inner.version != outer.version or not inner.subnet_of(outer):
        return False
    if not set(rule["database"]) <= set(_names(record["database"])):
        return False
    return set(rule["user"]) <= set(_names(record["user"])) and inner != outer
