# Podman, and the networks that exist independently of its compose projects. Depends on immich.podman.installed.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}

{%- for network in settings.podman.external_networks %}

Podman network {{ network.name }} is present:
{%-   if network.name == settings.network.name %}
  immich_identity.network_present:
    - name: {{ network.name | json }}
    - network: {{ network | json }}
{%-   else %}
  podman_network.present:
{%-     for key, value in network.items() if value is not none %}
    - {{ key }}: {{ value | json }}
{%-     endfor %}
{%-   endif %}
    - require:
      - sls: immich.podman.installed
{%- endfor %}
{%- endif %}
