# Immich as a whole: every component, in the order in which they require each other.
{%- from "immich/settings.jinja" import start with context %}
{{ start(sls) }}
