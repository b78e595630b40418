"""
Problems of a pillar: a path and a message for each
====================================================

A path is a tuple of keys and indexes below the pillar key ``immich``.
"""

import difflib

from immich_core import findings

PILLAR_KEY = "immich"
# Code and remedy of the finding of a problem, by its severity.
_FOUND = {
    findings.ERROR: ("setting-wrong", "fix {} in the pillar"),
    findings.WARNING: ("setting-doubtful", "see {} in the pillar"),
}


def path_text(path):
    """A path as Salt writes it. Keys come from the pillar, so they may be anything."""
    return ":".join(str(part)[:60] if str(part).isprintable() else ascii(part)[:60] for part in path)


def is_below(path, others):
    """Whether a path is one of others, or below one."""
    return any(path[:length] in others for length in range(1, len(path) + 1))


def report(problems, severity=findings.ERROR):
    """Each problem once, as a finding, in the order of their paths."""
    code, remedy = _FOUND[severity]
    unique = dict.fromkeys((path_text((PILLAR_KEY, *path)), message) for path, message in problems)
    return [
        findings.finding(code, "pillar", message, remedy.format(path), path, severity)
        for path, message in sorted(unique)
    ]


def likely(word, known, prefix=": "):
    """The known word that was probably meant, as the end of a sentence."""
    close = difflib.get_close_matches(word[:100], known, n=1) if isinstance(word, str) else []
    if close:
        return f"{prefix}did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if prefix == ": " else ""
