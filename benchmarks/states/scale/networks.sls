# Podman networks.
{%- for n in range(pillar["size"]) %}
Network salt{{ n }} is present:
  podman_network.present:
    - name: salt{{ n }}
    - subnet: 10.100.{{ n }}.0/24
    - gateway: 10.100.{{ n }}.1
{%- endfor %}
