# Removes Immich's record from pg_hba.conf and the gateway's address from the addresses on which PostgreSQL listens. The
# server stays, and so do database and role, unless immich:clean:delete_database names the database. Includes
# immich.app.clean and immich.backup.clean.
{%- from "immich/settings.jinja" import included, settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%- set postgres = settings.postgres %}
{%- if postgres.here %}

Immich may not log in from its network:
  pgsql_hba.absent:
    - name: {{ postgres.database | json }}
    - connection: {{ postgres.connection | json }}
    - require: {{ included | json }}

PostgreSQL has the settings of before immich:postgres:tuning:
  immich_postgres.tuning_absent:
    - connection: {{ postgres.connection | json }}
    - require:
      - pgsql_hba: Immich may not log in from its network

PostgreSQL does not listen at the gateway's address:
  pgsql_config.absent:
    - include:
        listen_addresses: [{{ settings.gateway_address | json }}]
    - service: {{ settings.lookup.postgres.unit | json }}
    - connection: {{ postgres.connection | json }}
    - require:
      - immich_postgres: PostgreSQL has the settings of before immich:postgres:tuning
{%- endif %}
{%- if settings.clean.delete_database == postgres.database %}

Immich has no database:
  pgsql_database.absent:
    - name: {{ postgres.database | json }}
    - force: true
    - connection: {{ postgres.connection | json }}
    - require: {{ included | json }}

Immich has no role in PostgreSQL:
  pgsql_role.absent:
    - name: {{ postgres.user | json }}
    - reassign_to: {{ postgres.connection.user | json }}
    - connection: {{ postgres.connection | json }}
    - require:
      - pgsql_database: Immich has no database
{%- endif %}

{%- set before = included | list %}
{%- if postgres.here %}
{%-   do before.append("PostgreSQL does not listen at the gateway's address") %}
{%- endif %}
{%- if settings.clean.delete_database == postgres.database %}
{%-   do before.append("Immich has no role in PostgreSQL") %}
{%- endif %}

# Last: by this file the next removal knows that PostgreSQL is to be looked at.
PostgreSQL is no longer recorded as a component of this host:
  file.absent:
    - names: [/var/lib/immich-formula/vectorchord.json, /var/lib/immich-formula/postgres]
    - require: {{ before | json }}
{%- endif %}
