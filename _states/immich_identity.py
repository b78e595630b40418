"""
The installation on this host and the one that the pillar describes
===================================================================

``compared`` comes first and changes nothing. ``network_replaced`` and ``migrated`` migrate what it accepts while
Immich is stopped, and ``network_present`` creates the new network; ``recorded`` comes last, when Immich serves.
``settings`` is what ``immich_settings.get`` returns.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

from immich_core import container_users, findings, identity, run_facts
from immich_host import identity as on_host
from immich_host import update, valkey_migration
from immich_io import installation, owners

__virtualname__ = "immich_identity"

# Errors that make a state fail.
FAILURES = (CommandExecutionError, SaltInvocationError, OSError, installation.RecordError)


def __virtual__():
    return __virtualname__


def compared(name, settings):
    """
    Make sure that the pillar describes the installation on this host, or one to which it can be migrated.

    Fails with all reasons at once if Immich would start with an empty database or library, or if a part has to be
    migrated in a run that has no state :py:func:`migrated`. An installation without a record gets one, from its unit
    and its compose file.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        The installation is the one on record:
          immich_identity.compared:
            - settings: {{ settings | json }}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The pillar describes the installation of this host"}
    run_facts.begin(__context__)
    try:
        plan = on_host.plan_of_run(__context__, settings, __salt__)
        migrated = {part: change for part, change in plan["changes"].items() if part in identity.MIGRATED}
        refused = _at_once(migrated, settings) if _run_migrates() else _unmigrated(migrated)
        refusals = plan["refusals"] + refused
        if refusals:
            lines = [*map(findings.sentence, refusals), "Nothing was changed"]
            return {**ret, "result": False, "comment": "\n".join(lines)}
        there = on_host.known(settings["project_dir"])
        for part in filter(migrated.get, identity.OWNERS):
            # What keeps the owners from being changed is found while Immich still serves.
            _planned_owner(settings, part, migrated[part]["new"])
        if plan["changes"]:
            ret["comment"] = f"The pillar changes the installation: {_listed(plan['changes'])}"
        if not there:
            run_facts.of(__context__).network_made = not __salt__["podman_network.exists"](settings["network"]["name"])
        if not there or installation.record():
            return ret
        ret["changes"]["record"] = {"old": None, "new": "made from unit and compose file"}
        if __opts__["test"]:
            return {**ret, "result": None}
        _note(**there)
    except FAILURES as error:
        return {**ret, "result": False, "changes": {}, "comment": f"{error}\nNothing was changed"}
    return ret


def _run_migrates():
    """Whether this run migrates: only Salt knows what else is in it, an SLS is rendered before the others are known."""
    return any((low["state"], low["fun"]) == ("immich_identity", "migrated") for low in __lowstate__)


def _note(**parts):
    # What follows in this run can no longer be rolled back to the former compose file.
    if installation.RECORD.exists():
        run_facts.of(__context__).migrated = True
    run_facts.of(__context__).identity_plan = None
    installation.note(**parts)


def _unmigrated(changes):
    return [
        _refusal(
            "needs-whole-apply", identity.PARTS[part], f"{change['old']} becomes {change['new']}", findings.apply()
        )
        for part, change in changes.items()
    ]


def _refusal(code, path, seen, remedy):
    return findings.finding(code, "installation", seen, remedy, path)


def _at_once(changes, settings):
    """An update is rolled back to the former compose file, which would name what is gone by then."""
    planned = update.plan(settings, __salt__) if changes else {}
    if not planned or planned["refusal"]:
        return []
    paths = ", ".join(identity.PARTS[part] for part in changes)
    seen = f"an update from {planned['from']} to {planned['to']} could not be rolled back together with {paths}"
    return [_refusal("update-and-migration", "immich:version", seen, "apply one, then the other")]


def _listed(changes):
    return "; ".join(f"{part} {change['old']} becomes {change['new']}" for part, change in changes.items())


def network_replaced(name, settings):
    """
    Make sure that the network which Immich no longer uses is removed, before the new one uses its subnet.

    It stays if the pillar lists it, something else uses it, or it existed before the formula.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich's former network is absent:
          immich_identity.network_replaced:
            - settings: {{ settings | json }}
    """
    ret = _stepwise(name, {"network": _replace_network}, settings, "The network stays")
    run_facts.of(__context__).replaced_network = ret["changes"].get("network", {}).get("old")
    return ret


