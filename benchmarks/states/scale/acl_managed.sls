# ACL users, all in one state.
The ACL users are present:
  valkey_acl.managed:
    - connection: {port: 6404}
    - users:
{%- for n in range(pillar["size"]) %}
        - name: app{{ n }}
          password: Benchmark {{ n }}
          rules: '~app{{ n }}:* &app{{ n }}:* +@read +@write -@dangerous'
{%- endfor %}
