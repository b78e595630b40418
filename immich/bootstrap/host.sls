# Says what stands in Immich's way on this host, before anything changes: an address that is not there, a port that is
# taken, another cluster of PostgreSQL, a Valkey with a password of its own. Depends on nothing.
{%- from "immich/settings.jinja" import run with context %}

This host is ready for Immich:
  immich.host_ready:
    - obstacles: {{ run.obstacles | json }}
