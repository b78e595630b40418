"""A copy of the formula in a place of its own, so that the clone it came from can go."""

import hashlib
import os
import shutil
from pathlib import Path

OPT = Path("/opt/immich-formula")
CURRENT = OPT / "formula"
# Besides what FORMULA lists, which is what Salt needs: what a person needs to go on from there.
MORE = ("CHANGELOG.md", "bin/deploy", "docs", "bin/installer")


def copied(top):
    """Paths of what is copied, files and folders, below the formula's top folder."""
    listed = (top / "FORMULA").read_text(encoding="utf8").partition("\nfiles:\n")[2].splitlines()
    return [line[4:].strip() for line in listed if line.startswith("  - ")] + list(MORE)


def release(top):
    """The folder in which a copy of this formula has its place: named by version and content."""
    top = top.resolve()
    if top.parent == OPT / "releases":
        return top
    version = next(
        line.partition(":")[2].strip()
        for line in (top / "FORMULA").read_text(encoding="utf8").splitlines()
        if line.startswith("version:")
    )
    digest = hashlib.sha256()
    for path in _files(top):
        digest.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes() + b"\0")
    return OPT / "releases" / f"{version}-{digest.hexdigest()[:12]}"


def _files(top):
    for name in sorted(copied(top)):
        path = top / name
        found = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        yield from (each for each in found if "__pycache__" not in each.parts)


def install(top):
    """Copy the formula to its release's folder, whole or not at all; return that. Nothing uses it yet."""
    target = release(top)
    if target.exists():
        return target
    unfinished = target.with_name(f".{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for path in _files(top.resolve()):
        copy = unfinished / path.relative_to(top.resolve())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
    unfinished.rename(target)
    return target


def use(target):
    """Make a release the current one, at once; return the one before, or None."""
    before = CURRENT.resolve() if CURRENT.exists() else None
    fresh = CURRENT.with_name(".formula")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(CURRENT)
    return before if before != target else None


def forget_others():
    """Remove the releases that are not the current one."""
    for path in (OPT / "releases").iterdir():
        if path != CURRENT.resolve():
            shutil.rmtree(path)
