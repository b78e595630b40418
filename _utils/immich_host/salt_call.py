"""
salt-call for a unit of systemd
================================
"""

import os
import sys


def words(opts, *function):
    """
    Return the command that calls an execution function as this minion would: with its Python and its configuration,
    wherever its packages put their scripts.

    opts
        ``__opts__``.
    function
        Its name, and its arguments.
    """
    found = [sys.executable, "-c", "from salt.scripts import salt_call; salt_call()"]
    found += [f"--config-dir={os.path.dirname(opts['conf_file'])}", "--log-level=warning"]
    found += ["--local"] if opts["file_client"] == "local" else []
    return [*found, *function]
