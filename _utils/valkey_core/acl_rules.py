"""
The grammar of ACL rules
========================

After ACLSetUser and ACLSetSelector in the server's src/acl.c. A user is plain data, in a normal form: ``enabled``,
``nopass``, ``passwords`` (SHA-256), ``sanitize`` and ``selectors``, the root one first.
"""

import re

from valkey_core import passwords, replies
from valkey_core.errors import InvalidArgumentError

# What the server takes for a blank (isspace() of C), which other spaces of Unicode are not.
BLANKS = re.compile(r"\s+", re.ASCII)
# What ACL GETUSER describes in the words of rules, of a user and of each of its selectors.
REPLY_RULES = ("keys", "channels", "databases", "commands")


def new_user():
    """Return a user that ACL SETUSER has just created."""
    return {
        "enabled": False,
        "nopass": False,
        "passwords": set(),
        "sanitize": True,
        "selectors": [_new_selector()],
    }


def parse(tokens):
    """
    Return the user that the server would hold after these rules.

    tokens
        Single rules, as of ``split_rules``.

    Raises ``InvalidArgumentError`` for what is not ACL grammar; a password is never in its message.
    """
    user = new_user()
    for position, token in enumerate(tokens, 1):
        try:
            _apply_user_rule(user, token)
        except ValueError as err:
            # The piece of a password with a blank must not be in a message.
            secret = any(one[:1] in "><" for one in tokens)
            shown = f"number {position}" if secret else f"{token!r}"
            raise InvalidArgumentError(f"The rule {shown} is not ACL grammar: {err}.") from None
    return user


def parse_line(line):
    """Return name and definition of a user from a line of ACL LIST, or of a file as ``split`` and joined again."""
    _, name, *rest = line.split(" ")
    return name, parse(split_rules(" ".join(rest)))


def parse_reply(reply):
    """Return the user that ACL GETUSER describes: in the words of rules, but passwords, which lack their sign."""
    user = parse([*reply["flags"], *(f"#{one}" for one in reply["passwords"]), *_reply_rules(reply)])
    for other in reply["selectors"]:
        selector = _new_selector()
        for rule in _reply_rules(replies.pairs(other)):
            _apply_selector_rule(selector, rule)
        user["selectors"].append(selector)
    return user


def split(text):
    """Return the pieces of a text between what the server takes for a blank."""
    return [piece for piece in re.split(BLANKS, text) if piece]


def split_rules(rules):
    """
    Return the single rules of a string or list; what stands in parentheses is one.

    Raises ``InvalidArgumentError`` for what is no string, and a parenthesis that is not closed.
    """
    pieces = []
    for item in [rules] if isinstance(rules, str) else rules or []:
        if not isinstance(item, str):
            raise InvalidArgumentError("ACL rules must be strings.")
        pieces += [item] if item[:1] in ("<", ">") and not isinstance(rules, str) else split(item)
    tokens, opened = [], []
    for piece in pieces:
        if opened or piece.startswith("("):
            opened.append(piece)
            if piece.endswith(")"):
                tokens.append(" ".join(opened))
                opened = []
        else:
            tokens.append(piece)
    if opened:
        raise InvalidArgumentError("A parenthesis in the ACL rules is not closed.")
    return tokens


def user_rules(user):
    """Return the rules of a user without flags and passwords, as the server would list them."""
    root, *others = user["selectors"]
    flags = [] if user["sanitize"] else ["skip-sanitize-payload"]
    return [*flags, *_selector_rules(root), *(f"({' '.join(_selector_rules(one))})" for one in others)]


def setuser_arguments(user):
    """Return the arguments of ACL SETUSER that make a user so, whatever it was."""
    verifiers = ["nopass"] if user["nopass"] else [f"#{one}" for one in sorted(user["passwords"])]
    return ["reset", "on" if user["enabled"] else "off", *verifiers, *user_rules(user)]


def _new_selector():
    return {"keys": {}, "channels": set(), "dbs": None, "all": False, "commands": []}


