"""
Manage single records of a PostgreSQL server's pg_hba.conf, on the server's own host.

The server says which records it sees there; only the text of the file is this module's business. It needs the
execution module ``pgsql``; see there for ``connection``.
"""

import contextlib
import ipaddress
import os
import re
import shutil
import tempfile

from salt.exceptions import CommandExecutionError, SaltInvocationError

__func_alias__ = {"set_": "set"}

NETWORK_TYPES = {"host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"}
TAG = "# Salt: "


def __virtual__():
    if "pgsql.hba_file" not in __salt__:
        return False, "pgsql_hba needs the execution module pgsql: is psycopg2 in Salt's Python?"
    return True


def get(name, record=None, connection=None):
    """
    Return how pg_hba.conf stands to the record that is tagged with a name.

    ``lines`` are the records with that tag, ``wanted`` is the record as it should stand there, ``ahead`` are the
    ones before it that match some of the same connections and are not narrower, ``loaded`` tells whether the
    server has read the file since it was last written.

    name
        The tag.
    record
        A dictionary: ``type``, ``database``, ``user`` (a name or a list of names each, special words and signs
        of pg_hba.conf included), ``address``, ``method``, ``options`` (a dictionary).
        Defaults to only looking for the tag.
    connection
        See ``pgsql``. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the file is not on this host or the server does not understand it, and
    ``SaltInvocationError`` for a record that cannot be.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_hba.get immich
    """
    wanted = None if record is None else _line(record)
    file = _understood(connection)
    texts = _texts(file["path"])
    own = _own(texts, name)
    return {
        "lines": [texts[number - 1].rpartition("#")[0].rstrip() for number in own],
        "wanted": wanted,
        "ahead": [_text(rule) for rule in _ahead(file, record, own)] if record else [],
        "loaded": os.stat(file["path"]).st_mtime <= file["loaded_at"],
    }


def set_(name, record=None, connection=None):
    """
    Put a record into pg_hba.conf, ahead of any wider one, in place of the one with the same tag, and reload.

    The file is replaced in one step and keeps its owner and mode. If the server does not understand it, the
    old one is put back.

    name
        The tag, a comment at the end of the line.
    record
        See ``get``. Defaults to only removing the one with that tag.
    connection
        See ``pgsql``. Defaults to the superuser on this host's server.

    Raises ``CommandExecutionError`` if the file is not on this host or the server does not accept it, and
    ``SaltInvocationError`` for a record that cannot be.

    CLI Example:

    .. code-block:: bash

        salt '*' pgsql_hba.set immich '{type: host, database: immich, user: immich, address: 172.20.0.0/16,
            method: scram-sha-256}'
    """
    if re.search(r"[\n#]", name) or name != name.strip():
        raise SaltInvocationError("The tag of a record in pg_hba.conf is one line without #.")
    file = _understood(connection)
    path = file["path"]
    old = _texts(path)
    own = _own(old, name)
    new = list(old)
    if record is not None:
        others = [rule for rule in file["rules"] if rule["file"] != path or rule["line"] not in own]
        line = f"{_line(record)}  {TAG}{name}"
        new.insert(_position({**file, "rules": others}, record, old), line)
    for text in [old[number - 1] for number in own]:
        # The new line, if it is the same, stands ahead of the old one: take the last of them.
        del new[len(new) - 1 - new[::-1].index(text)]
    _replace_file(path, new)
    try:
        _understood(connection)
    except CommandExecutionError:
        _replace_file(path, old)
        raise
    __salt__["pgsql.reload"](connection)


def _understood(connection):
    file = __salt__["pgsql.hba_file"](connection)
    path = file["path"]
    if not os.path.isfile(path):
        raise CommandExecutionError(f"{path} is not on this host: pg_hba.conf can be managed beside its server only.")
    errors = [f"line {rule['line']}: {rule['error']}" for rule in file["rules"] if rule["error"]]
    if errors:
        raise CommandExecutionError(f"PostgreSQL does not understand {path}: {'; '.join(errors)}")
    return file


