"""
The server's commands, and which of them rules reach
====================================================

To compare users by meaning, and to see whether a user can still manage ACL users, the order of rules is followed as the
server does. Whether a user may run a command, with its keys and channels, the server alone judges: ``ACL DRYRUN``.
"""


def table(reply):
    """Return the commands and subcommands of a reply of COMMAND or COMMAND INFO, by name in lower case."""
    found = {}
    for entry in reply:
        if not entry:
            continue
        subcommands = [one for one in (entry[9] if len(entry) > 9 else []) if one]
        found[entry[0].lower()] = {
            "arity": entry[1],
            "categories": frozenset(entry[6]),
            "subcommands": {one[0].lower() for one in subcommands},
        }
        found.update(table(subcommands))
    return found


def reached(selector, commands):
    """
    Return the commands and subcommands that the rules of a selector allow.

    After ACLSetSelectorCommandBitsForCategory and ACLChangeSelectorPerm in the server's src/acl.c: a rule for a
    command reaches its subcommands, also if only the command is in the category.

    selector
        One of the selectors of a user, as of ``acl_rules.parse``.

    commands
        The server's commands, as of ``table``.
    """
    allowed = set(commands) if selector["all"] else set()
    for rule in selector["commands"]:
        name = rule[1:]
        if name in commands or name.startswith("@"):
            met = _category_members(commands, name) if name.startswith("@") else {name, *commands[name]["subcommands"]}
            allowed = {one for one in allowed if one.partition("|")[0] not in met or one in commands} - met
            allowed |= met if rule[0] == "+" else set()
        else:
            allowed.add(name)  # a first argument, as in +select|1
    containers = {name for name, entry in commands.items() if entry["subcommands"]}
    return frozenset(
        one
        for one in allowed
        if one not in containers and (one in commands or "|" not in one or one.partition("|")[0] not in allowed)
    )


def unknown(user, commands):
    """Return the commands and categories in the rules of a user that the server does not know."""
    known = set(commands).union(*(entry["categories"] for entry in commands.values()))
    rules = [rule for selector in user["selectors"] for rule in selector["commands"]]
    return [rule[1:] for rule in rules if rule[1:] not in known and not _is_first_argument(rule, commands)]


def _category_members(commands, category):
    members = set()
    for name, entry in commands.items():
        if category in entry["categories"]:
            members.update([name, *entry["subcommands"]])
    return members


def _is_first_argument(rule, commands):
    command, _, argument = rule[1:].partition("|")
    return rule[0] == "+" and bool(argument) and command in commands and not commands[command]["subcommands"]
