"""Deploy Immich on this machine: find or install Salt, write a pillar if there is none, show the plan, ask, apply."""

import argparse
import os
import socket
import sys
import time
from pathlib import Path

from installer import NOTHING_DONE, DeployError, downloads, formula, plan, salt
from installer.run import InterruptedRunError, Runner
from installer.screen import Screen

TOP = Path(__file__).resolve().parents[2]
IN_FULL = Path("/var/log/immich-formula-plan.txt")
EPILOG = f"""\
Before the question only Salt and the formula's libraries are installed, into {salt.VENV} where the
machine has no Salt, and passwords are generated, into {salt.PILLAR}.
Afterwards `salt-call` uses the formula; the clone is not needed any more.
"""
AGAIN = "Then type bin/deploy again: it continues from there."


def main():
    parser = argparse.ArgumentParser(
        prog="bin/deploy", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--plan", action="store_true", help="stop after the plan")
    parser.add_argument("--verbose", action="store_true", help="every state of plan and run, and Salt's own messages")
    parser.add_argument("--no-next-steps", action="store_true", help="do not end with what is next")
    arguments = parser.parse_args()
    if os.geteuid():
        parser.exit(1, "bin/deploy installs packages and services: run it as root\n")
    screen = Screen()
    try:
        return deploy(screen, arguments)
    except DeployError as stop:
        screen.say()
        screen.paragraph(str(stop))
        return 1
    except (InterruptedRunError, KeyboardInterrupt) as stop:
        screen.say(f"\n{str(stop) or 'Stopped.'}\n{AGAIN}")
        return 130


def deploy(screen, arguments):
    used = salt.find()
    if not used.installed:
        salt.install(screen)
    release = formula.install(TOP) if used.pillar else None
    if prepare(used):
        screen.say(f"          Settings, with generated passwords: {salt.PILLAR}")
    runner = Runner(used, screen, arguments.verbose)
    refuse(plan.failures(runner.apply("immich.bootstrap", formula=release)))
    with screen.step("Checking what is installed"):
        states = runner.plan("immich", formula=release)
        refuse(plan.failures(states))
        overview = runner.data("immich.overview", formula=release)
    if plan.nothing_to_do(states):
        settle(used, release)
        return nothing_to_do(screen, used, states, overview, arguments)
    found = look_at_downloads(screen, states)
    show(screen, states, overview, found, arguments.verbose)
    if arguments.plan:
        return 0
    if not arguments.yes and not agreed(screen):
        screen.say(NOTHING_DONE)
        return 0
    former = settle(used, release, keep=True)
    apply(screen, runner, states, found, overview, arguments, former)
    if release:
        formula.forget_others()
    return 0


def prepare(used):
    """Write what Salt needs before it can plan; return whether the pillar is a new one."""
    if used.kind == "own":
        salt.write_own_configuration()
    return used.pillar is not None and salt.write_pillar()


def refuse(failures):
    if failures:
        raise DeployError("\n".join(failures))


def settle(used, release, keep=False):
    """Make formula and salt-call the ones that are used from now on. Return the formula before, or None."""
    former = formula.use(release) if release else None
    salt.on_the_path(used)
    if release and not keep:
        formula.forget_others()
    return former


def nothing_to_do(screen, used, states, overview, arguments):
    screen.say(f"Nothing to do: Immich {overview['version']} is as {used.pillar or 'the pillar'} has it.")
    end(screen, states, overview, arguments)
    return 0


def look_at_downloads(screen, states):
    """How much is to be downloaded, and DeployError where it cannot be had."""
    names, images = plan.packages_to_install(states), plan.images_to_download(states)
    if not names and not images:
        return {"packages": [], "images": {}}
    with screen.step("Checking what has to be downloaded"):
        if names:
            downloads.refresh()
        found = {"packages": downloads.packages(names), "images": downloads.images(images)}
        downloads.have_mirrors(found["packages"])
    return found


def show(screen, states, overview, found, verbose):
    """Show the plan, and write it in full to a file."""
    text = plan.in_full(states)
    descriptor = os.open(IN_FULL, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf8") as file:
        file.write(text)
    if verbose:
        screen.say(text)
    screen.say(f"\nThe plan for {socket.gethostname()}, Immich {overview['version']}:\n")
    screen.table(plan.rows(states, overview, found))
    changes = sum(bool(state["changes"]) for state in states)
    screen.say(f"\n{changes} change{'' if changes == 1 else 's'}, in full in {IN_FULL}")
    for warning in plan.warnings(states):
        screen.paragraph(f"Warning: {warning}")


def agreed(screen):
    try:
        return input("Apply it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        screen.say()
        return False


def apply(screen, runner, states, found, overview, arguments, former):
    """Bring the machine to what the plan says. Raises DeployError with what failed."""
    begin = time.monotonic()
    progress = downloads.apt_progress(
        sum(size for address, size in found["packages"] if not address.startswith("file:"))
    )
    screen.say()
    done = runner.apply("immich", titles=plan.titles(states), packages=progress)
    if arguments.verbose:
        screen.say(plan.in_full(done))
    failures = plan.failures(done)
    changed = sum(bool(state["changes"]) for state in done)
    if failures:
        kept = f"\nThe former formula is kept: {former}" if former else ""
        refuse([*failures, f"{changed} changes were made before. {AGAIN}{kept}"])
    screen.say(f"\nImmich {overview['version']} serves: {changed} changes in {time.monotonic() - begin:.0f} s.")
    end(screen, done, overview, arguments)


def end(screen, states, overview, arguments):
    """Where Immich is, and what is next."""
    for warning in plan.warnings(states):
        screen.paragraph(f"Warning: {warning}")
    if not arguments.no_next_steps:
        screen.say()
        screen.table(plan.next_steps(overview))


if __name__ == "__main__":
    sys.exit(main())
