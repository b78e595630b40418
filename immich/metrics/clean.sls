# Removes the metrics of this host, their timer and service, alert rules and dashboard, and what was recorded for them. The
# directory of node_exporter's textfile collector stays.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set metrics = salt["immich_metrics.plan"](settings) %}

No metrics of this host are written or scheduled:
  immich_backup.dead:
    - name: immich-metrics.timer

{%-   set before = [] %}
{%-   for what, path in (("metrics of this host", metrics.textfile), ("alert rules and dashboard", metrics.shared),
                         ("records of runs", metrics.records)) %}
{%-     do before.append("The " ~ what ~ " are absent") %}

The {{ what }} are absent:
  file.absent:
    - name: {{ path | json }}
    - require:
      - No metrics of this host are written or scheduled
{%-   endfor %}

# Last: by the timer's file the next removal knows that metrics have been on this host.
The units that write the metrics of this host are absent:
  systemd_unit.files_absent:
    - files: {{ [metrics.files.service, metrics.files.timer] | json }}
    - require: {{ before | json }}
{%- endif %}