def _texts(path):
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            return file.read().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as err:
        raise CommandExecutionError(f"Cannot read {path}: {err}") from None


def _own(texts, name):
    return [number for number, text in enumerate(texts, 1) if text.rstrip().endswith(f"{TAG}{name}")]


def _line(record):
    unknown = sorted(set(record) - {"type", "database", "user", "address", "method", "options"})
    if unknown:
        raise SaltInvocationError(f"Unknown in a record of pg_hba.conf: {', '.join(unknown)}.")
    kind, address = record["type"], record.get("address")
    if kind not in {"local", *NETWORK_TYPES}:
        raise SaltInvocationError(f"pg_hba.conf has no type {kind}.")
    if (kind == "local") == (address is not None):
        raise SaltInvocationError("In pg_hba.conf a record of type local has no address, and every other has one.")
    words = [kind, *(",".join(map(_word, _names(record[key]))) for key in ("database", "user"))]
    words += [] if address is None else [_word(address)]
    words.append(_word(record["method"]))
    words += [f"{key}={_word(value)}" for key, value in (record.get("options") or {}).items()]
    return "  ".join(words)


def _word(word):
    word = str(word)
    if not word or re.search(r'[\n"]', word):
        raise SaltInvocationError(f"{word!r} cannot stand in pg_hba.conf.")
    return f'"{word}"' if re.search(r"[\s,#=]", word) else word


def _names(names):
    return [names] if isinstance(names, str) else list(names)


def _text(rule):
    words = [
        rule["type"],
        ",".join(rule["database"]),
        ",".join(rule["user"]),
        rule["address"],
        rule["netmask"],
    ]
    return f"line {rule['line']}: {' '.join(word for word in [*words, rule['method']] if word)}"


def _position(file, record, texts):
    """Index of the first line that the record has to precede; the end if there is none."""
    ahead = _ahead(file, record, [])
    numbers = [rule["line"] for rule in ahead if rule["file"] == file["path"]]
    if len(numbers) < len(ahead):
        numbers += [number for number, text in enumerate(texts, 1) if re.match(r"\s*include", text)]
    return min(numbers) - 1 if numbers else len(texts)


def _ahead(file, record, own):
    ahead = []
    for rule in file["rules"]:
        if rule["file"] == file["path"] and rule["line"] in own:
            break
        if _overlaps(record, rule) and not _is_narrower(rule, record):
            ahead.append(rule)
    return ahead


def _overlaps(record, rule):
    if (record["type"] == "local") != (rule["type"] == "local"):
        return False
    return (
        _names_overlap(_names(record["database"]), rule["database"])
        and _names_overlap(_names(record["user"]), rule["user"])
        and _addresses_overlap(_network(record), _network(rule))
    )


def _names_overlap(left, right):
    if "replication" in (*left, *right) and not set(left) & set(right):
        return False  # a word of its own in the column of databases, which `all` does not contain
    vague = {"all", "sameuser", "samerole", "samegroup"}
    if set(left) & set(right):
        return True
    return any(name in vague or name.startswith(("+", "/", "@")) for name in (*left, *right))


def _network(record):
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
    """Somebody's deliberate exception, such as a reject for one address, stays ahead."""
    inner, outer = _network(rule), _network(record)
    if inner is None or outer is None or inner.version != outer.version or not inner.subnet_of(outer):
        return False
    if not set(rule["database"]) <= set(_names(record["database"])):
        return False
    return set(rule["user"]) <= set(_names(record["user"])) and inner != outer


def _replace_file(path, lines):
    """Write a file next to the old one, give it the old one's owner, mode and label, and put it in its place."""
    path = os.path.realpath(path)
    old = os.stat(path)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".pg_hba.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chown(temporary, old.st_uid, old.st_gid)
        shutil.copystat(path, temporary)
        os.utime(temporary)
        os.replace(temporary, path)
    except OSError as err:
        raise CommandExecutionError(f"Cannot write {path}: {err}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
