"""
The grammar of the configuration file: a directive a line, the last one of a name counts
========================================================================================
"""

import re
import shlex

# Directives a running server refuses to change: createStandardConfig and IMMUTABLE_CONFIG in its src/config.c.
# One that is missing here is found out by trying.
AT_START_ONLY = {
    "aclfile",
    "cluster-config-file",
    "cluster-enabled",
    "daemonize",
    "databases",
    "disable-thp",
    "io-threads",
    "logfile",
    "pidfile",
    "rdbchecksum",
    "supervised",
    "syslog-enabled",
    "syslog-facility",
    "syslog-ident",
    "tcp-backlog",
    "unixsocket",
    "unixsocketperm",
}
MOVED = "# Moved to the ACL file by Salt: "


def name(line):
    """Return the directive of a line in lower case, empty for a comment or a blank line."""
    if line.startswith("#"):  # as most lines of the file that comes with the server
        return ""
    words = line.split(None, 1)
    return words[0].lower() if words else ""


def directive(text, desired):
    """Return the words of a directive, or None if the file does not have it."""
    found = [line for line in text.splitlines() if name(line) == desired]
    return shlex.split(found[-1])[1:] if found else None


def edited(text, directives):
    """Return the text with these directives (words by name), each where its last one stood, or at the end."""
    lines = text.splitlines()
    for desired, words in directives.items():
        line = " ".join([desired, *(_quoted(word) for word in words)])
        places = [place for place, old in enumerate(lines) if name(old) == desired]
        if places:
            lines[places[-1]] = line
        else:
            lines.append(line)
    return "\n".join(lines) + "\n" if directives else text


def without_users(text):
    """
    Return the text without users and password, which the ACL file holds now.

    A server with ``user`` lines and an ``aclfile`` refuses to start; ``requirepass`` would be read and overridden.
    """
    lines = []
    for line in text.splitlines(keepends=True):
        if name(line) == "user":
            lines.append(f"{MOVED}user {line.split()[1]}\n")
        elif name(line) == "requirepass":
            lines.append(f"{MOVED}requirepass\n")
        else:
            lines.append(line)
    return "".join(lines)


def value_words(value):
    """Return the words of a declared value."""
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return shlex.split(str(value))


def equal(words, others):
    """Return whether two values mean the same."""
    return [_in_bytes(word) for word in words] == [_in_bytes(word) for word in others]


def _in_bytes(word):
    """Sizes as bytes: the server reports 1073741824 where the file has 1gb."""
    size = re.fullmatch(r"(\d+)(k|kb|m|mb|g|gb)", word.lower())
    if not size:
        return word
    unit = size.group(2)
    base = 1024 if unit.endswith("b") else 1000
    return str(int(size.group(1)) * base ** ("kmg".index(unit[0]) + 1))


def _quoted(word):
    if re.fullmatch(r"[^\s\"'\\]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
