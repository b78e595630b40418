"""
The status of an installation in figures: from the doctor's rows, the backups, and the records of what was done
================================================================================================================

``immich.status`` returns it, ``exposition`` writes it for Prometheus, and the beacon compares it with the one before.
"""

from immich_core import releases, versions

# From best to worst, as a part of several rows has the worst of them.
RESULTS = ("ok", "warning", "failed")
# SLS whose states only look: what differs is counted where it would be changed.
_LOOKING = "immich.verify"


def of(moment, rows, images, backups, known, records):
    """
    Return the status, a flat dictionary of numbers and texts, and ``parts``: the result of each part. What is not known
    is None.

    moment
        When the rows were made, in seconds since the epoch.
    rows
        Those of ``immich.doctor``.
    images
        The server's image as ``installed`` and as ``declared``, each a reference or None.
    backups
        Those of the database, newest first, each with ``moment`` (seconds since the epoch) and ``size`` (bytes).
        None if they are not known.
    known
        Releases of Immich, newest first. Empty if they are not known.
    records
        The last ``apply``, ``plan``, ``update`` and ``drill``, each a dictionary, empty if there is none.

    .. code-block:: python

        status.of(time.time(), rows, images, backups, ["v3.4.0"], records)
    """
    parts = {}
    for row in rows:
        parts[row["part"]] = max(parts.get(row["part"], RESULTS[0]), row["result"], key=RESULTS.index)
    counts = {result: sum(row["result"] == result for row in rows) for result in RESULTS}
    return {
        "time": int(moment),
        "result": max(parts.values(), key=RESULTS.index, default=RESULTS[0]),
        **counts,
        "parts": parts,
        **_of_versions(images, known),
        **_of_backups(backups),
        "drill_time": records["drill"].get("time"),
        "drill_success": records["drill"].get("success"),
        "update_time": records["update"].get("time"),
        "update_downtime": records["update"].get("downtime"),
        "apply_time": records["apply"].get("time"),
        "apply_seconds": records["apply"].get("seconds"),
        "apply_success": records["apply"].get("success"),
        "plan_time": records["plan"].get("time"),
        "plan_drift": records["plan"].get("drift"),
    }


def _of_versions(images, known):
    installed, declared = images["installed"], images["declared"]
    ahead = releases.newer(known, installed) if known and installed else None
    return {
        "version_installed": installed and versions.tag(installed),
        "version_declared": declared and versions.tag(declared),
        "version_as_declared": versions.same(installed, declared) if installed and declared else None,
        "newest_release": known[0] if known else None,
        "releases_behind": None if ahead is None else len(ahead),
    }


def _of_backups(backups):
    newest = backups[0] if backups else {}
    return {
        "backups": None if backups is None else len(backups),
        "backup_time": newest.get("moment"),
        "backup_size": newest.get("size"),
    }


def changed_parts(before, now):
    """
    Return the parts whose result is another one than before, as ``{part: {"old": result, "new": result}}``. One that is
    new or gone has None there, and is left out if it is or was ``ok``.

    before, now
        ``parts`` of two statuses.

    .. code-block:: python

        status.changed_parts({"Valkey": "ok"}, {"Valkey": "failed"})
    """
    found = {part: {"old": before.get(part), "new": now.get(part)} for part in {**before, **now}}
    same = (None, RESULTS[0])
    return {
        part: each
        for part, each in found.items()
        if each["old"] != each["new"] and not (each["old"] in same and each["new"] in same)
    }


def records_of_run(running, test):
    """
    Return what to record of a run that has come to its end, by the name of the record: of a dry run ``plan``, with
    ``drift``, the number of states that would change something; of another one ``apply``, with ``seconds`` and
    ``success``, and if it has updated Immich ``update``, with the ``downtime`` in seconds.

    running
        Results of the states so far, by their tags: Salt's ``__running__``.
    test
        Whether it is a dry run.

    .. code-block:: python

        status.records_of_run(__running__, __opts__["test"])
    """
    own = {tag: each for tag, each in running.items() if str(each.get("__sls__", "")).partition(".")[0] == "immich"}
    if test:
        drift = [each for each in own.values() if each["result"] is None and each["__sls__"] != _LOOKING]
        return {"plan": {"drift": len(drift)}}
    seconds = sum(each.get("duration") or 0 for each in own.values()) / 1000
    found = {
        "apply": {"seconds": round(seconds, 1), "success": all(each["result"] is not False for each in own.values())}
    }
    downtime = _downtime(own)
    if downtime is not None and found["apply"]["success"]:
        found["update"] = {"downtime": downtime}
    return found


def _downtime(own):
    """Seconds without an answer, of a run in which the version has changed."""
    updated = any("version" in each["changes"] for tag, each in own.items() if tag.startswith("immich_update_|-"))
    for tag, each in own.items():
        if updated and tag.startswith("immich_app_|-") and "downtime" in each["changes"]:
            return float(each["changes"]["downtime"]["new"].partition(" ")[0])
    return None
