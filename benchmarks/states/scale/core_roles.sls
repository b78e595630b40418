# Roles, with Salt's own state.
{%- for n in range(pillar["size"]) %}
Role core{{ n }} is present:
  postgres_user.present:
    - name: core{{ n }}
    - login: true
    - superuser: false
    - createdb: false
    - createroles: false
    - encrypted: scram-sha-256
    - password: Benchmark {{ n }}
    - user: postgres
{%- endfor %}
