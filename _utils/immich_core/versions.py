"""
Versions of Immich: what a tag says, what a database belongs to, and which version may follow which
=====================================================================================================

Needs nothing but Python, and reads nothing: the program that makes backups uses this file too. A version is a tuple of
three numbers.

Sources of the rules: https://docs.immich.app/errors#typeorm-upgrade (the stop on the way from 1.131 and older),
https://docs.immich.app/install/upgrading (no downgrade, not even by a patch), and Immich's list of migrations,
``server/src/schema/migrations/ORDER``.
"""

import re

# An installation from before the first of these has to run it or a later one before it goes to the second. Immich's
# documentation has 1.137.0 there, and advises against 1.136.0 too; the third is what it recommends in between.
STOP_BEFORE, STOP_BEYOND, STOP_AT = (1, 132, 0), (1, 136, 0), (1, 132, 3)
# Tables in which Immich notes what was done to its database: kysely's and, before 1.133, TypeORM's. One of them is in
# every database that it has served.
MIGRATION_TABLES = ("kysely_migrations", "migrations")
# Its table of the versions that have served.
VERSION_TABLE = "version_history"
# The first migration, by the number that its name begins with (milliseconds since 1970), of which it is known that no
# release before this one has it. A migration in between may have come later than its row says, never earlier.
# From the file ORDER of v3.2.0-rc.0 (commit a6ad970) and of copies of the main branch of 8 October 2026.
FIRST_MIGRATIONS = (
    (1744910873969, (1, 132, 0)),  # the first that is not TypeORM's
    (1745902563899, (1, 133, 0)),  # made when 1.132.3 was out, in April 2025
    (1749067526135, (1, 135, 0)),  # 1.134.0 was out on 28 May 2025
    (1753800911775, (1, 137, 0)),  # 1.136.0 was out on 27 July 2025
    (1758705774125, (2, 2, 0)),  # 2.1.0 calls it missing
    (1762297277677, (2, 3, 0)),  # 2.2.3 was out on 4 November 2025
    (1768336661963, (2, 5, 0)),  # the tables of edits, which 2.5.0 brought
    (1771478781948, (2, 6, 0)),  # 2.5.6 was out six weeks before 2.6.0, of 19 March 2026
    (1775165531374, (2, 7, 0)),  # 2.7.5 has 68, this is the last
    (1776217577402, (3, 0, 0)),
    (1782500000000, (3, 0, 3)),  # the one that 3.0.3 adds to 3.0.2
    (1784647658615, (3, 1, 0)),
    (1786385711807, (3, 2, 0)),  # 3.1.0 was out on 29 July 2026
    (1789419229196, (3, 2, 1)),  # 3.2.0 was out on 10 September 2026
    (1790587508209, (3, 3, 0)),  # 3.2.2 was out on 16 September 2026
    (1791504000000, (3, 3, 2)),  # made when 3.3.1, the newest known here, was out: newer than any known here
)
_NUMBER = "(0|[1-9][0-9]{0,5})"
_VERSION = re.compile(rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:[-+_].*)?", re.ASCII)
# What images of machine learning for some hardware have behind the version: immich_core.hardware, by the same words.
_ACCELERATED = "(?:-(?:armnn|cuda|openvino|rknn|rocm))?"
_SERIES = re.compile(rf"v?{_NUMBER}(?:\.{_NUMBER})?{_ACCELERATED}", re.ASCII)
_MIGRATION = re.compile("([0-9]{13})-")
# What a tag that moves within a series stands for at most.
_ANY = 10**6


def tag(image):
    """
    Return the tag in an image reference or a version number, without registry, name and digest.

    image
        As in ``ghcr.io/immich-app/immich-server:v3.3.1@sha256:…``, ``v3.3.1`` or ``3.3.1``.

    .. code-block:: python

        versions.tag("ghcr.io/immich-app/immich-server:v3.3.1")
    """
    return str(image).partition("@")[0].rpartition("/")[2].rpartition(":")[2]


def parse(image):
    """
    Return the version that an image reference, a tag or a version number says, or None.

    A tag that moves, such as ``v3`` or ``release``, and a bare digest say none.

    image
        As for :py:func:`tag`. What follows the three numbers after ``-``, ``+`` or ``_`` does not count.

    .. code-block:: python

        versions.parse("ghcr.io/immich-app/immich-server:v3.3.1-cuda")
    """
    found = _VERSION.fullmatch(tag(image))
    return tuple(map(int, found.groups())) if found else None


def highest(image):
    """
    Return the newest version that an image reference may stand for, or None if it may be any.

    image
        As for :py:func:`tag`. ``v3``, also as ``v3-cuda``, is newer than all of 3 and older than 4.0.0.

    .. code-block:: python

        versions.highest("ghcr.io/immich-app/immich-server:v3")
    """
    series = _SERIES.fullmatch(tag(image))
    if not series:
        return parse(image)
    numbers = [int(number) for number in series.groups() if number is not None]
    return tuple(numbers + [_ANY] * (3 - len(numbers)))


def same(one, other):
    """
    Return whether two image references are the same version, from whichever registry.

    A digest beside a full version says the same thing again; beside a tag that moves, or alone, it is what counts.

    one, other
        Image references.

    .. code-block:: python

        versions.same("ghcr.io/immich-app/immich-server:v3.3.1", "registry.test/server:v3.3.1")
    """
    return _identity(one) == _identity(other)


