# Roles.
{%- for n in range(pillar["size"]) %}
Role salt{{ n }} is present:
  pgsql_role.present:
    - name: salt{{ n }}
    - login: true
    - superuser: false
    - createdb: false
    - createrole: false
    - connection_limit: 10
    - password: Benchmark {{ n }}
{%- endfor %}
