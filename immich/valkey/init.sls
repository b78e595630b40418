# Valkey with Immich's ACL user and those of the pillar: passwords only as SHA-256, users in an ACL file, with limits of its
# memory and of the time that it takes to stop; if this host has Immich, it listens on the gateway's address in addition to
# its other addresses. On a server that is managed elsewhere, only the users. Depends on immich.identity, and on
# immich.gateway if the server is managed and this host has Immich.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%- set valkey = settings.lookup.valkey %}
{%- set managed = settings.valkey.managed %}
{%- set connection = salt["immich_valkey.logins"](settings) %}
{%- if managed %}

Valkey is installed:
  pkg.installed:
    - pkgs: {{ valkey.packages | json }}
    - require:
      - sls: immich.identity

# Before anything waits for the server: from here on a restart of one that a script keeps busy comes to an end.
Valkey has a stop timeout:
  file.managed:
    - name: {{ ("/etc/systemd/system/" ~ valkey.service ~ ".service.d/immich-stop.conf") | json }}
    - source: salt://immich/valkey/files/stop.conf.jinja
    - template: jinja
    - context: {seconds: {{ settings.valkey.stop_timeout }}}
    - mode: "0644"
    - makedirs: true
    - require:
      - pkg: Valkey is installed
{%- if "immich.gateway" in settings.includes[sls] %}
      - sls: immich.gateway
{%- endif %}

systemd has loaded Valkey's stop timeout:
  systemd_unit.loaded:
    - name: {{ (valkey.service ~ ".service") | json }}
    - watch:
      - file: Valkey has a stop timeout

# A Valkey that serves at another port is never moved: immich.bootstrap.host. One that was just installed is.
Valkey's configuration has the declared port:
  valkey_config.in_file:
    - config_file: {{ valkey.config_file | json }}
    - settings: {port: {{ settings.valkey.port }}}
    - require:
      - systemd_unit: systemd has loaded Valkey's stop timeout

Valkey listens at the declared port:
  cmd.run:
    - name: {{ ("systemctl reset-failed " ~ valkey.service ~ "; exec systemctl restart " ~ valkey.service) | json }}
    - onchanges:
      - valkey_config: Valkey's configuration has the declared port

Valkey is running:
  systemd_unit.running:
    - name: {{ (valkey.service ~ ".service") | json }}
    - require:
      - cmd: Valkey listens at the declared port
      - sls: immich.identity

No client uses Valkey's default user without a password:
  immich_valkey.no_client_without_password:
    - secure_default: {{ settings.valkey.secure_default | json }}
    - connection: {{ connection | json }}
    - require:
      - systemd_unit: Valkey is running

# With a leading dash Valkey starts even if the address is not there, whatever becomes of the gateway.
Valkey listens at the gateway's address and keeps its users in an ACL file:
  valkey_config.managed:
    - config_file: {{ valkey.config_file | json }}
{%- if settings.listen_addresses %}
    - include:
        bind: [{{ ("-" ~ settings.gateway_address) | json }}]
{%- endif %}
    - acl_file: {{ valkey.acl_file | json }}
    - user: {{ valkey.user | json }}
    - group: {{ valkey.group | json }}
    - service: {{ valkey.service | json }}
    - connection: {{ connection | json }}
    - require:
      - immich_valkey: No client uses Valkey's default user without a password

The formula has a Valkey login of its own:
  immich_valkey.login_present:
    - connection: {{ connection | json }}
    - require:
      - valkey_config: Valkey listens at the gateway's address and keeps its users in an ACL file

Valkey's memory is bounded:
  immich_valkey.memory_bounded:
    - config_file: {{ valkey.config_file | json }}
    - maxmemory: {{ settings.valkey.maxmemory | json }}
    - connection: {{ connection | json }}
    - require:
      - immich_valkey: The formula has a Valkey login of its own
{%- endif %}

The Valkey users are as listed:
  immich_valkey.users_managed:
    - users: {{ salt["immich_valkey.users"](settings) | json }}
    - connection: {{ connection | json }}
    - require:
      - sls: immich.bootstrap
      - sls: immich.identity
{%- if managed %}
      - immich_valkey: The formula has a Valkey login of its own
{%- endif %}
{%- endif %}
