# Removes what the formula made, in the reverse of the order in which it was made. Library, database and backups stay,
# unless immich:clean says otherwise; `test=True` lists what would go.
{%- from "immich/settings.jinja" import start with context %}
{{ start(sls) }}
