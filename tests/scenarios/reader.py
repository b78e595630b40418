"""Somebody who does what the README and docs/ say.

A block of `bash` is typed line by line. A block of `yaml` that begins with `immich:` becomes the pillar, and must be a
valid one. Any other block that is written becomes the file that the line before it names, as in
"Write `/etc/nginx/conf.d/immich.conf`:".
"""

import re
import shlex

import yaml

from tests.host import images
from tests.host.cache import REPO
from tests.scenarios.conftest import PASSWORDS, PILLAR, merged

# What a reader does with each kind of block; another kind would be one that nobody tests.
LANGUAGES = {
    "bash": "typed",
    "yaml": "written",
    "nginx": "written",
    "": "read",
    "fstab": "read",
    "mermaid": "read",
    "jinja": "read",
}
# Commands of a page that CI, the workflow or other tests run, as test_deploy.py and test_demo.py.
ELSEWHERE = {
    "README.md": ["bin/demo", "bin/test", "bin/deploy"],
    "docs/howto/extension.md": [  # tests/functional/test_extension.py does the same without network
        "pip wheel --no-deps .",
        "salt-pip install './saltext_pgsql_valkey_podman-0.1.0-py3-none-any.whl[pgsql,valkey]'",
    ],
    "CONTRIBUTING.md": [
        "bin/test",
        "bin/test tests/unit/test_valkey_acl.py",
        "bin/test tests/functional/test_valkey_acl.py",
        "bin/test tests/scenarios/test_first_run.py",
        "python3 -m tests.host run",
        "python3 -m tests.host pytest tests/functional/test_valkey_acl.py -k rules",
        "pip install pre-commit",
        "pre-commit install",
        "pre-commit run --all-files",
    ],
}
ENDLESS = re.compile(r"^(journalctl .* -f|podman compose logs -f)")

# What a shell does more with than to split words.
FOR_A_SHELL = re.compile(r"[$`|&;<>*?~\\]")


def blocks(page, section=""):
    """The fenced blocks of a page, or of one section of it: language, text, and the last line of text before each."""
    text = (REPO / page).read_text(encoding="utf8")
    lines = iter(
        text.partition(f"\n## {section}\n")[2].partition("\n## ")[0].splitlines() if section else text.splitlines()
    )
    before = ""
    for line in lines:
        fence = re.match(r"( *)```(\w*)", line)
        if fence:
            inside = [each[len(fence[1]) :] for each in iter(lambda: next(lines), f"{fence[1]}```")]
            yield fence[2], "\n".join(inside) + "\n", before
        elif line.strip():
            before = line


def commands(text):
    for line in text.splitlines():
        command = line.split("  #")[0].strip()
        if command:
            yield command


def as_run(command):
    """The command as a script: one that never ends is cut off, a question is answered, what a person fills in is."""
    if ENDLESS.match(command):
        return f"timeout 3 {command}; test $? = 124"
    if command == "bin/deploy":
        return "echo y | bin/deploy"
    if "--askpass" in command:
        user = "immich" if "--user immich" in command else "default"
        # valkey-cli asks a terminal; REDISCLI_AUTH is its way for scripts.
        secret = f'REDISCLI_AUTH="$(cat /run/test/{user}; printf x)"; export REDISCLI_AUTH="${{REDISCLI_AUTH%x}}"'
        return f"{secret}; {command.replace('--askpass', '')}"
    backup = '"$(cd /var/backups/immich; ls -t *.dump | head -n 1)"'
    command = re.sub(r"immich_\d+T\d+Z_v\d\.\d\.\d_immich\.dump", backup, command)
    return re.sub(r"confirm=\S+", "confirm=host", command)


class Reader:
    """Somebody who does on one host what the pages say.

    The pillars of a page in ``examples`` are for other hosts than this one: they must be valid, and are not applied.
    """

    def __init__(self, host, examples=()):
        self.host = host
        self.examples = examples
        self.pillar = PILLAR
        self.deviates = False  # whether another pillar than that was applied
        self.shell = ["cd /root"]  # what a shell remembers: where it is, and its variables

    def follow(self, page):
        self.shell = ["cd /root"]
        for language, text, before in blocks(page):
            assert language in LANGUAGES, f"{page}: who tests a block of {language}?"
            path = re.findall(r"`(/\S+)`", before) if LANGUAGES[language] == "written" else []
            if LANGUAGES[language] == "typed":
                self.type(page, text)
            elif len(path) == 1 and before.endswith(":"):
                self.host.write(path[0], text)
            elif language == "yaml" and text.startswith("immich:"):
                self.set_pillar(page, yaml.safe_load(text)["immich"])

    def set_pillar(self, page, changes):
        self.pillar = merged(self.pillar, changes)
        self.host.pillar(self.pillar)
        if page == "README.md":
            return  # the host has not seen the formula yet
        errors = self.host.salt("immich_settings.errors")
        assert errors in ([], {}, None), f"{page}: {errors}"
        if page in self.examples:
            self.pillar = PILLAR
            self.host.pillar(PILLAR)

    def type(self, page, text):
        for command in commands(text):
            if command in ELSEWHERE.get(page, ()):
                continue
            if command.startswith("cd ") or re.match(r"\w+=", command):
                self.shell.append(command)
                continue
            if "state.apply" in command and "test=True" not in command:
                self.deviates = self.deviates or self.pillar != PILLAR
            done = self.run(as_run(command))
            assert done.returncode == 0, f"{page}: {command}\n{done.stdout[-6000:]}{done.stderr[-6000:]}"
            assert not re.search("NOPERM|NOAUTH", done.stdout), f"{page}: {command}\n{done.stdout}"

    def run(self, script):
        """What becomes of a script in the reader's shell; of a `salt-call` by a Salt that was imported before."""
        if script.startswith("salt-call ") and not FOR_A_SHELL.search(script):
            return self.host.salt_call(*shlex.split(script)[1:], check=False)
        return self.host.run(" && ".join([*self.shell, script]), check=False, timeout=600)

    def close_the_page(self):
        """Leave the host to the next page as it was before this one."""
        if self.pillar != PILLAR:
            self.pillar = PILLAR
            self.host.pillar(PILLAR)
        if self.deviates:
            self.deviates = False
            self.host.apply()


def shelf(packages=images.reader_packages):
    """Bind arguments of a host whose reader installs packages that the formula does not."""
    return [(packages(), "/srv/reader")]


def stock(host):
    """Let the host's apt have what is on the shelf, and valkey-cli the passwords that a person would type."""
    host.write("/etc/apt/sources.list.d/reader.list", "deb [trusted=yes] file:/srv/reader ./\n")
    host.run("apt-get -qq update")
    for user, password in (("immich", PASSWORDS["valkey"]), ("default", PASSWORDS["admin"])):
        host.write(f"/run/test/{user}", password, mode="0600")
