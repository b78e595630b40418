"""
The backups in their directory
==============================
"""

import json
import os

from salt.exceptions import CommandExecutionError

from host_core import command
from immich_backup.plan import FILES


def backups(verify):
    """The answer of ``immich.backups``, by the program that makes them."""
    program = FILES["program"]
    if not os.path.exists(program):
        raise CommandExecutionError(f"This host has no {program}: apply immich.backup")
    try:
        return json.loads(command.run([program, "list", *(["--verify"] if verify else [])]))
    except command.CommandError as error:
        raise CommandExecutionError(error.words) from error
