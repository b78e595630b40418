# Removes the formula's API key, from Immich and from this host. Accounts and libraries stay: they are Immich's data.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set accounts = salt["immich_account.plan"](settings) %}

The formula's API key for Immich is absent:
  immich_account.key_absent:
    - name: {{ accounts.key_file }}
    - url: {{ accounts.url }}
{%- endif %}
