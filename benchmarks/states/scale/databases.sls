# Databases, with five extensions each.
{%- for n in range(pillar["size"]) %}
Database salt{{ n }} is present:
  pgsql_database.present:
    - name: salt{{ n }}
    - owner: salt{{ n }}
    - encoding: UTF8
{%- for extension in ("citext", "cube", "hstore", "pg_trgm", "unaccent") %}
Extension {{ extension }} is present in database salt{{ n }}:
  pgsql_extension.present:
    - name: {{ extension }}
    - database: salt{{ n }}
    - schema: public
{%- endfor %}
{%- endfor %}
