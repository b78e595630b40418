"""
What an apply does about the version of Immich, by all that knows what the database belongs to
==============================================================================================

Which version may follow which is what ``versions`` decides. ``noted`` is what Immich has noted in its database:
``{"tables": how many, "migrations": [names], "version": numbers or None}``; ``record`` is that of an update that has
not come to its end (``update_record``), or None. A refusal is a finding (``findings``); its path is where the pillar
says the version, and its remedy the line of the pillar, or the command, that resolves it.
"""

from immich_core import findings, versions

# A row of the doctor's table.
PART = "version"
# Immich's table of the versions that have served.
NOTED_IN = "version_history"
INSTALLED = "which is installed"


def changed_by(record, migrations):
    """
    Return the record of an update that has changed the database and did not serve then, or None. Its backup is the one
    to keep.

    record
        As above.
    migrations
        Names of those that the database has, sorted.

    .. code-block:: python

        update_plan.changed_by(record, ["1775165531374-AddPersonNameTrigramIndex"])
    """
    return record if record and record["migrations"] != migrations else None


def stays(before, image, record):
    """
    Return whether the version stays, so that the database need not be asked.

    before
        The server's image in the compose file, or None.
    image
        The one that the settings declare.
    record
        As above.

    .. code-block:: python

        update_plan.stays("ghcr.io/immich-app/immich-server:v3.3.1", "registry.test/server:v3.3.1", None)
    """
    return before is not None and versions.same(before, image) and not record


def decided(settings, before, record, noted, restore):
    """
    Return what an apply does about the version: nothing, or
    ``{"from": …, "to": …, "refusal": finding or None, "backup": bool}``.

    What counts is the newest of what the database has noted, what its migrations belong to, what the compose file says,
    and the version of an update that has changed the database and did not serve then.

    A version that the database has noted and all else contradicts is refused by its name, with the line of the pillar
    (``immich:update:database_version``) that overrides it.

    settings
        The formula's settings.
    before
        The server's image in the compose file, or None.
    record, noted
        As above.
    restore
        Function that gives the command with which the backup of a record is restored.

    .. code-block:: python

        update_plan.decided(settings, before, record, noted, "salt-call immich.restore {backup}".format_map)
    """
    image = settings["server"]["image"]
    same = before is not None and versions.same(before, image)
    changed = changed_by(record, noted["migrations"])
    credible, contradiction = _credible(noted, [before], record, settings["update"].get("database_version"))
    found, known = _found(credible, before, record)
    wanted, highest = versions.parse(image), versions.highest(image)
    path = pillar_path(settings)
    refusal = obstacle(found, highest, path, known)
    if refusal and changed:
        refusal["seen"] = f"{refusal['seen']}. {restore_advice(changed, restore)}"
    if not refusal and contradiction and versions.obstacle(noted["version"], highest) == "older":
        refusal = _contradicted(path, highest, noted["version"], contradiction, found or wanted)
    if not refusal and (same or (changed and changed["image"] == image)):
        return {}
    if before is None and not noted["tables"]:
        return {}
    # A tag that moves is pinned to what it was, or the compose file is lost and comes back.
    if not refusal and found and found == wanted and not versions.parse(before or ""):
        return {}
    start, goal = _from_to(found, wanted, before, image)
    return {
        "from": changed["from"] if changed else start,
        "to": goal,
        "refusal": refusal,
        "backup": bool(settings["update"]["backup"] and noted["tables"] and not changed),
    }


def obstacle(found, wanted, path="immich:version", known=INSTALLED):
    """
    Return why Immich cannot go from one version to another, as a finding, or None if it can.

    found, wanted
        Versions, as of ``versions.parse``. None is unknown, and then nothing speaks against it.
    path
        Where the pillar says the wanted version. Defaults to ``immich:version``.
    known
        How the found version is known, as half a sentence. Defaults to ``which is installed``.

    .. code-block:: python

        update_plan.obstacle((1, 131, 3), (3, 0, 3))
    """
    way = versions.obstacle(found, wanted)
    if not way:
        return None
    old, new = versions.text(found), versions.text(wanted)
    if way == "older":
        no_downgrade = f"Immich cannot be downgraded, not even by a patch release: set {old} or a newer version"
        seen = f"{new} is older than {old}, {known}. {no_downgrade}"
    else:
        seen = (
            f"from {old} Immich cannot be updated to {new} directly. Set {way}, apply, then set {new} and apply again"
        )
    remedy = f"immich:version: {versions.allowed(found, wanted)}"
    return findings.finding("version-refused", PART, seen, remedy, path)


