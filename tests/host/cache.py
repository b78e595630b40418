"""Where built things are kept, named by a hash of what they are made from."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CACHE = REPO / ".cache"


def say(text):
    """Show one line of progress on standard error."""
    sys.stderr.write(f"[host] {text}\n")  # at once, as others may have something to say
    sys.stderr.flush()


@contextlib.contextmanager
def step(text):
    """Show a long step, and how long it took."""
    say(f"{text} …")
    start = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - start:.0f} s")


def run(*command, **kwargs):
    """Run a command; on failure raise with what it printed."""
    kwargs.setdefault("text", True)
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False, **kwargs)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout


def digest(*ingredients):
    """Hash what a thing is made from: strings, plain data, files, or folders of files."""
    sha = hashlib.sha256()
    for ingredient in ingredients:
        if not isinstance(ingredient, Path):
            sha.update(json.dumps(ingredient, sort_keys=True, default=str).encode())
            continue
        paths = [ingredient] if ingredient.is_file() else sorted(ingredient.rglob("*"))
        for path in paths:
            if path.is_file() and not {"__pycache__", "node_modules"} & set(path.parts):
                sha.update(str(path.relative_to(REPO)).encode() + path.read_bytes())
    return sha.hexdigest()[:16]


def built(kind, ingredients, make):
    """Return the folder of a built thing, making it first if it is not there.

    ``make`` is called with an empty folder, which is renamed only when all of it worked: a crash leaves nothing that
    looks whole. Builders of the same thing wait for each other. Older versions of the same kind are removed.
    """
    name = f"{kind}-{digest(*ingredients)}"
    target = CACHE / name
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f"{kind}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        mounts = Path("/proc/mounts").read_text(encoding="utf8")
        for old in CACHE.glob(f"{kind}-*"):
            if str(old) not in mounts:  # another run may have a host on it
                shutil.rmtree(old, ignore_errors=True)
        unfinished = CACHE / f"{kind}-unfinished-{os.getpid()}"
        unfinished.mkdir()
        with step(f"building {kind}"):
            make(unfinished)
        unfinished.rename(target)
    return target
