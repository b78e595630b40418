"""
What of the isolation of networks each Podman has
=================================================

``version`` is the answer of ``podman --version``, such as ``5.4.2``.
"""

import re


def default(version):
    """
    Return what ``isolate`` is of a bridge network that was created without it: ``false``, or ``strict``.

    The bridges of Netavark 2 are isolated strictly, and Podman 6 is the first that requires it:
    https://github.com/podman-container-tools/podman/pull/28524.
    """
    return "strict" if _release(version) >= (6,) else "false"


def has_strict(version):
    """Return whether ``isolate`` can be ``strict``: https://github.com/containers/common/pull/1513."""
    return _release(version) >= (4, 6)


def _release(version):
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
