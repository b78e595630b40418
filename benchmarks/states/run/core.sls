# Immich on one host with the states that come with Salt alone, as far as these cover it: the same packages, directories,
# files, units, role, database and extensions as benchmarks/playbooks/run. Podman's network is a command, which Salt has
# no state for, and Valkey's users are a file that is not compared with what the server holds.
{%- import_yaml "benchmarks/playbooks/run/vars.yml" as vars %}
{%- set context = {
      "app": vars.app, "backup": vars.backup, "library": vars.library, "compose_provider": vars.compose_provider, "user": vars.user,
      "schedule": vars.schedule, "what": vars.what, "gateway": vars.gateway, "network": vars.network,
      "ports": vars.ports, "timezone": vars.timezone, "database": vars.database, "acl_rules": vars.acl_rules,
      "log_level": pillar["log_level"],
      "admin_sha256": salt["hashutil.sha256_digest"](vars.valkey_admin_password),
      "immich_sha256": salt["hashutil.sha256_digest"](vars.valkey_password),
    } %}

The packages are installed:
  pkg.installed:
    - pkgs: {{ vars.packages | json }}

{%- for directory in vars.directories %}
{{ directory.path }}:
  file.directory:
    - user: {{ directory.owner }}
    - mode: "{{ directory.mode }}"
{%- endfor %}

{%- for program in vars.programs %}
{{ program.dest }}:
  file.managed:
    - source: salt://{{ program.src }}
    - mode: "{{ program.mode }}"
{%- endfor %}

{%- for file in vars.configuration + vars.gateway_files + vars.units %}
{{ file.dest }}:
  file.managed:
    - source: salt://{{ file.src }}
    - template: jinja
    - context: {{ context | json }}
    - mode: "0644"
{%- endfor %}

The network is present:
  cmd.run:
    - name: >-
        podman network create --subnet={{ vars.network.subnet }} --gateway={{ vars.network.gateway }}
        --interface-name={{ vars.network.interface_name }} --opt=isolate=strict {{ vars.network.name }}
    - unless: podman network exists {{ vars.network.name }}

The gateway is active:
  service.running:
    - name: immich-gateway
    - enable: true
    - reload: true
    - watch:
{%- for file in vars.gateway_files %}
      - file: {{ file.dest }}
{%- endfor %}

PostgreSQL listens at the gateway:
  file.managed:
    - name: /etc/postgresql/17/main/conf.d/immich.conf
    - contents: listen_addresses = 'localhost, {{ vars.gateway }}'
    - mode: "0644"

Immich may log in from its network:
  file.append:
    - name: /etc/postgresql/17/main/pg_hba.conf
    - text: host {{ vars.database }} immich {{ vars.network.subnet }} scram-sha-256

PostgreSQL is running:
  service.running:
    - name: postgresql@17-main
    - watch:
      - file: PostgreSQL listens at the gateway
      - file: Immich may log in from its network

Immich's role is present:
  postgres_user.present:
    - name: immich
    - password: {{ vars.postgres_password }}
    - encrypted: scram-sha-256
    - login: true
    - superuser: false
    - createdb: false
    - createroles: false
    - replication: false
    - user: postgres

Immich's database is present:
  postgres_database.present:
    - name: {{ vars.database }}
    - owner: immich
    - encoding: UTF8
    - user: postgres

{%- for extension in vars.extensions %}
Extension {{ extension }} is present:
  postgres_extension.present:
    # Quoted, as the state quotes nothing.
    - name: {{ '"%s"' | format(extension) if "-" in extension else extension }}
    - maintenance_db: {{ vars.database }}
    - schema: public
    - user: postgres
{%- endfor %}

Valkey's users are listed:
  file.managed:
    - name: /etc/valkey/users.acl
    - source: salt://benchmarks/playbooks/run/templates/users.acl.j2
    - template: jinja
    - context: {{ context | json }}
    - user: valkey
    - group: valkey
    - mode: "0640"

{%- for key, value in (("bind", "127.0.0.1 -::1 -" ~ vars.gateway), ("aclfile", "/etc/valkey/users.acl")) %}
Valkey's setting {{ key }}:
  file.replace:
    - name: /etc/valkey/valkey.conf
    - pattern: ^{{ key }}\s.*$
    - repl: {{ key }} {{ value }}
    - append_if_not_found: true
{%- endfor %}

Valkey is running:
  service.running:
    - name: valkey-server
    - enable: true
    - watch:
      - file: Valkey's users are listed
      - file: Valkey's setting bind
      - file: Valkey's setting aclfile

{%- for name, password in vars.secrets.items() %}
Secret {{ name }} is present:
  file.managed:
    - name: {{ vars.app.directory }}/secrets/{{ name }}
    - contents: {{ password | json }}
    - contents_newline: false
    - show_changes: false
    - mode: "0400"
{%- endfor %}

The compose file is present:
  file.managed:
    - name: {{ vars.app.directory }}/docker-compose.yml
    - source: salt://benchmarks/playbooks/run/templates/docker-compose.yml.j2
    - template: jinja
    - context: {{ context | json }}
    - mode: "0644"

Immich is running:
  service.running:
    - name: immich
    - enable: true
    - reload: true
    - watch:
      - file: The compose file is present

Backups are scheduled:
  service.running:
    - name: immich-backup.timer
    - enable: true
