"""Who imports whom below `_utils`: never in a circle, not even one that an import inside a function closes."""

import ast
from pathlib import Path

UTILS = Path(__file__).resolve().parents[2] / "_utils"


def imported(path):
    """Names of modules, and of what may be modules, that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def test_nobody_imports_in_a_circle():
    paths = {".".join(path.relative_to(UTILS).with_suffix("").parts): path for path in UTILS.rglob("*.py")}
    needs = {name: set(imported(path)) & set(paths) for name, path in paths.items()}
    while free := {name for name, needed in needs.items() if not needed & set(needs)}:
        needs = {name: needed for name, needed in needs.items() if name not in free}
    assert needs == {}
