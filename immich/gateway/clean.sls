# Takes the gateway's address and firewall away, after the services that listen there: that of PostgreSQL and Valkey is
# included.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{#- Of a PostgreSQL that is managed elsewhere nothing is removed: that SLS may be empty, which Salt takes for missing. #}
{%- set before = [] %}
{%- for each in settings.includes[sls] if settings.postgres.managed or each != "immich.postgres.clean" %}
{%-   do before.append({"sls": each}) %}
{%- endfor %}

The gateway is stopped and stays so:
  service.dead:
    - name: immich-gateway
    - enable: false
    - require: {{ before | json }}

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
      - service: The gateway is stopped and stays so
{%- endif %}
