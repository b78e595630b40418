# Removes the metrics of this host, their timer and service, alert rules and dashboard, and what was recorded for them. The
# directory of node_exporter's textfile collector stays.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set metrics = salt["immich_metrics.plan"](settings) %}
{%-   set gone = {"metrics of this host": metrics.textfile, "alert rules and dashboard": metrics.shared,
                  "records of runs": metrics.records} %}
{%-   set after = [] %}
{%    include "immich/metrics/removal.jinja" %}
{%- endif %}
