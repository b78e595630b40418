"""Who imports whom below `_utils`: those that decide ask and change nothing, and nobody imports in a circle."""

import ast
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[2] / "_utils"
# Asks or changes the host, or another one.
DOES = {
    "fcntl",
    "grp",
    "http",
    "pwd",
    "select",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "syslog",
    "tempfile",
    "threading",
    "urllib",
}
# What of host_core decides.
DECIDES = {"host_core.pillar", "host_core.terminal", "host_core.unit_file", "host_core.unit_states"}


def imported(path):
    """Names of modules, and of what may be modules, that a file imports, also inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def called(path):
    """Names of the functions that a file calls, as `os.stat` and `open`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


CORE = sorted((UTILS / "immich_core").rglob("*.py"))


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(UTILS)))
def test_the_core_does_no_io(path):
    names = set(imported(path))
    assert sorted(name for name in names if name.partition(".")[0] in {*DOES, "salt", "immich_io", "immich_host"}) == []
    assert sorted(name for name in names if name.startswith("host_core.") and name not in DECIDES) == []
    os_calls = {name for name in called(path) if name.startswith("os.") and not name.startswith("os.path.")}
    asks = {"open", "os.path.exists", "os.path.isdir", "os.path.isfile", "os.path.realpath", "Path"}
    asks |= {"time.time", "time.monotonic", "time.sleep"}
    assert sorted(os_calls | (asks & set(called(path)))) == []


@pytest.mark.parametrize("package", ("immich_core", "immich_io", "host_core"))
def test_what_the_programs_on_the_host_import_knows_no_salt(package):
    found = {name for path in (UTILS / package).rglob("*.py") for name in imported(path)}
    assert sorted(name for name in found if name.partition(".")[0] == "salt") == []


def test_nobody_imports_in_a_circle():
    paths = {".".join(path.relative_to(UTILS).with_suffix("").parts): path for path in UTILS.rglob("*.py")}
    needs = {name: set(imported(path)) & set(paths) for name, path in paths.items()}
    while free := {name for name, needed in needs.items() if not needed & set(needs)}:
        needs = {name: needed for name, needed in needs.items() if name not in free}
    assert needs == {}
