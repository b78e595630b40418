# Removes Immich's network, if nothing else uses it, and the choice of a compose provider. Podman itself, other networks
# and the directory of compose projects stay.
{%- from "immich/settings.jinja" import included, settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set current = salt["immich_identity.current"](settings) %}

Podman network {{ current.network }} is absent:
  podman_network.absent:
    - name: {{ current.network | json }}
    - keep_used: true
    - removed_containers: {{ salt["immich_app.containers"](current.project_dir) | json }}
    - require: {{ included | json }}

podman compose has its own choice of provider:
  file.absent:
    - name: /etc/containers/containers.conf.d/50-immich.conf

Podman is no longer recorded as a component of this host:
  file.absent:
    - name: /var/lib/immich-formula/podman
    - require:
      - Podman network {{ current.network }} is absent
      - podman compose has its own choice of provider
{%- endif %}