def start_refusal(image, record, noted, restore):
    """
    Return why the version that the compose file names must not be started on the database as it is, as a finding, or
    None if it may be started. What the database has noted does not count where all else contradicts it.

    image
        The server's image in the compose file.
    record, noted, restore
        As for :py:func:`decided`.

    .. code-block:: python

        update_plan.start_refusal(image, record, noted, restore)
    """
    found, known = _found(_credible(noted, [image], record, None)[0], None, record)
    if versions.obstacle(found, versions.highest(image)) != "older":
        return None
    tag, needed = versions.tag(image), versions.text(found)
    seen = f"the compose file has {tag}, and the database needs {needed}, {known}: do not start {tag} on it"
    changed = changed_by(record, noted["migrations"])
    if changed and changed["backup"]:
        return findings.finding("version-not-startable", PART, seen, restore(changed))
    remedy = f"immich:version: {needed}, then salt-call state.apply immich"
    return findings.finding("version-not-startable", PART, seen, remedy)


def pillar_path(settings):
    """
    Return where the pillar says the server's version.

    settings
        The formula's settings.

    .. code-block:: python

        update_plan.pillar_path(settings)
    """
    own = settings["server"]["image"].endswith(f":{settings['version']}")
    return "immich:version" if own else "immich:server:image"


def restore_advice(record, restore):
    """
    Return how to go back to the version before an update, in words.

    record, restore
        As for :py:func:`decided`.

    .. code-block:: python

        update_plan.restore_advice(record, restore)
    """
    if not record["backup"]:
        return "No backup was taken before (immich:update:backup): to go back, restore one of your own."
    return f"To go back, set immich:version to {record['from']} and type: {restore(record)}"


def _from_to(found, wanted, before, image):
    """How an update is called: by versions, or by tags where they are the same version or none."""
    if found and wanted and found != wanted:
        return versions.text(found), versions.text(wanted)
    tag = versions.tag
    return versions.text(found) if found and not wanted else tag(before) if before else "unknown", tag(image) or image


def _found(noted, image, record):
    """
    The version that the installation has at least, or None, and how that is known.

    image
        What the compose file names. While an update is under way its record is the better witness: a compose file may
        have been written for a version that never saw the database.
    """
    changed = changed_by(record, noted["migrations"])
    witnesses = (
        (noted["version"], INSTALLED),
        (changed and versions.parse(changed["to"]), "which has changed the database and did not serve then"),
        (record and not changed and versions.parse(record["from"]), INSTALLED),
        (None if record else versions.parse(image or ""), INSTALLED),
        (versions.since(noted["migrations"]), "which the migrations in the database need at least"),
    )
    known = [(tuple(found), why) for found, why in witnesses if found]
    return max(known, key=lambda each: each[0]) if known else (None, None)


def _credible(noted, images, record, override):
    """
    What the database has noted, without a version that all else contradicts; and what contradicts it, unless the pillar
    overrides it with another version.

    images
        Those that may have run on the database, as far as the record of an update does not name them. None is unknown.
    """
    images = [image for image in (*images, *((record["from"], record["image"]) if record else ())) if image]
    versions_noted = [versions.text(noted["version"])] if noted["version"] else []
    contradiction = versions.contradiction(versions_noted, noted["migrations"], images)
    if not contradiction:
        return noted, None
    if override:
        return {**noted, "version": versions.parse(override)}, None
    return {**noted, "version": None}, contradiction


def _contradicted(path, wanted, noted, contradiction, newest):
    claimed = versions.text(noted)
    remedy = f"immich:update:database_version: {versions.text(newest) if newest else 'vX.Y.Z'}"
    seen = (
        f"{versions.text(wanted)} is older than {claimed}, which only the table {NOTED_IN} in Immich's database says: "
        f"{contradiction}. Immich's role can write anything there. If {claimed} never served this database, set "
        f"{remedy} and apply again"
    )
    return findings.finding("version-contradicted", PART, seen, remedy, path)
