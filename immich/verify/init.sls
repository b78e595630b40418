# The last state: the server answers, reaches machine learning by name, and role, ACL, firewall and listening sockets are
# as declared. Changes nothing. Requires everything.
{%- from "immich/settings.jinja" import handed_down, settings, start with context %}
{{ start(sls) }}
{%- if settings %}

Immich is as declared:
  immich_app.verified:
    # With what its components have checked.
    - settings: {{ dict(handed_down, components=settings.components) | json }}
    - require:
      - sls: immich.app
      - sls: immich.backup
{%- endif %}
