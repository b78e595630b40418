"""
Immich's telemetry: the ports of its metrics, and what they answer
==================================================================

By Immich's documentation (Features > Monitoring), and config.repository.ts and telemetry.repository.ts below
server/src/repositories: each worker has a port of its own, on which it answers ``/metrics`` in Prometheus's text
format, without a login.
"""

import re

# In the container, by the worker.
PORTS = {"api": 8081, "microservices": 8082}
# The first line that Prometheus's text format has: a comment or a sample.
_FIRST_LINE = re.compile(rb"(# (HELP|TYPE) )?[a-zA-Z_:][a-zA-Z0-9_:]*[ {]")


def published(metrics):
    """
    Return the ports of the server's container to publish, as compose writes them.

    metrics
        ``metrics`` of the settings.

    .. code-block:: python

        telemetry.published({"enabled": True, "listen": "127.0.0.1", "api_port": 8081, "microservices_port": 8082})
    """
    if not metrics["enabled"]:
        return []
    at = _published_ports(metrics)
    return [f"{metrics['listen']}:{at[worker]}:{port}" for worker, port in PORTS.items()]


def _published_ports(metrics):
    return {"api": metrics["api_port"], "microservices": metrics["microservices_port"]}


def urls(settings):
    """
    Return the addresses at which this host itself reads the metrics of each worker that runs, by the worker.

    settings
        The formula's settings, with metrics enabled.

    .. code-block:: python

        telemetry.urls(settings)["api"]
    """
    metrics, variables = settings["metrics"], settings["server"]["environment"]
    host = "127.0.0.1" if metrics["listen"] == "0.0.0.0" else metrics["listen"]
    included, excluded = (_names(variables.get(f"IMMICH_WORKERS_{which}", "")) for which in ("INCLUDE", "EXCLUDE"))
    return {
        worker: f"http://{host}:{port}/metrics"
        for worker, port in _published_ports(metrics).items()
        if worker in (included or PORTS) and worker not in excluded
    }


def _names(text):
    return set(filter(None, text.replace(" ", "").split(",")))


def looks_right(beginning):
    """
    Return whether an answer begins as metrics do.

    beginning
        Its first bytes.

    .. code-block:: python

        telemetry.looks_right(b"# HELP target_info Target metadata")
    """
    return bool(_FIRST_LINE.match(beginning))
