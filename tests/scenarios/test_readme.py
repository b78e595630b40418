"""Every command that the README shows is run, in its order, on one deployed host."""

import re

import pytest

from tests.host.cache import REPO
from tests.scenarios.conftest import PASSWORDS

BLOCKS = re.findall(r"^```bash\n(.*?)^```", (REPO / "README.md").read_text(encoding="utf8"), re.M | re.S)
# What other tests run, by name, and what wants a terminal that stays.
ELSEWHERE = {
    "bin/demo": "CI and every developer",
    "bin/deploy": "test_deploy.py",
    "salt 'photos' state.apply immich test=True": "test_master.py",
    "salt 'photos' state.apply immich": "test_master.py",
}
ENDLESS = re.compile(r"^(journalctl .* -f|podman compose logs -f)")


def commands():
    for block in BLOCKS:
        for line in block.splitlines():
            command = line.split("  #")[0].strip()
            if command and command not in ELSEWHERE:
                yield command


def as_run(command):
    """The command as a script: one that never ends is cut off, a password that is asked for comes from a file."""
    if ENDLESS.match(command):
        return f"timeout 3 {command}; test $? = 124"
    if "--askpass" in command:
        user = "immich" if "--user immich" in command else "default"
        # valkey-cli asks a terminal; REDISCLI_AUTH is its way for scripts.
        secret = f'REDISCLI_AUTH="$(cat /run/test/{user}; printf x)"; export REDISCLI_AUTH="${{REDISCLI_AUTH%x}}"'
        return f"{secret}; {command.replace('--askpass', '')}"
    # What a person fills in: a backup that is there, and the minion's id.
    backup = '"$(cd /var/backups/immich; ls -t *.dump | head -n 1)"'
    return re.sub(r"immich_\w+\.\d\.\d\.dump", backup, command).replace("confirm=…", "confirm=host")


@pytest.fixture(scope="module")
def reader(deployed_host):
    for user, password in (("immich", PASSWORDS["valkey"]), ("default", PASSWORDS["admin"])):
        deployed_host.write(f"/run/test/{user}", password, mode="0600")
    return {"host": deployed_host, "directory": "/root"}


@pytest.mark.parametrize("command", commands())
def test_command(reader, command):
    if command.startswith("cd "):
        reader["directory"] = command[3:]
        return
    done = reader["host"].run(f"cd {reader['directory']} && {as_run(command)}", check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOPERM" not in done.stdout
    assert "NOAUTH" not in done.stdout