def _apply_user_rule(user, token):
    word, sign = token.lower(), token[:1]
    if word in ("on", "off"):
        user["enabled"] = word == "on"
    elif word == "nopass":
        user["nopass"] = True
        user["passwords"] = set()
    elif word == "resetpass":
        user["nopass"] = False
        user["passwords"] = set()
    elif word in ("sanitize-payload", "skip-sanitize-payload"):
        user["sanitize"] = word == "sanitize-payload"
    elif word == "reset":
        user.update(new_user())
    elif word == "clearselectors":
        del user["selectors"][1:]
    elif sign in ("#", ">"):
        user["passwords"].add(passwords.checked_hash(token) if sign == "#" else passwords.sha256(token[1:]))
        user["nopass"] = False
    elif sign in ("!", "<"):
        gone = passwords.checked_hash(token[1:]) if sign == "!" else passwords.sha256(token[1:])
        user["passwords"].discard(gone)
    elif sign == "(":
        selector = _new_selector()
        for inner in split(token[1:-1]):
            _apply_selector_rule(selector, inner)
        user["selectors"].append(selector)
    else:
        _apply_selector_rule(user["selectors"][0], token)


def _apply_selector_rule(selector, token):
    word, sign = token.lower(), token[:1]
    if sign in ("+", "-") and len(token) > 1:
        _apply_command_rule(selector, word)
    elif sign in ("~", "%"):
        _apply_key_rule(selector, token)
    elif sign == "&" and len(token) > 1:
        channels = selector["channels"] | {token[1:]}
        selector["channels"] = {"*"} if "*" in channels else channels
    elif word in _SELECTOR_WORDS:
        _SELECTOR_WORDS[word](selector)
    elif word.startswith("db="):
        _apply_database_rule(selector, word)
    else:
        raise ValueError("no such rule")


_SELECTOR_WORDS = {
    "allkeys": lambda selector: selector.update(keys={"*": "RW"}),
    "resetkeys": lambda selector: selector.update(keys={}),
    "allchannels": lambda selector: selector.update(channels={"*"}),
    "resetchannels": lambda selector: selector.update(channels=set()),
    "allcommands": lambda selector: selector.update(all=True, commands=[]),
    "nocommands": lambda selector: selector.update(all=False, commands=[]),
    "alldbs": lambda selector: selector.update(dbs=None),
    "resetdbs": lambda selector: selector.update(dbs=set()),
}


def _apply_command_rule(selector, rule):
    """Keep the order of rules; a later one for the same thing takes the place of the earlier one."""
    name = rule[1:]
    if name == "@all":
        selector.update(all=rule[0] == "+", commands=[])
        return
    nested = name + "|"
    kept = [one for one in selector["commands"] if one[1:] != name and not one[1:].startswith(nested)]
    selector["commands"] = [*kept, rule]


def _apply_key_rule(selector, token):
    head, tilde, pattern = token.partition("~")
    rights = "RW" if head == "" else head[1:].upper()
    if not tilde or not rights or set(rights) - set("RW"):
        raise ValueError("a key pattern is ~PATTERN, %R~PATTERN, %W~PATTERN or %RW~PATTERN")
    keys = dict(selector["keys"])
    keys[pattern] = "".join(sorted({*keys.get(pattern, ""), *rights}))
    selector["keys"] = {"*": "RW"} if keys.get("*") == "RW" else keys


def _apply_database_rule(selector, word):
    numbers = word[3:].split(",")
    if not all(number.isdigit() for number in numbers):
        raise ValueError("databases are db=NUMBER[,NUMBER...]")
    if selector["dbs"]:
        # Whether a second one adds or replaces is not the same in all versions of the server.
        raise ValueError("write one db= with all numbers")
    selector["dbs"] = {int(number) for number in numbers}


def _selector_rules(selector):
    keys = [
        f"~{pattern}" if rights == "RW" else f"%{rights}~{pattern}"
        for pattern, rights in sorted(selector["keys"].items())
    ]
    channels = ["resetchannels", *(f"&{pattern}" for pattern in sorted(selector["channels"]))]
    if selector["channels"] == {"*"}:
        channels = ["&*"]
    databases = []
    if selector["dbs"] is not None:
        databases = ["resetdbs"]
        if selector["dbs"]:
            databases = ["db=" + ",".join(str(number) for number in sorted(selector["dbs"]))]
    return [*keys, *channels, *databases, "+@all" if selector["all"] else "-@all", *selector["commands"]]


def _reply_rules(reply):
    # A user of no database has nothing there, one of all of them `alldbs`; a server without databases shows neither.
    databases = ["resetdbs"] if reply.get("databases") == "" else []
    return [*databases, *(rule for part in REPLY_RULES for rule in reply.get(part, "").split(" ") if rule)]
