"""
`salt-call` without its start: a program for a test host's Salt, which imports Salt once and forks for each call.

Half a second of a core and more of each `salt-call` goes into importing Salt, a fifth of a second into importing the
formula's libraries, and a third of what is left into grains, which take some twenty processes. So these calls have
`grains_cache`, for five minutes. Nothing else is shared by them: each reads its configuration and the formula's modules
itself. A library that comes or goes ends this program: see ``Host._salt_calls``.

Its arguments are the number of a socket that it has inherited, and salt-call's path. A message on the socket is the
arguments of a call, with three files: its standard output, its standard error, and a pipe to which its exit code is
written. Nothing is written if it was killed.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import time

# What each call imports, and most of what a `state.apply` does: Salt, the libraries that it itself requires, and those
# of the formula, where they are installed already.
MODULES = (
    "_strptime",
    "filecmp",
    "jinja2.ext",
    "jsonschema",
    "psycopg2",
    "redis",
    "salt.cli.caller",
    "salt.client.ssh.client",
    "salt.client.ssh.wrapper",
    "salt.fileserver",
    "salt.modules.file",
    "salt.modules.network",
    "salt.output.nested",
    "salt.runners.state",
    "salt.scripts",
    "salt.state",
    "salt.template",
    "salt.utils.cloud",
    "salt.utils.gitfs",
    "salt.utils.jinja",
    "salt.utils.pkg.deb",
    "salt.utils.tarfileutil",
    "xxhash",
)
# Below the default `cachedir`, as salt.loader has it. Another Salt has other grains.
GRAINS = "/var/cache/salt/minion/grains.cache.p"
# The title of a process has the room that its arguments and environment had.
ROOM = "ROOM_FOR_A_TITLE"


def read_time_zone():
    """The C library reads /etc/localtime again only when TZ was another one in between."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    del os.environ["TZ"]
    time.tzset()


def be_called(title):
    """Have this title among the processes."""
    with contextlib.suppress(ImportError):
        importlib.import_module("setproctitle").setproctitle(title)


def call(program, arguments, output, errors):
    """Become this call, in a process of its own, whose title is the command line that it would have."""
    with open(os.devnull, encoding="ascii") as nothing:
        os.dup2(nothing.fileno(), 0)
    for inner, file in ((1, output), (2, errors)):
        os.dup2(file, inner)
        os.close(file)
    os.environ.pop(ROOM, None)
    read_time_zone()
    be_called(" ".join([sys.executable, program, *arguments]))
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


def watch(program, arguments, output, errors, result):
    """Have a call made, and write its exit code."""
    process = os.fork()
    if not process:
        os.close(result)
        call(program, arguments, output, errors)
        sys.exit(0)
    status = os.waitpid(process, 0)[1]
    if os.WIFEXITED(status):
        os.write(result, b"%d" % os.WEXITSTATUS(status))
    os._exit(0)


def main():
    calls, program = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    config = importlib.import_module("salt.config")
    defaults = {**config.DEFAULT_MINION_OPTS.copy(), "grains_cache": True}
    config.DEFAULT_MINION_OPTS = importlib.import_module("salt.utils.immutabletypes").freeze(defaults)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(GRAINS)
    # What Salt (salt/utils/minion.py, _check_cmdline) and tests take for a call has "salt" in its title.
    be_called("waiting-for-calls")
    gc.freeze()
    while True:
        message, files, _, _ = socket.recv_fds(calls, 1 << 20, 3)
        if not message:
            return
        if not os.fork():
            calls.close()
            watch(program, json.loads(message), *files)
        for file in files:
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main()
