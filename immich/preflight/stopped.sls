# Immich is stopped for changes that are impossible while it runs, and its former network is removed; immich.app starts
# it again. In the same run, networks, PostgreSQL and Valkey wait for this (`before` in components.yaml); applied alone
# they stop nothing. Depends on immich.preflight.
{%- from "immich/settings.jinja" import before, handed_down, settings, start with context %}
{{ start(sls, ["immich.preflight"]) }}
{%- if settings %}

Immich is stopped before its network, password or identity changes:
  immich_app.stopped_for_changes:
    - name: immich.service
    - settings: {{ handed_down | json }}
    - require:
      - sls: immich.preflight

# Before the network of the pillar is present, which may have the subnet of the former one.
Immich's former network is absent:
  immich_identity.network_replaced:
    - settings: {{ handed_down | json }}
    - require:
      - Immich is stopped before its network, password or identity changes
    - require_in: {{ before | json }}
{%- endif %}
