"""
Part: metrics, and news of Immich, where the pillar asks for them
=================================================================
"""

from host_core.command import CommandError
from immich_core import releases as decided
from immich_diagnosis.check import OK, WARNING, Check, call, of_finding
from immich_diagnosis.facts import SERVER, compose_of
from immich_host import releases, telemetry


def _metrics(here):
    settings = here["settings"]
    if not settings or not settings["metrics"]["enabled"]:
        return []
    found = call(here, "immich_metrics.verify", settings, timeout=2)
    return map(of_finding, found) if found else [(OK, "Immich's are published, those of this host are written")]


def _releases(here):
    settings = here["settings"]
    if not settings or not settings["update"]["check_releases"]:
        return []
    installed = compose_of(here)["services"].get(SERVER, {}).get("image", "")
    found = releases.recorded(settings["server"]["image"])
    if found is None:
        try:
            found = releases.look(settings["server"]["image"], here["seconds"] * 3)
        except CommandError as error:
            return [(WARNING, f"not checked: the registry has not said which there are: {error}")]
    return [of_finding(decided.news(found, installed))]


GROUPS = (
    (
        Check(telemetry.PART, _metrics, disturbed=True, asks=("immich_metrics.verify",)),
        Check(decided.PART, _releases, times=4),
    ),
)
