# The last state: the server answers, reaches machine learning by name, and role, ACL, firewall and listening sockets are
# as declared. Changes nothing. Requires everything.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}

Immich is as declared:
  immich_app.verified:
    - settings: {{ settings | json }}
    - require:
      - sls: immich.app
      - sls: immich.backup
{%- endif %}
