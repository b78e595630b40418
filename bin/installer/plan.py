"""What a plan comes to, in a few lines for a person. Pure: data in, rows and text out."""

import os.path
from urllib.parse import urlsplit

from host_core import terminal
from installer.downloads import size

# More than so many are counted.
LISTED = 8
# What the images of Immich came to when they were last seen, where their registry does not say.
ROUGHLY = "about 1 GB"
# The services of a host, as the formula and a person call them.
SERVICES = {"postgres": "PostgreSQL", "valkey": "Valkey"}
# The states that a row is about.
STOPPED = ("immich_app.stopped_for_changes",)
STARTED = ("systemd_unit.running", "immich_backup.scheduled", "immich_app.running")
GATEWAY = ("immich_gateway.active",)
FOLDERS = ("file.directory", "immich_folder.present", "immich_backup.directory_present")
USERS = ("immich_system_user.present",)
FILES = ("file.managed", "file.recurse", "immich_app.compose_file_managed")
IN_POSTGRES = {
    "immich_postgres.server_configured": "settings",
    "pgsql_role.present": "role {name}",
    "pgsql_database.present": "database {name}",
    "immich_postgres.extensions_present": "its extensions",
    "pgsql_hba.present": "a line of pg_hba.conf",
}
IN_VALKEY = {
    "valkey_config.managed": "settings",
    "valkey_config.in_file": "its port",
    "immich_valkey.memory_bounded": "a limit of its memory",
}
VALKEY_USERS = ("immich_valkey.users_managed", "immich_valkey.login_present")
NETWORKS = ("podman_network.present", "immich_identity.network_present")
PACKAGES, IMAGES = ("pkg.installed",), ("immich_app.images_present",)
# What follows from the others, and is worth no line: systemd has read a unit, and starts it at boot.
UNSAID = ("systemd_unit.loaded", "systemd_unit.enabled")
SHOWN = {
    *STOPPED, *STARTED, *GATEWAY, *FOLDERS, *USERS, *FILES, *IN_POSTGRES, *IN_VALKEY, *VALKEY_USERS, *NETWORKS,
    *PACKAGES, *IMAGES, *UNSAID,
}  # fmt: skip


def nothing_to_do(states):
    """Whether a run would neither change nor mend anything."""
    return not any(state["changes"] or state["result"] is not True for state in states)


def failures(states):
    """Comments of the states that failed themselves; not of those that wait for them."""
    return [state["comment"] for state in states if state["result"] is False and not _waits(state)]


def _waits(state):
    """Whether a state failed because another one did: Salt has not run it, or it ran others that failed."""
    return state.get("__state_ran__") is False or state["function"] == "immich.applied"


def warnings(states):
    """Warnings of all states, each once."""
    return list(dict.fromkeys(text for state in states for text in state.get("warnings", [])))


def packages_to_install(states):
    """Names of the packages that would be installed."""
    return _names(states, *PACKAGES)


def images_to_download(states):
    """References of the images that would be pulled."""
    return _names(states, *IMAGES)


def titles(states):
    """Names of states by function and name, as Salt's log has them."""
    return {(state["function"], state["name"]): state["id"] for state in states}


def _names(states, *functions):
    changed = [state["changes"] for state in states if state["function"] in functions]
    return list(dict.fromkeys(name for changes in changed for name in changes))


def rows(states, overview, downloads):
    """
    The summary: pairs of a label and its sentences.

    states
        What ``state.apply immich test=True`` returns, in order.
    overview
        What ``immich.overview`` returns.
    downloads
        ``{"packages": [(address, bytes)], "images": {reference: bytes or None}}``.
    """
    found = [
        ("Packages", _packages(states, downloads["packages"])),
        ("Download", _downloads(downloads)),
        ("Stops", _stops(states)),
        ("Restarts", _restarts(states)),
        ("Starts", _starts(states)),
        ("Ports", _ports(states, overview)),
        ("Users", _users(states)),
        ("Folders", _folders(states, overview)),
        ("Files", _files(states)),
        ("PostgreSQL", _database(states)),
        ("Valkey", _valkey(states)),
        ("Network", _network(states, overview)),
        ("Also", _others(states)),
        ("Kept", _kept(states, overview)),
    ]
    return [(label, sentences) for label, sentences in found if sentences]


def _changed(states, *functions):
    return [state for state in states if state["function"] in functions and state["changes"]]


def _packages(states, apt):
    names = packages_to_install(states)
    if not names:
        return []
    more = len(apt) - len(names)
    return [_some(names, 12) + (f", and {more} that they need" if more > 0 else "")]


def _downloads(downloads):
    found = []
    if downloads["packages"]:
        hosts = dict.fromkeys(urlsplit(address).hostname or "a disk" for address, _ in downloads["packages"])
        total = sum(each for _, each in downloads["packages"])
        found.append(f"{size(total)} of packages from {_some(list(hosts))}")
    images = downloads["images"]
    if images:
        known = all(each is not None for each in images.values())
        total = size(sum(images.values())) if known else f"{ROUGHLY} (their registry does not say)"
        found.append(f"{total} of images: {_some(list(images))}")
    return found


def _stops(states):
    stopped = _changed(states, *STOPPED)
    return [f"{name}, {change['new']}" for state in stopped for name, change in state["changes"].items()]


def _restarts(states):
    found = [
        f"{service}, to apply {_some(list(why))}"
        for state in states
        for service, why in state.get("restarts", {}).items()
    ]
    for state in _changed(states, "immich_app.running"):
        found += [f"{name} ({state['changes'][name]['new']})" for name in state.get("recreated", ())]
    return found