def network_present(name, network):
    """
    Make sure that Immich's network is there, as
    :py:func:`podman_network.present <_states.podman_network.present>` does.

    A dry run does not count what earlier states of it would remove: Immich's containers, and its former network.

    name
        Name of the network.

    network
        Its arguments for ``podman_network.present``.

    .. code-block:: yaml

        Podman network immich is present:
          immich_identity.network_present:
            - name: immich
            - network: {name: immich, subnet: 172.20.0.0/16}
    """
    known = run_facts.of(__context__)
    removed = {"removed_containers": known.removed_containers or (), "replaces": known.replaced_network}
    return __states__["podman_network.present"](**{**network, "name": name}, **removed)


def _replace_network(settings, old, new):
    made = not __salt__["podman_network.exists"](new)
    stays = _why_network_stays(settings, old)
    if not stays and __salt__["podman_network.exists"](old):
        __salt__["podman_network.remove"](old)
    _note(network=new, network_made=made)
    return f"The network {old} stays: {stays}" if stays else f"The network {old} was removed"


def _why_network_stays(settings, network):
    """Why a network that Immich no longer uses is not to be removed, or None."""
    if network in [each["name"] for each in settings["podman"]["external_networks"]]:
        return "the pillar lists it"
    if on_host.known(settings["project_dir"]).get("network_made") is False:
        return "it was there before the formula"
    users = on_host.other_users(network, on_host.project_dir(settings), __salt__)
    return f"{', '.join(users)} use it" if users else None


def _move_project(_, old, new):
    left = installation.move_project(old, new)
    _note(project_dir=new)
    stays = f". {old} stays, with {', '.join(left)}" if left else ""
    return f"The compose project was moved from {old} to {new}{stays}"


def migrated(name, settings):
    """
    Make sure that nothing of Immich is left in a former project directory, that its role owns all of its database, that
    queued jobs are in its database of Valkey, and that its containers' users own their files.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        Immich's project, tables and queues are migrated:
          immich_identity.migrated:
            - settings: {{ settings | json }}
    """
    steps = {
        "project_dir": _move_project,
        "role": _reassign,
        "valkey_database": _move_queues,
        **{part: _owner_change(part) for part in identity.OWNERS},
    }
    return _stepwise(name, steps, settings, "Project directory, role, queues and owners stay")


def _owner_change(part):
    return lambda settings, old, new: _change_owner(settings, part, old, new)


def _change_owner(settings, part, old, new):
    """
    Change the owner of what a container writes. The record names both users meanwhile: an interrupted run is completed
    by the next one, whichever of them that one declares.
    """
    folders = _written(settings, part)
    # A first run has no record before its end.
    noted = installation.record()
    if noted:
        _note(**{part: f"{old.partition(',')[0]}, partly {new}"})
    done = sum(owners.change_owner(folder, new) for folder in folders)
    if noted:
        _note(**{part: new})
    return f"{done} files of {', '.join(folders)} changed their owner to {new}"


def _planned_owner(settings, part, new):
    """What that would do, as a sentence."""
    folders = _written(settings, part)
    count = sum(owners.count(folder, new) for folder in folders)
    return f"{count} files of {', '.join(folders)} would change their owner to {new}"


def _written(settings, part):
    return container_users.folders(settings)[identity.OWNERS[part][0]]


def _reassign(settings, old, new):
    postgres = settings["postgres"]
    # Noted before: should this run end early, the next one knows whom to drop. Doing it twice does no harm.
    _note(former_role=old)
    __salt__["pgsql_database.reassign"](postgres["database"], old, new, postgres["connection"])
    _note(role=new)
    return f"Everything of {old} in the database {postgres['database']} belongs to {new}"


def _move_queues(settings, old, new):
    try:
        said = f"{valkey_migration.move_queues(settings, old, new, __salt__)} keys were moved"
    except CommandExecutionError as error:
        # Immich queues its jobs again each night, and serves without them.
        said = f"Its jobs were not moved, and its keys stay in number {old}: {error}"
    _note(valkey_database=new)
    return f"Immich uses Valkey's database {new} instead of {old}. {said}"


def _stepwise(name, steps, settings, nothing):
    """The story of a state that migrates some parts of the installation, each by its step."""
    ret = {"name": name, "changes": {}, "result": True, "comment": nothing}
    try:
        pending = on_host.plan_of_run(__context__, settings, __salt__)["changes"]
        due = {part: pending[part] for part in steps if part in pending}
        if not due:
            return ret
        if __opts__["test"]:
            return {**ret, "changes": due, "result": None, "comment": _would_migrate(due, settings)}
        said = []
        for part, change in due.items():
            said.append(steps[part](settings, change["old"], change["new"]))
            ret["changes"][part] = change
    except FAILURES as error:
        return {**ret, "result": False, "comment": f"{error}\nImmich is stopped. Correct that, then apply again"}
    return {**ret, "comment": ". ".join(said)}


