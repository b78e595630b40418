# Databases with five extensions each, with Salt's own states.
{%- for n in range(pillar["size"]) %}
Database core{{ n }} is present:
  postgres_database.present:
    - name: core{{ n }}
    - owner: core{{ n }}
    - encoding: UTF8
    - user: postgres
{%- for extension in ("citext", "cube", "hstore", "pg_trgm", "unaccent") %}
Extension {{ extension }} is present in database core{{ n }}:
  postgres_extension.present:
    - name: {{ extension }}
    - maintenance_db: core{{ n }}
    - schema: public
    - user: postgres
{%- endfor %}
{%- endfor %}
