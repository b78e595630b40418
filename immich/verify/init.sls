# The last state: every check of this host's components passes. The server answers and reaches machine learning by name;
# role, ACL, firewall and listening sockets are as declared. Changes nothing. Requires all components of this host.
{%- from "immich/settings.jinja" import handed_down, included, settings, start with context %}
{{ start(sls) }}
{%- if settings %}

Immich is as declared:
  immich_app.verified:
    # With what its components have checked.
    - settings: {{ dict(handed_down, components=settings.components) | json }}
    - require: {{ included | json }}
{%- endif %}
