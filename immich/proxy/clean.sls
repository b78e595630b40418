# Removes Immich's site from Caddy. Caddy itself, its other sites and the certificates that it got stay.
{%- from "immich/settings.jinja" import handed_down, settings, start with context %}
{{ start(sls) }}
{%- if settings %}

Caddy has no site for Immich:
  immich_proxy.site_absent:
    - settings: {{ handed_down | json }}

The proxy is no longer recorded as a component of this host:
  file.absent:
    - name: /var/lib/immich-formula/proxy
    - require:
      - Caddy has no site for Immich
{%- endif %}
