# What every removal begins with: no backup, restore or update is at work on this host, nor begins before the run has
# ended. Depends on nothing.
{%- from "immich/settings.jinja" import settings with context %}
{%- if settings %}

No backup, restore or update is under way:
  immich_lock.held:
    - order: first
    - failhard: true
{%- endif %}
