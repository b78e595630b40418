# The first comparison, before anything changes: the pillar describes the installation on this host, or one to which it
# can be migrated. A run with immich.app migrates the differences; a database or library that Immich would find empty is
# refused. Depends on immich.bootstrap.
{%- from "immich/settings.jinja" import handed_down, settings, start with context %}
{{ start(sls) }}
{%- if settings %}

The installation is the one on record:
  immich_identity.compared:
    - settings: {{ handed_down | json }}
{%- endif %}
