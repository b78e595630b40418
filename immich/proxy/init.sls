# Caddy in front of Immich, with HTTPS: its package, and a site in a file of its own. Immich's port is closed to others only
# once the site has its certificate: immich.app waits for this (`before` in components.yaml). Depends on immich.identity.
{%- from "immich/settings.jinja" import before, handed_down, settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set caddy = settings.lookup.caddy %}
{%-   set at_the_end = settings.once_signed_up if "accounts" in settings.components else {} %}

The proxy is recorded as a component of this host:
  file.managed:
    - name: /var/lib/immich-formula/proxy
    - contents: This file is managed by Salt (immich-formula). While it is there, immich.clean includes immich.proxy.clean.
    - mode: "0600"
    - makedirs: true
    - dir_mode: "0700"
    - require:
      - sls: immich.identity

Caddy is installed:
  pkg.installed:
    - pkgs: {{ caddy.packages | json }}
    - require:
      - The proxy is recorded as a component of this host

Caddy is running:
  systemd_unit.running:
    - name: {{ caddy.service }}.service
    - require:
      - Caddy is installed

Immich's site is served by Caddy:
  immich_proxy.site_present:
    # While root alone reaches Immich, its firewall keeps Caddy out: the site need not change again in the same run.
    - settings: {{ dict(handed_down, **at_the_end) | json }}
    - require:
      - Caddy is running
    - require_in: {{ before | json }}
{%- endif %}
