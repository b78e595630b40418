"""
The lock that keeps two of backup, restore, update and removal from running at once
====================================================================================

A file that its holder has locked with flock(2), so that the kernel takes the lock away when the holder dies. What
stands in it says who that is. Needs nothing but Python: the programs on the host use this file too.
"""

import contextlib
import fcntl
import json
import os
import threading
import time

PATH = "/run/immich-formula/lock"
# Where a run of Salt keeps the lock that its states share.
OF_RUN = "immich_io.lock"
# Seconds. A process that only looks who holds the lock, see `under_way`, holds it for an instant itself.
MOMENT = 0.2
# A holder writes who it is right after it has taken the lock; this long it may take, in seconds.
PATIENCE = 5


@contextlib.contextmanager
def held(what, lend=False, borrow=False, path=PATH):
    """
    Hold the lock for a ``with`` block. A process that holds it already goes on holding it.

    what
        What it is held for, in one word, as a process that is refused reports it: ``backup``, ``restore``, ``update``.
    lend
        Whether a program that this process starts may inherit the lock meanwhile. Defaults to ``False``.
    borrow
        Whether to inherit the lock of a holder that allows it. When that one ends first, the lock is taken over.
        Defaults to ``False``.
    path
        The file. Defaults to the one that all of the formula use.

    The block is given what it works for in the end: ``what``, or what the holder whose lock it inherits holds it for.

    Raises ``BlockingIOError`` with a sentence that says who holds it, and ``OSError`` if the file cannot be opened.

    .. code-block:: python

        with lock.held("restore"):
            ...
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+", encoding="utf-8") as file:
        own = {"what": what, "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "pid": os.getpid()}
        holder = None
        if not _locked(file, MOMENT):
            holder = _holder(file)
            if holder.get("pid") != os.getpid() and not (borrow and holder.get("lent")):
                raise BlockingIOError(sentence(holder))
        if holder and holder["pid"] != os.getpid():
            threading.Thread(target=_take_over, args=(path, own), daemon=True).start()
            yield holder["what"]
            return
        _write(file, {**(holder or own), "lent": lend})
        try:
            yield (holder or own)["what"]
        finally:
            _write(file, holder or {})


def take(run, what, path=PATH):
    """
    Hold the lock until :py:func:`release` or the end of a run of Salt, whose states share it.

    run
        The ``__context__`` of the run, which keeps what holds the lock.
    what, path
        As for :py:func:`held`.

    Raises ``BlockingIOError`` and ``OSError`` as :py:func:`held` does.

    .. code-block:: python

        lock.take(__context__, "removal")
    """
    if OF_RUN not in run:
        block = contextlib.ExitStack()
        block.enter_context(held(what, path=path))
        run[OF_RUN] = block


def release(run):
    """
    End what :py:func:`take` began, if it has.

    run
        The ``__context__`` of the run.

    .. code-block:: python

        lock.release(__context__)
    """
    if OF_RUN in run:
        run.pop(OF_RUN).close()


def under_way(path=PATH):
    """
    Return who else holds the lock, ``{"what": …, "since": ISO 8601 in UTC, "pid": …}``, or ``None``.

    path
        The file. Defaults to the one that all of the formula use.

    .. code-block:: python

        if lock.under_way():
            ...
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(descriptor, encoding="utf-8") as file:
        if _locked(file):  # let go again with the file
            return None
        holder = _holder(file)
    return holder if holder.get("pid") != os.getpid() else None


def restore_under_way(path=PATH):
    """
    Return a sentence that says which restore is at work on this host, or None.

    An Immich that is started meanwhile writes into a database that is about to be replaced.

    path
        As for :py:func:`under_way`.

    .. code-block:: python

        if lock.restore_under_way():
            ...
    """
    holder = under_way(path)
    return sentence(holder) if holder and holder["what"] == "restore" else None


def _locked(file, patience=0.0):
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
        else:
            return True
        time.sleep(0.01)


def _take_over(path, own):
    """Wait in the background until the lender lets go. The lock is then held until this process ends."""
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(own).encode(), 0)


def _holder(file):
    """Who holds the lock. What a holder that was killed has left is not believed."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        file.seek(0)
        try:
            holder = json.loads(file.read())
            os.kill(holder["pid"], 0)
        except PermissionError:
            return holder  # somebody else's process, and alive
        except (ValueError, KeyError, TypeError, ProcessLookupError):
            time.sleep(0.05)
        else:
            return holder
    return {}


def sentence(holder):
    """
    Return the sentence for a person about a holder of the lock.

    holder
        What :py:func:`under_way` returns.
    """
    if not holder:
        return "Another backup, restore, update or removal is under way. Try again when it has ended."
    return (
        f"{holder['what'].capitalize()} under way since {holder['since']} (process {holder['pid']}). Try again when it "
        "has ended."
    )


def _write(file, record):
    file.seek(0)
    file.truncate()
    file.write(json.dumps(record) if record else "")
    file.flush()
