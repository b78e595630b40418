# The last state: what this host's components check is as declared. The server answers and reaches machine learning by
# name; role, ACL, firewall and listening sockets are right. Changes nothing. Requires everything that this host has.
{%- from "immich/settings.jinja" import handed_down, included, settings, start with context %}
{{ start(sls) }}
{%- if settings %}

Immich is as declared:
  immich_app.verified:
    # With what its components have checked.
    - settings: {{ dict(handed_down, components=settings.components) | json }}
    - require: {{ included | json }}
{%- endif %}
