"""
The status in Prometheus's text format, for the textfile collector of node_exporter
====================================================================================

By https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4). The collector takes no timestamps, so
that times are values, in seconds since the epoch.
"""

from immich_core import status

PREFIX = "immich_host_"
# The name of each metric, the key of the status, and what it says.
GAUGES = (
    ("status_timestamp_seconds", "time", "When this file was made."),
    ("version_as_declared", "version_as_declared", "Whether the installed version of Immich is that of the pillar."),
    ("releases_behind", "releases_behind", "How many releases of Immich are newer than the installed one."),
    ("backups", "backups", "Number of backups of the database."),
    ("backup_timestamp_seconds", "backup_time", "When the newest backup of the database was begun."),
    ("backup_size_bytes", "backup_size", "Size of the newest backup of the database."),
    ("restore_drill_timestamp_seconds", "drill_time", "When the last restore drill ended."),
    ("restore_drill_success", "drill_success", "Whether the last restore drill succeeded."),
    ("update_timestamp_seconds", "update_time", "When Immich was last updated."),
    ("update_downtime_seconds", "update_downtime", "For how long Immich did not answer in its last update."),
    ("apply_timestamp_seconds", "apply_time", "When the formula was last applied."),
    ("apply_duration_seconds", "apply_seconds", "Time that the states of the last apply took."),
    ("apply_success", "apply_success", "Whether no state of the last apply failed."),
    ("dry_run_timestamp_seconds", "plan_time", "When the last dry run of the formula (test=True) was made."),
    ("drift_states", "plan_drift", "How many states would have changed something in the last dry run."),
)


def text(found):
    """
    Return the status as the content of a file. What is not known has no metric.

    found
        As of ``status.of``.

    .. code-block:: python

        exposition.text(found)
    """
    results = {part: status.RESULTS.index(result) for part, result in found["parts"].items()}
    info = {"installed": found["version_installed"] or "", "declared": found["version_declared"] or ""}
    lines = _family(
        "part_status",
        "Result of each part of immich.doctor: 0 is ok, 1 warning, 2 failed.",
        [({"part": part}, value) for part, value in sorted(results.items())],
    )
    lines += _family("version_info", "The version of Immich, installed and declared.", [(info, 1)])
    if found["newest_release"]:
        newest = {"version": found["newest_release"]}
        lines += _family("newest_release_info", "The newest release of Immich in the registry.", [(newest, 1)])
    for name, key, description in GAUGES:
        if found[key] is not None:
            lines += _family(name, description, [({}, float(found[key]))])
    return "".join(f"{line}\n" for line in lines)


def _family(name, description, samples):
    name = f"{PREFIX}{name}"
    return [
        f"# HELP {name} {description}",
        f"# TYPE {name} gauge",
        *(f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples),
    ]


def _labels(labels):
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value):
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value):
    return str(int(value)) if value == int(value) else str(value)
