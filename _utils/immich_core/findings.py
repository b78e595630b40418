"""
Findings: what is not as it should be, and the next step
=========================================================

Verification, preflight checks and the doctor return findings: plain data, so that no sentence has to be parsed. Only
this file puts them into words. Needs nothing but Python.

A finding has a ``code`` (a short stable word, as ``valkey-acl-denied``), its ``part`` (a row's name in the doctor's
table), a ``path`` (pillar path, file or unit, or empty), ``seen``, ``remedy`` (a command, a pillar line or a sentence,
or empty) and a ``severity``.
"""

import collections

# A note is for the doctor's table alone: nothing is wrong.
ERROR, WARNING, NOTE = "error", "warning", "note"
# Of those whose words quote an error, which may be another one the next time.
QUOTING = ("machine-learning-silent", "not-verified", "server-silent")
# How the doctor's table names a severity.
RESULTS = {ERROR: "failed", WARNING: "warning", NOTE: "ok"}


def finding(code, part, seen, remedy="", path="", severity=ERROR):
    """
    Return a finding.

    code, part, seen, remedy, path, severity
        As above. Without a full stop: the sentence has its own.

    .. code-block:: python

        findings.finding("valkey-acl-user-absent", "Valkey user", "Valkey has no ACL user immich", APPLY)
    """
    return {"code": code, "part": part, "path": path, "seen": seen, "remedy": remedy, "severity": severity}


def apply(sls="immich"):
    """
    Return the remedy that is an apply.

    sls
        What to apply. Defaults to ``immich``.

    .. code-block:: python

        findings.apply("immich.postgres")
    """
    return f"salt-call state.apply {sls}"


def not_verified(part, error):
    """
    Return the finding that a part could not be asked.

    part
        The part.
    error
        The exception, or what else says why.

    .. code-block:: python

        findings.not_verified("database", error)
    """
    return finding("not-verified", part, str(error))


def new(found, known):
    """
    Return those findings that were not there before.

    Two are the same by code, part, path and what was seen, as often as each of them is there. Of those that quote an
    error what was seen does not count: it may be in other words the next time.

    found, known
        Lists of findings, now and before.

    .. code-block:: python

        findings.new(found, known)
    """
    before = collections.Counter(map(_identity, known))
    kept = []
    for each in found:
        if before[_identity(each)]:
            before[_identity(each)] -= 1
        else:
            kept.append(each)
    return kept


def _identity(found):
    seen_there = None if found["code"] in QUOTING else found["seen"]
    return found["code"], found["part"], found["path"], seen_there


def seen(found):
    """
    Return what was seen with its place, as the doctor's table has it.

    found
        A finding.

    .. code-block:: python

        findings.seen(found)
    """
    return f"{found['path']}: {found['seen']}" if found["path"] else found["seen"]


def sentence(found):
    """
    Return a finding in words, for a line of a state's comment or of a list of errors.

    found
        A finding.

    .. code-block:: python

        findings.sentence(found)
    """
    words = seen(found)
    if not found["remedy"]:
        return words
    return f"{words.rstrip('.')}. Next step: {found['remedy']}"
