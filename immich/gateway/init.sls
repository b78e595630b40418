# The address on which PostgreSQL and Valkey listen for containers (host.containers.internal), present from boot on, and
# the firewall table that protects them and Immich's containers. Depends on immich.podman.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%- set gateway = salt["immich_gateway.desired"](settings) %}
{%- set context = {"address": gateway.address, "network": gateway.network, "ports": gateway.ports,
                   "host_ports": gateway.host_ports, "sign_up": gateway.sign_up,
                   "metrics_allow": gateway.metrics_allow} %}

The gateway's firewall rules are written:
  file.managed:
    - name: /etc/immich-gateway.nft
    - source: salt://immich/gateway/files/immich-gateway.nft.j2
    - template: jinja
    - context: {{ context | json }}
    - mode: '0644'
    - require:
      - sls: immich.podman

The gateway's unit is installed:
  file.managed:
    - name: /etc/systemd/system/immich-gateway.service
    - source: salt://immich/gateway/files/immich-gateway.service.j2
    - template: jinja
    - context: {{ context | json }}
    - mode: '0644'
    - require:
      - sls: immich.podman

A restart of nftables keeps the gateway's firewall:
  file.managed:
    - name: /etc/systemd/system/nftables.service.d/immich-gateway.conf
    - source: salt://immich/gateway/files/nftables.conf
    - mode: '0644'
    - makedirs: true
    - require:
      - sls: immich.podman

{%- for service in gateway.services %}

{{ (service ~ " starts after the gateway") | json }}:
  file.managed:
    - name: {{ ("/etc/systemd/system/" ~ service ~ ".service.d/immich-gateway.conf") | json }}
    - source: salt://immich/gateway/files/service.conf.j2
    - template: jinja
    - context: {{ context | json }}
    - mode: '0644'
    - makedirs: true
    - require:
      - sls: immich.podman
{%- endfor %}

The gateway comes up at boot:
  systemd_unit.enabled:
    - name: immich-gateway.service
    - require:
      - file: The gateway's unit is installed

The gateway is active:
  immich_gateway.active:
    - address: {{ gateway.address }}
    - network: {{ gateway.network | json }}
    - ports: {{ gateway.ports | json }}
    - host_ports: {{ gateway.host_ports | json }}
    - require:
      - systemd_unit: The gateway comes up at boot
    - watch:
      - file: The gateway's firewall rules are written
      - file: The gateway's unit is installed
      - file: A restart of nftables keeps the gateway's firewall
{%- endif %}
