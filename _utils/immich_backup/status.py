"""
What the program that makes backups has said of its last run
============================================================
"""

import json
import os

PATH = "/run/immich-backup/status.json"


def last():
    """What the last run since the boot has said of itself; empty if there was none."""
    try:
        with open(os.open(PATH, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}
