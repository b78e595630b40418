# Figures for Prometheus: where immich:metrics is enabled, the timer that writes those of this host, alert rules and a
# dashboard; otherwise none of them. Immich's own are in the compose file. Depends on immich.app and immich.backup.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set metrics = salt["immich_metrics.plan"](settings) %}
{%-   if settings.metrics.enabled %}

The directory of node_exporter's textfile collector is present:
  file.directory:
    - name: {{ metrics.directory | json }}
    - makedirs: true
    - require:
      - sls: immich.app
      - sls: immich.backup

The unit that writes the metrics of this host is present:
  file.managed:
    - name: {{ metrics.files.service }}
    - source: salt://immich/metrics/files/immich-metrics.service.jinja
    - template: jinja
    - context: {metrics: {{ metrics | json }}}
    - mode: "0644"
    - require:
      - sls: immich.app

The timer that writes the metrics of this host is present:
  file.managed:
    - name: {{ metrics.files.timer }}
    - source: salt://immich/backup/files/immich-backup.timer.jinja
    - template: jinja
    - context: {schedule: {{ metrics.schedule | json }}, what: the metrics of this host}
    - mode: "0644"
    - require:
      - sls: immich.app

{%-     for file, name, what in (("alerts.yml", "prometheus-alerts.yml", "alert rules"),
                                ("dashboard.json", "grafana-dashboard.json", "dashboard")) %}

The {{ what }} for Immich {{ "are" if what.endswith("s") else "is" }} present:
  file.managed:
    - name: {{ metrics.shared }}/{{ name }}
    - source: salt://immich/metrics/files/{{ file }}
    - mode: "0644"
    - makedirs: true
    - require:
      - sls: immich.app
{%-     endfor %}

The metrics of this host are scheduled:
  immich_backup.scheduled:
    - name: immich-metrics.timer
    - require:
      - The unit that writes the metrics of this host is present
      - The timer that writes the metrics of this host is present

The metrics of this host are written:
  immich_metrics.written:
    - name: {{ metrics.textfile | json }}
    - require:
      - The directory of node_exporter's textfile collector is present
      - The metrics of this host are scheduled
{%-   else %}
{#-     Where there have not been any, nothing is asked for them, so that they cost a run nothing. #}
{%-     set gone = {"metrics of this host": metrics.textfile, "alert rules and dashboard": metrics.shared} if metrics.present else {} %}
{%-     set after = [{"sls": "immich.app"}] %}
{%      include "immich/metrics/removal.jinja" %}
{%-   endif %}
{%- endif %}
