# ACL users, a state each.
{%- for n in range(pillar["size"]) %}
ACL user app{{ n }} is present:
  valkey_acl.present:
    - name: app{{ n }}
    - password: Benchmark {{ n }}
    - rules: '~app{{ n }}:* &app{{ n }}:* +@read +@write -@dangerous'
    - connection: {port: 6401}
{%- endfor %}
