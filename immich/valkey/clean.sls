# Removes Immich's ACL user, the gateway's address, the formula's limits and finally the formula's own login from
# Valkey. The server, other users, the ACL file and the password of `default` stay, so that the server is not open
# afterwards. Includes immich.app.clean.
{%- from "immich/settings.jinja" import included, settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%- set connection = salt["immich_valkey.logins"](settings) %}

Immich has no Valkey user:
  valkey_acl.absent:
    - name: {{ settings.valkey.user | json }}
    - connection: {{ connection | json }}
    - require: {{ included | json }}
{%- if settings.valkey.here %}

Valkey does not listen at the gateway's address:
  valkey_config.absent:
    - config_file: {{ settings.lookup.valkey.config_file | json }}
    - include:
        bind: [{{ ("-" ~ settings.gateway_address) | json }}]
    - connection: {{ connection | json }}
    - require:
      - valkey_acl: Immich has no Valkey user

Valkey's memory limit is as before:
  immich_valkey.memory_as_before:
    - config_file: {{ settings.lookup.valkey.config_file | json }}
    - connection: {{ connection | json }}
    - require:
      - valkey_config: Valkey does not listen at the gateway's address

Valkey has its package's stop timeout:
  systemd_unit.files_absent:
    - files:
      - {{ ("/etc/systemd/system/" ~ settings.lookup.valkey.service ~ ".service.d/immich-stop.conf") | json }}

The formula has no Valkey login:
  immich_valkey.login_absent:
    - connection: {{ connection | json }}
    - require:
      - immich_valkey: Valkey's memory limit is as before
      - systemd_unit: Valkey has its package's stop timeout
{%- endif %}
{%- endif %}
