# The last state: every check of this host's components passes. The server answers and reaches machine learning by name;
# role, ACL, firewall and listening sockets are as declared. Changes nothing. Requires all components of this host.
{%- from "immich/settings.jinja" import handed_down, included, settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set at_the_end = settings.once_signed_up if "accounts" in settings.components else {} %}

Immich is as declared:
  immich_app.verified:
    # With what its components have checked, as of the end of the run.
    - settings: {{ dict(handed_down, components=settings.components, **at_the_end) | json }}
    - require: {{ included | json }}
{%-   if settings.metrics.enabled %}

The run is recorded for the metrics:
  immich_metrics.run_recorded:
    # After a failure too, which no requisite says.
    - order: last
{%-   endif %}
{%- endif %}
