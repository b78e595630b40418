# Removes what the formula has created, in reverse order. Library, database and backups stay, unless immich:clean says
# otherwise; `test=True` lists what would be removed.
{%- from "immich/settings.jinja" import start with context %}
{{ start(sls) }}
