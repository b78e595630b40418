# The last state: the server answers, reaches machine learning by name, and role, ACL, firewall and listening sockets are
# as promised. Changes nothing. Requires everything.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}

Immich is as promised:
  immich_app.verified:
    - require:
      - sls: immich.app
      - sls: immich.backup
{%- endif %}
