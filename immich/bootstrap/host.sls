# Checks this host before anything changes: every declared address exists, no other program uses a port, the devices of
# immich:hardware are there, and no other PostgreSQL cluster or Valkey with an unknown password is in the way. Depends on
# nothing.
{%- from "immich/settings.jinja" import run with context %}

This host is ready for Immich:
  immich.host_ready:
    - obstacles: {{ run.obstacles | json }}
