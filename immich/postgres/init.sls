# PostgreSQL with Immich's role, its database and the extensions in it; if this host has Immich, it listens on the gateway's
# address in addition to its other addresses. On a server that is managed elsewhere, only role, database and extensions.
# Depends on immich.identity, and on immich.gateway if the server is managed and this host has Immich.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%- set postgres = settings.postgres %}
{%- set managed = postgres.managed %}
{%- set reached = managed and settings.listen_addresses %}
{%- set host = settings.lookup.postgres %}
{%- set declared = salt["immich_postgres.declared"](settings) %}

PostgreSQL is recorded as a component of this host:
  file.managed:
    - name: /var/lib/immich-formula/postgres
    - contents: This file is managed by Salt (immich-formula). While it is there, immich.clean includes immich.postgres.clean.
    - mode: "0600"
    - makedirs: true
    - dir_mode: "0700"
    - require:
      - sls: immich.identity
{%- if managed %}

PostgreSQL is installed:
  pkg.installed:
    - pkgs: {{ (host.packages + host.pgvector_packages) | json }}
    - require:
      - file: PostgreSQL is recorded as a component of this host
{%- if host.initdb_command %}

PostgreSQL has a data directory:
  cmd.run:
    - name: {{ host.initdb_command | json }}
    - creates: {{ (host.data_dir ~ "/PG_VERSION") | json }}
    - require:
      - pkg: PostgreSQL is installed
    - require_in:
      - systemd_unit: PostgreSQL is running
{%- endif %}

PostgreSQL is running:
  systemd_unit.running:
    - names: {{ [host.service ~ ".service", host.unit ~ ".service"] | unique | list | json }}
    - require:
      - pkg: PostgreSQL is installed
{%- if "immich.gateway" in settings.includes[sls] %}
      - sls: immich.gateway
{%- endif %}

{%- if postgres.vectorchord.package %}

VectorChord is installed:
  immich_postgres.vectorchord_installed:
    - package: {{ postgres.vectorchord.package | json }}
    - hash: {{ postgres.vectorchord.hash | json }}
    - service: {{ host.unit | json }}
    - connection: {{ postgres.connection | json }}
    - require:
      - systemd_unit: PostgreSQL is running
    - require_in:
      - immich_postgres: PostgreSQL is set up for Immich
{%- endif %}

PostgreSQL is set up for Immich:
  immich_postgres.server_configured:
    - listen_addresses: {{ settings.listen_addresses | json }}
    - database: {{ postgres.database | json }}
    - vector_extension: {{ postgres.vector_extension | json }}
    - tuning: {{ postgres.tuning | json }}
    - service: {{ host.unit | json }}
    - connection: {{ postgres.connection | json }}
    - require:
      - systemd_unit: PostgreSQL is running
{%- endif %}

Immich has a role in PostgreSQL:
  pgsql_role.present:
    - name: {{ postgres.user | json }}
{%- for key, value in declared.role.items() %}
    - {{ key }}: {{ value | json }}
{%- endfor %}
    - connection: {{ postgres.connection | json }}
    - require:
      - sls: immich.bootstrap
      - file: PostgreSQL is recorded as a component of this host
{%- if managed %}
      - immich_postgres: PostgreSQL is set up for Immich
{%- endif %}

Immich has a database of its own:
  pgsql_database.present:
    - name: {{ postgres.database | json }}
{%- for key, value in declared.database.items() %}
    - {{ key }}: {{ value | json }}
{%- endfor %}
    - connection: {{ postgres.connection | json }}
    - require:
      - pgsql_role: Immich has a role in PostgreSQL
{%- if reached %}

Immich may log in to its database from its network:
  pgsql_hba.present:
    - name: {{ postgres.database | json }}
{%- for key, value in declared.hba_record.items() %}
    - {{ key }}: {{ value | json }}
{%- endfor %}
    - connection: {{ postgres.connection | json }}
    - require:
      - pgsql_database: Immich has a database of its own
{%- endif %}

Immich's database has its extensions:
  immich_postgres.extensions_present:
    - database: {{ postgres.database | json }}
    - vector_extension: {{ postgres.vector_extension | json }}
    - connection: {{ postgres.connection | json }}
    - require:
      - pgsql_database: Immich has a database of its own
{%- if reached %}
      - pgsql_hba: Immich may log in to its database from its network
{%- endif %}
{%- endif %}
