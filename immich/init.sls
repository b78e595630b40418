# Immich as a whole: every component, in the order in which they require each other.
{%- from "immich/settings.jinja" import start with context %}
{{ start(sls, ["immich.programs", "immich.preflight", "immich.podman", "immich.gateway", "immich.postgres",
               "immich.valkey", "immich.app", "immich.backup", "immich.verify"]) }}
