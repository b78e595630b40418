"""
The entry point of the Salt extension: Salt loads the folders ``modules`` and ``states`` beside this file.

It has no files of its own: ``pyproject.toml`` says which of the formula's go where.
"""

import os
import sys

# Salt puts what is synced from `_utils` on sys.path, but no such folder of an extension. At the end: synced ones win.
sys.path.append(os.path.join(os.path.dirname(__file__), "utils"))