def _starts(states):
    units = [
        state["name"]
        for state in _changed(states, *STARTED)
        if {"active", "service", "timer"} & state["changes"].keys()
    ]
    units += ["immich-gateway.service" for _ in _changed(states, *GATEWAY)[:1]]
    return [_some([unit.replace(".service", "") for unit in dict.fromkeys(units)])] if units else []


def _ports(states, overview):
    if not _changed(states, "immich_app.compose_file_managed", *GATEWAY):
        return []
    gateway = overview["gateway"]
    if overview["local_only"]:
        found = [f"{overview['port']} for this machine only: {overview['urls'][0]}"]
    else:
        found = [f"{overview['port']} for everybody who can reach this machine: {' '.join(overview['urls'])}"]
    ports = [f"{port} ({SERVICES[part]})" for part, port in gateway["ports"].items()]
    if ports:
        found.append(f"{' and '.join(ports)} at {gateway['address']}, for Immich's containers only")
    return found


def _folders(states, overview):
    purposes = {path: what for what, path in overview.get("folders", {}).items()}
    made = _changed(states, *FOLDERS)
    named = [f"{state['name']} ({purposes[state['name']]})" for state in made if state["name"] in purposes]
    return [_some(named)] if named else []


def _users(states):
    names = _names(states, *USERS)
    return [f"{_some(names)}, for Immich's containers"] if names else []


def _files(states):
    names = [state["name"] for state in _changed(states, *FILES)]
    if not names:
        return []
    if len(names) <= 3:
        return [_some(names)]
    above = {"/".join(os.path.dirname(name).split("/")[:3]) for name in names}
    return [f"{len(names)} written or changed, in {_some(sorted(above))}"]


def _database(states):
    changed = _changed(states, *IN_POSTGRES)
    found = [IN_POSTGRES[state["function"]].format(name=state["name"]) for state in changed]
    return [", ".join(found)] if found else []


def _valkey(states):
    found = [IN_VALKEY[state["function"]] for state in _changed(states, *IN_VALKEY)]
    users = _names(states, *VALKEY_USERS)
    users = [name for name in users if not name.startswith("/")]  # the file that a login's password stands in
    found += [f"ACL users {_some(users)}"] if users else []
    return [", ".join(found)] if found else []


def _network(states, overview):
    own = overview.get("network", {})
    names = _names(states, *NETWORKS)
    return [_some([f"{name}, {own['subnet']}" if name == own.get("name") else name for name in names])] if names else []


def _others(states):
    """What no other row shows, and what is amiss without a change that a plan could name."""
    changed = [state["id"] for state in states if state["changes"] and state["function"] not in SHOWN]
    amiss = [
        line
        for state in states
        if state["result"] is None and not state["changes"] and not state.get("deferred")
        for line in state["comment"].splitlines()
    ]
    found = changed + amiss
    return found if len(found) <= LISTED else [*found[: LISTED - 1], f"and {len(found) - LISTED + 1} more"]


def _kept(states, overview):
    installed, packages = packages_to_install(states), overview.get("packages", {})
    # A service all of whose packages come with this run holds nothing yet.
    new = [part for part, names in packages.items() if set(names) <= set(installed)]
    there = [title for part, title in SERVICES.items() if part not in new]
    made = [state["name"] for state in _changed(states, "immich_folder.present")]
    found = [] if overview.get("folders", {}).get("photos") in made else ["the photos"]
    found += [f"what {title} holds for others" for title in there]
    return [", ".join(["everything: nothing is deleted", *found])]


def _some(items, most=LISTED):
    """A list in words; what is more than `most` is counted."""
    if len(items) <= most:
        return ", ".join(items)
    return f"{', '.join(items[: most - 1])} and {len(items) - most + 1} more"


def next_steps(overview):
    """Where Immich answers and what a person does next: pairs of a label and its sentences."""
    folders, first = overview["folders"], overview["urls"][0]
    where = [" or ".join(overview["urls"])]
    if overview["local_only"]:
        where.append("Other machines cannot reach it. A phone needs a reverse proxy: docs/howto/reverse-proxy.md")
    if overview["backup"]:
        backups = f"the database, each night, into {folders['backups']}: copy it and {folders['photos']} elsewhere too"
    else:
        backups = "none: immich:backup:enabled is false in the pillar"
    return [
        ("Open", where),
        ("Phone", [f"the Immich app (App Store, Google Play, F-Droid), with {first} as its server"]),
        ("Backups", [backups]),
        ("Look", ["salt-call immich.doctor"]),
        ("Change", ["edit the pillar, then salt-call state.apply immich (with test=True for the plan)"]),
    ]


# -- in full ----------------------------------------


def in_full(states):
    """Every state, with its comment and changes, as text."""
    lines = []
    for state in states:
        mark = {True: "ok", None: "would change", False: "FAILED"}[state["result"]]
        lines += [f"{state['id']}", f"    {state['function']}: {mark}"]
        lines += [f"    {line}" for line in str(state["comment"]).strip().splitlines()]
        lines += [f"    warning: {text}" for text in state.get("warnings", [])]
        lines += _nested(state["changes"], 6)
        lines.append("")
    return terminal.plain("\n".join(lines), keep="\n")


def _nested(value, indent):
    before = " " * indent
    if isinstance(value, dict):
        lines = []
        for key, inner in value.items():
            if isinstance(inner, dict) and inner:
                lines += [f"{before}{key}:", *_nested(inner, indent + 2)]
            elif isinstance(inner, str) and "\n" in inner:
                lines += [f"{before}{key}:", *(f"{before}  {line}" for line in inner.splitlines())]
            else:
                lines.append(f"{before}{key}: {inner}")
        return lines
    return [f"{before}{value}"] if value else []
