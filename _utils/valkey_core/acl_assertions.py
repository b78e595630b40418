"""
Allows and denies: commands that a user must be able to run, or must not
========================================================================

The server judges each of them, with ``ACL DRYRUN``. Here stands what it is asked, and what its answers mean.
"""

import re

from valkey_core.errors import InvalidArgumentError, ServerError
from valkey_core.passwords import as_list


def of(user):
    """
    Return the assertions about a declared user, as pairs of words and whether they must be allowed.

    Raises ``InvalidArgumentError`` for a command that is empty.
    """
    return [
        *((words(command), True) for command in as_list(user.get("allows"))),
        *((words(command), False) for command in as_list(user.get("denies"))),
    ]


def words(command):
    """Return the words of a command, a string or a list of them, the first in lower case."""
    found = command.split() if isinstance(command, str) else [str(word) for word in command or []]
    if not found:
        raise InvalidArgumentError("A command in allows or denies is empty.")
    return [found[0].lower(), *found[1:]]


def lines(command, commands):
    """
    Return what to hand to ACL DRYRUN for one command; a command without subcommand means all of them but HELP.

    ``bare`` means that no arguments were given: what follows the command is padding that only serves its arity,
    and a denial of a key or channel does not count.

    command
        Its words, as of ``words``.

    commands
        Those that the server knows, as of ``acl_commands.table``.
    """
    name = command[0]
    if name not in commands:
        return [{"words": command, "bare": False}]
    if commands[name]["subcommands"]:
        if len(command) == 1:
            names = sorted(commands[name]["subcommands"] - {f"{name}|help"})
            return [_padded(one.split("|"), commands[one]) for one in names]
        name = f"{name}|{command[1].lower()}"
        if name in commands and len(command) == 2:
            return [_padded(command, commands[name])]
    elif len(command) == 1:
        return [_padded(command, commands[name])]
    return [{"words": command, "bare": False}]


def denial(line, reply):
    """
    Return the reason why a line is denied by a reply of ACL DRYRUN, empty if it is allowed.

    Raises ``ServerError`` for a reply that is no verdict.
    """
    text = str(reply)
    if text == "OK":
        return ""
    if isinstance(reply, Exception) and "not found" not in text:
        raise ServerError(f"ACL DRYRUN of {' '.join(line['words'])} failed: {text}.")
    if line["bare"] and "permissions to run" not in text:
        return ""  # about the padding, not about the command
    return re.sub(r"^User \S+ has", "has", text)


def broken(name, pairs, denials):
    """
    Return sentences about the assertions that do not hold.

    name
        Name of the user.

    pairs
        Its assertions, as of ``of``.

    denials
        For each of them the reasons why its lines are denied, as of ``denial``.
    """
    problems = []
    for (command, allow), found in zip(pairs, denials):
        spoken = " ".join([command[0].upper(), *command[1:]])
        if allow and any(found):
            problems.append(f"{spoken} must be allowed to {name}, but is denied: {next(filter(None, found))}.")
        if not allow and not all(found):
            problems.append(f"{spoken} must be denied to {name}, but is allowed.")
    return problems


def _padded(command, entry):
    return {"words": [*command, *["0"] * (abs(entry["arity"]) - len(command))], "bare": True}
