# The last state: what this host's components check is as declared. The server answers and reaches machine learning by
# name; role, ACL, firewall and listening sockets are right. Changes nothing. Requires everything that this host has.
{%- from "immich/settings.jinja" import handed_down, included, settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set at_the_end = settings.once_signed_up if "accounts" in settings.components else {} %}

Immich is as declared:
  immich_app.verified:
    # With what its components have checked, as of the end of the run.
    - settings: {{ dict(handed_down, components=settings.components, **at_the_end) | json }}
    - require: {{ included(sls) }}
{%- endif %}
