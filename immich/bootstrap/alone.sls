# The first state of every removal: no backup, restore or update is running on this host, and none can start before the
# run has ended. Depends on nothing.
{%- from "immich/settings.jinja" import settings with context %}
{%- if settings %}

No backup, restore or update is under way:
  immich_lock.held:
    - order: first
    - failhard: true
{%- endif %}
