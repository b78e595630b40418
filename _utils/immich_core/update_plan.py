"""
What an apply does about the version of Immich, by all that knows what the database belongs to
==============================================================================================

Which version may follow which is what ``versions`` decides. ``noted`` is what Immich has noted in its database:
``{"tables": how many, "migrations": [names], "versions": [texts]}``; ``record`` is that of an update that has
not come to its end (``update_record``), or None. A refusal is a finding (``findings``); its path is where the pillar
says the version, and its remedy the line of the pillar, or the command, that resolves it.
"""

from immich_core import findings, versions

# A row of the doctor's table.
PART = "version"
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
    (``immich:update:database_version``) that overrides it. Older ones that nothing contradicts count all the same.

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
    newest, doubt = versions.credible(noted["versions"], noted["migrations"], _images(before, record))
    override = versions.parse(settings["update"].get("database_version") or "")
    if doubt and override:
        newest, doubt = max(filter(None, (newest, override))), None
    found, known = _found(newest, noted["migrations"], before, record)
    desired, highest = versions.parse(image), versions.highest(image)
    path = pillar_path(settings)
    refusal = obstacle(found, highest, path, known)
    if refusal and changed:
        refusal["seen"] = f"{refusal['seen']}. {restore_advice(changed, restore)}"
    if not refusal and doubt and versions.obstacle(doubt[0], highest) == "older":
        refusal = _contradicted(path, highest, doubt, found or desired)
    if not refusal and (same or (changed and changed["image"] == image)):
        return {}
    if before is None and not noted["tables"]:
        return {}
    # A tag that moves is pinned to what it was, or the compose file is lost and comes back.
    if not refusal and found and found == desired and not versions.parse(before or ""):
        return {}
    start, goal = _from_to(found, desired, before, image)
    return {
        "from": changed["from"] if changed else start,
        "to": goal,
        "refusal": refusal,
        "backup": bool(settings["update"]["backup"] and noted["tables"] and not changed),
    }


def obstacle(found, desired, path="immich:version", known=INSTALLED):
    """
    Return why Immich cannot go from one version to another, as a finding, or None if it can.

    found, desired
        Versions, as of ``versions.parse``. None is unknown, and then nothing speaks against it.
    path
        Where the pillar says the desired version. Defaults to ``immich:version``.
    known
        How the found version is known, as half a sentence. Defaults to ``which is installed``.

    .. code-block:: python

        update_plan.obstacle((1, 131, 3), (3, 0, 3))
    """
    way = versions.obstacle(found, desired)
    if not way:
        return None
    old, new = versions.text(found), versions.text(desired)
    if way == "older":
        no_downgrade = f"Immich cannot be downgraded, not even by a patch release: set {old} or a newer version"
        seen = f"{new} is older than {old}, {known}. {no_downgrade}"
    else:
        seen = (
            f"from {old} Immich cannot be updated to {new} directly. Set {way}, apply, then set {new} and apply again"
        )
    remedy = f"immich:version: {versions.allowed(found, desired)}"
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
    newest, _ = versions.credible(noted["versions"], noted["migrations"], _images(image, record))
    found, known = _found(newest, noted["migrations"], None, record)
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


def _from_to(found, desired, before, image):
    """How an update is called: by versions, or by tags where they are the same version or none."""
    if found and desired and found != desired:
        return versions.text(found), versions.text(desired)
    tag = versions.tag
    return versions.text(found) if found and not desired else tag(before) if before else "unknown", tag(image) or image


def _images(image, record):
    """Those that may have run on the database, by the compose file and the record of an update."""
    return [each for each in (image, *((record["from"], record["image"]) if record else ())) if each]


def _found(noted, migrations, image, record):
    """
    The version that the installation has at least, or None, and how that is known.

    noted
        The newest one that the database has noted, of those that count.
    image
        What the compose file names. While an update is under way its record is the better witness: a compose file may
        have been written for a version that never saw the database.
    """
    changed = changed_by(record, migrations)
    witnesses = (
        (noted, INSTALLED),
        (changed and versions.parse(changed["to"]), "which has changed the database and did not serve then"),
        (record and not changed and versions.parse(record["from"]), INSTALLED),
        (None if record else versions.parse(image or ""), INSTALLED),
        (versions.since(migrations), "which the migrations in the database need at least"),
    )
    known = [(found, why) for found, why in witnesses if found]
    return max(known, key=lambda each: each[0]) if known else (None, None)


def _contradicted(path, desired, doubt, newest):
    claimed, contradiction = versions.text(doubt[0]), doubt[1]
    remedy = f"immich:update:database_version: {versions.text(newest) if newest else 'vX.Y.Z'}"
    seen = (
        f"{versions.text(desired)} is older than {claimed}, which only the table {versions.VERSION_TABLE} in Immich's "
        f"database says: {contradiction}. Immich's role can write anything there. If {claimed} never served this "
        f"database, set {remedy} and apply again"
    )
    return findings.finding("version-contradicted", PART, seen, remedy, path)
