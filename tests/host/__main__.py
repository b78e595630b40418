"""Command line of the test hosts: `python3 -m tests.host COMMAND`, as root, in the repository."""

import argparse
import functools
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.host import images, tools
from tests.host.lan import sweep
from tests.host.machine import Host
from tests.host.registry import stored
from tests.standin import images as standin

MAKERS = (standin.context, images.ready, stored)
# What the long suites alone boot.
LONG_MAKERS = (
    functools.partial(images.ready, "bookworm"),
    images.with_other_salt,
    images.with_gitfs,
    images.reader_packages,
    images.watcher_packages,
)

IN_HOST = "cd /srv/formula && /opt/salt/bin/python -m pytest -o cache_dir=/tmp/pytest -o log_level=WARNING"


NOTES = """Salt 3008 masks: inside modules and states, __salt__["pillar.get"] returns asterisks. Read secrets from the
__pillar__ dunder (salt.utils.data.traverse_dict_and_list(__pillar__, path, default, delimiter=":"))."""


def _host(arguments):
    layers = images.bare if arguments.bare else images.ready
    return Host("host", suite=arguments.suite, layers=layers(arguments.suite))


def build(arguments):
    """Build what hosts are made from, the stand-in images too. Side by side: each waits, or keeps one core busy."""
    makers = LONG_MAKERS if arguments.long else MAKERS
    with ThreadPoolExecutor(len(makers)) as pool:  # who needs what another makes waits for it: see `cache.built`
        for made in [pool.submit(make) for make in makers]:
            made.result()
    return 0


def install(_):
    """Install what this machine lacks to boot hosts and to lint; say so where it cannot boot any."""
    why_not = tools.obstacle()
    if why_not:
        sys.exit(f"no test host can be booted here: {why_not}")
    tools.install({"shellcheck": "shellcheck", "git": "git"})
    return 0


def run(arguments):
    """Boot a disposable host, run a shell script on it, throw the host away."""
    with _host(arguments) as host:
        return host.stream(" ".join(arguments.rest) or "exec bash -i")


def pytest(arguments):
    """Boot a disposable host and run pytest on it, with the given arguments (paths from the repository's top)."""
    with _host(arguments) as host:
        rest = " ".join("'" + part.replace("'", "'\\''") + "'" for part in arguments.rest)
        return host.stream(f"export PYTHONDONTWRITEBYTECODE=1 CI=true; {IN_HOST} {rest}")


def clean(_):
    """Remove what killed runs left behind."""
    sweep()
    return 0


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.host", description=__doc__, epilog=NOTES)
    commands = parser.add_subparsers(required=True)
    for function in (install, build, run, pytest, clean):
        command = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        command.set_defaults(function=function)
        if function is build:
            command.add_argument("--long", action="store_true", help="what the long suites alone boot instead")
        if function in (run, pytest):
            command.add_argument("--bare", action="store_true", help="only systemd, Python and Salt")
            command.add_argument(
                "--suite",
                choices=images.SUITES,
                default=images.SUITE,
                help="Debian release of the host, built when it is first asked for (default: %(default)s)",
            )
    arguments, rest = parser.parse_known_args()
    arguments.rest = rest
    return arguments.function(arguments)


sys.exit(main())
