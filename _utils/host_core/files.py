"""
Files of this host
==================
"""

from pathlib import Path


def text(path):
    """
    Return what a file holds; nothing where it is not there or cannot be read.

    path
        Its path.
    """
    try:
        return Path(path).read_text(encoding="utf8", errors="replace")
    except OSError:
        return ""
