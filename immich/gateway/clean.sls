# Removes the gateway's address and firewall, after the services that listen there: includes the removal of PostgreSQL
# and Valkey.
{%- from "immich/settings.jinja" import included, settings, start with context %}
{{ start(sls) }}
{%- if settings %}

The gateway is stopped and disabled:
  service.dead:
    - name: immich-gateway
    - enable: false
    - require: {{ included | json }}

The gateway's files are removed:
  systemd_unit.files_absent:
    - files:
      - /etc/systemd/system/immich-gateway.service
      - /etc/systemd/system/nftables.service.d/immich-gateway.conf
{%- for service in (settings.lookup.postgres.unit, settings.lookup.valkey.service) %}
      - /etc/systemd/system/{{ service }}.service.d/immich-gateway.conf
{%- endfor %}
      - /etc/immich-gateway.nft
    - require:
      - service: The gateway is stopped and disabled
{%- endif %}