def _would_migrate(due, settings):
    """What a dry run reports, with the number of files that would change their owner."""
    changing = [part for part in identity.OWNERS if part in due]
    sentences = [_planned_owner(settings, part, due[part]["new"]) for part in changing]
    return ". ".join([f"Would be migrated: {_listed(due)}", *sentences])


def recorded(name, settings):
    """
    Make sure that the record of the installation is as the pillar declares, and that former logins are removed.

    Used when Immich serves: then nothing needs its former role, its former user in Valkey, or the record of a former
    database in :file:`pg_hba.conf`. A role that something else needs stays, and the comment says why.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        The installation is recorded:
          immich_identity.recorded:
            - settings: {{ settings | json }}
            - require:
              - Immich is running
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The installation is as recorded"}
    try:
        there = on_host.known(settings["project_dir"])
        noted = installation.record() or {}
        desired = identity.declared(settings)
        own = [part for part in desired if part not in identity.MIGRATED and there.get(part) != desired[part]]
        changed = {part: {"old": there.get(part), "new": desired[part]} for part in own}
        # A dry run on a host that has an installation, and no record, has reported it in `compared`.
        first = not noted and not (__opts__["test"] and there)
        ret["changes"] = {"record": {"old": None, "new": "written"}} if first else dict(changed)
        role = identity.former_role(there, desired)
        stays = role and _why_role_stays(settings, role)
        if role and not stays:
            ret["changes"]["former role"] = {"old": role, "new": None}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": _would(ret["changes"])} if ret["changes"] else ret
        _remove_former(settings, changed, None if stays else role)
        if ret["changes"] or role or any(noted.get(part) != value for part, value in desired.items()):
            made = {"network_made": run_facts.of(__context__).take("network_made")} if first else {}
            _note(**desired, **made, former_role=None)
    except FAILURES as error:
        return {
            **ret,
            "changes": {},
            "result": False,
            "comment": f"{error}\nImmich serves. Correct that, then apply again",
        }
    comment = "The installation was recorded" if ret["changes"] else ret["comment"]
    return {**ret, "comment": f"{comment}. The role {role} stays: {stays}" if stays else comment}


def _would(changes):
    return f"Would be recorded: {', '.join(changes)}"


def _why_role_stays(settings, role):
    """Why a role of PostgreSQL that Immich no longer uses is not to be dropped, or None."""
    connection, database = settings["postgres"]["connection"], settings["postgres"]["database"]
    held = __salt__["pgsql_role.get"](role, connection=connection)
    if held is None:
        return None
    if held["superuser"] or held["createrole"] or held["replication"]:
        return "it administers the server"
    return " ".join(__salt__["pgsql_role.dependencies"](role, connection, besides=database)) or None


def _remove_former(settings, changed, role):
    postgres = settings["postgres"]
    database = changed.get("database", {}).get("old")
    if database and postgres["managed"] and __salt__["pgsql_hba.get"](database, None, postgres["connection"])["lines"]:
        __salt__["pgsql_hba.set"](database, None, postgres["connection"])
    user = changed.get("valkey_user", {}).get("old")
    if user:
        valkey_migration.remove_former_user(settings, user, __salt__)
    if role and __salt__["pgsql_role.get"](role, connection=postgres["connection"]):
        __salt__["pgsql_role.drop"](role, reassign_to=postgres["user"], connection=postgres["connection"])


def kept(name, settings):
    """
    Make sure that the record only has what ``immich.clean`` leaves: the database and the library.

    The next apply recognizes them. If both are deleted, the record is removed too.

    name
        What the state is about, for the output.

    settings
        The formula's settings.

    .. code-block:: yaml

        What stays of the installation is recorded:
          immich_identity.kept:
            - settings: {{ settings | json }}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The record says what stays"}
    try:
        there = on_host.known(settings["project_dir"])
        stays = identity.kept(there, settings["clean"])
        if there == stays:
            return ret
        ret["changes"]["record"] = {"old": there, "new": stays or None}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": "The record would say what stays"}
        installation.forget()
        if stays:
            _note(**stays)
    except FAILURES as error:
        return {**ret, "result": False, "changes": {}, "comment": str(error)}
    return {**ret, "comment": f"On record are {', '.join(stays)}" if stays else "The record was removed"}
