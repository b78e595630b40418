"""
What rules allow and deny, judged by the server
===============================================
"""

import itertools
import secrets

from valkey_core import acl_assertions, acl_commands, acl_reading, acl_rules, acl_users, replies
from valkey_core import session as sessions


def judged(session, users, new_rules, scratch):
    """
    ``problems``, sentences about allows and denies that do not hold and about rules that the server does not take;
    ``broken``, users whose allows and denies do not hold; ``unchecked``, users whose allows and denies were not judged.

    ``ACL DRYRUN`` takes only a user that exists. For new rules (``new_rules``, by name) that is a scratch user; where
    there may be none, the commands and categories in them are looked up, no more.
    """
    assertions = {user["name"]: acl_assertions.of(user) for user in users}
    asked = sorted({words[0] for pairs in assertions.values() for words, _ in pairs})
    table = acl_reading.command_info(session, asked) if asked else {}
    subjects = [
        _subject(name, pairs, table, new_rules.get(name))
        for name, pairs in assertions.items()
        if (scratch if name in new_rules else pairs)
    ]
    broken = {}
    for subject, denials in zip(subjects, dry_runs(session, subjects)):
        rest = iter(denials)
        found = [[next(rest) for _ in span] for span in subject["spans"]]
        broken[subject["user"]] = acl_assertions.broken(subject["user"], subject["pairs"], found)
    unknown = [] if scratch else _unknown_names(session, new_rules)
    return {
        "problems": [*itertools.chain.from_iterable(broken.values()), *unknown],
        "broken": [name for name, sentences in broken.items() if sentences],
        "unchecked": [name for name, pairs in assertions.items() if pairs and name in new_rules and not scratch],
    }


def _subject(name, pairs, table, new_rules):
    """A user to ask ACL DRYRUN about: the one that there is, or a scratch user with the new rules."""
    spans = [acl_assertions.lines(words, table) for words, _ in pairs]
    return {
        **(scratch(new_rules) if new_rules else {"name": name, "set": None}),
        "user": name,
        "pairs": pairs,
        "spans": spans,
        "lines": [line for span in spans for line in span],
    }


def scratch(user):
    """A disabled user without a password and with the same rules, for ACL DRYRUN."""
    name = acl_users.SCRATCH_PREFIX + secrets.token_hex(8)
    return {"name": name, "set": ["reset", "off", *acl_rules.user_rules(user)]}


def dry_runs(session, subjects):
    """
    For each subject the reasons why its lines are denied, "" where one is allowed.

    A scratch user is made and removed within one transaction: no other client ever sees it, no file can hold it.
    """
    if not subjects:
        return []
    commands = []
    for subject in subjects:
        if subject["set"]:
            commands.append(["ACL", "SETUSER", subject["name"], *subject["set"]])
        commands += [["ACL", "DRYRUN", subject["name"], *line["words"]] for line in subject["lines"]]
        if subject["set"]:
            commands.append(["ACL", "DELUSER", subject["name"]])
    answers = iter(sessions.transaction(session, commands))
    return [_subject_denials(subject, answers) for subject in subjects]


def _subject_denials(subject, answers):
    refused = next(answers) if subject["set"] else None
    denied = [next(answers) for _ in subject["lines"]]
    if subject["set"]:
        next(answers)
    replies.check(refused, f"The server does not take the rules of {subject['user']}")
    return [acl_assertions.denial(line, reply) for line, reply in zip(subject["lines"], denied)]


def _unknown_names(session, new_rules):
    return [
        f"The server does not take the rules of {name}: it knows no {unknown}."
        for name, user in new_rules.items()
        for unknown in acl_commands.unknown(user, acl_reading.command_table(session))
    ]