def _identity(image):
    name, _, digest = str(image).rpartition("/")[2].partition("@")
    return tag(name) if parse(name) else (tag(name), digest)


def text(version):
    """
    Return a version as Immich's tags say it: ``v3.3.1``.

    version
        Three numbers.

    .. code-block:: python

        versions.text((3, 3, 1))
    """
    return "v" + ".".join(str(number) for number in version if number != _ANY)


def obstacle(found, desired):
    """
    Return what is in the way from one version to another: ``older``, as Immich cannot go back, or the version that has
    to run once in between, as ``v1.132.3``. None if nothing is.

    found, desired
        Versions. None is unknown, and then nothing is in the way.

    .. code-block:: python

        versions.obstacle((1, 131, 3), (3, 3, 1))
    """
    if found is None or desired is None:
        return None
    found, desired = tuple(found), tuple(desired)
    if desired < found:
        return "older"
    if found < STOP_BEFORE and desired >= STOP_BEYOND:
        return text(STOP_AT)
    return None


def allowed(found, desired):
    """
    Return the version to set instead of one that is refused, as ``v1.132.3``, or None if nothing is in the way.

    found, desired
        As in ``obstacle``.

    .. code-block:: python

        versions.allowed((3, 3, 1), (3, 0, 3))
    """
    way = obstacle(found, desired)
    return text(found) if way == "older" else way


def since(migrations):
    """
    Return the version that must have run on a database at least, by the migrations in it, or None.

    migrations
        Their names, as the database has them. Those of TypeORM, before 1.132, say nothing.

    .. code-block:: python

        versions.since(["1775165531374-AddPersonNameTrigramIndex"])
    """
    return _least(_newest_migration(migrations))


def credible(noted, migrations, images=()):
    """
    Return the newest version noted that nothing contradicts, or None; and what speaks against the newest one noted, as
    ``(version, part of a sentence)``, or None.

    Immich's role can note any version. But a server migrates before it notes its own: of a version that has run, the
    migrations of the releases before it are there; and it is no newer than the images that have run, unless the
    migrations are.

    noted
        Texts, as in the table ``VERSION_TABLE``. What is no version does not count.

    migrations
        Names of the migrations in the database. Without any, only the images can contradict.

    images
        All images that may have run on the database. Default: unknown.

    .. code-block:: python

        versions.credible(["999.0.0", "2.7.5"], ["1775165531374-AddPersonNameTrigramIndex"])
    """
    migration, ran = _newest_migration(migrations), _newest_image(images)
    found, doubt = sorted(set(filter(None, map(parse, noted))), reverse=True), None
    for version in found:
        contradiction = _contradiction(version, migration, ran)
        if not contradiction:
            return version, doubt
        doubt = doubt or (version, contradiction)
    return None, doubt


def of_data(noted, migrations, image=None):
    """
    Return the version that a database belongs to, or None if nothing says it.

    That is the newest one noted, of those that nothing contradicts, unless its migrations are newer: a server migrates
    first, and notes its version only some seconds after it serves. Then the image that runs it says which it was, or
    else it is at least what the migrations say.

    noted, migrations
        As for :py:func:`credible`.

    image
        The image that the compose file names. Default: unknown.

    .. code-block:: python

        versions.of_data(["3.3.1"], ["1790693088454-AddPersonUserTable"])
    """
    newest, _ = credible(noted, migrations, [image] if image else [])
    least = since(migrations)
    if least is None or (newest and newest >= least):
        return newest
    named = parse(image) if image else None
    return max(named, least) if named else least


def _newest_migration(migrations):
    """The number of the newest one, 0 if all are TypeORM's, None if there is none."""
    numbers = [int(found[1]) if found else 0 for found in map(_MIGRATION.match, migrations)]
    return max(numbers, default=None)


def _least(migration):
    return max((version for first, version in FIRST_MIGRATIONS if first <= (migration or 0)), default=None)


def _newest_image(images):
    """The newest version that any of the images may stand for, or None if that is unknown."""
    versions = list(map(highest, images))
    return max(versions) if versions and None not in versions else None


def _contradiction(version, migration, ran):
    least = _least(migration)
    if least and version <= least:
        return None
    reasons = []
    if migration is not None and _lacks_migrations(version, migration):
        belong = f"belong to {text(least)} or a release soon after it" if least else "are older than v1.132.0"
        reasons.append(f"the migrations in the database {belong}")
    if ran and version > ran and (least is None or least <= ran):
        reasons.append(f"no newer image than {text(ran)} is known to have run on it")
    return " and ".join(reasons) or None


def _lacks_migrations(version, migration):
    """Whether a release before a version brought a migration that is not there, or nothing known is so new."""
    newest, known = FIRST_MIGRATIONS[-1]
    if version[0] > known[0] and migration < newest:
        return True
    # Of a row it is only known that it belongs to none before its release: the next one has it for sure.
    rows = zip(FIRST_MIGRATIONS, FIRST_MIGRATIONS[1:])
    return any(later <= version and migration < first for (first, _), (_, later) in rows)
