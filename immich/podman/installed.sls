# The part of immich.podman that needs no network: Podman, the one program behind `podman compose`, and the directory of
# compose projects. Depends on immich.identity.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls, ["immich.identity"]) }}
{%- if settings %}

Podman is recorded as a component of this host:
  file.managed:
    - name: /var/lib/immich-formula/podman
    - contents: This file is managed by Salt (immich-formula). While it is there, immich.clean includes immich.podman.clean.
    - mode: "0600"
    - makedirs: true
    - dir_mode: "0700"
    - require:
      - sls: immich.identity

Podman and its compose provider are installed:
  pkg.installed:
    - pkgs: {{ settings.lookup.podman.packages | json }}
    - require:
      - Podman is recorded as a component of this host
{%- if settings.lookup.podman.compose_command[0] == "podman" %}

podman compose has one provider:
  file.managed:
    - name: /etc/containers/containers.conf.d/50-immich.conf
    - source: salt://immich/podman/files/50-immich.conf.j2
    - template: jinja
    - context:
        compose_provider: {{ settings.lookup.podman.compose_provider | json }}
    - mode: '0644'
    - makedirs: true
    - require:
      - pkg: Podman and its compose provider are installed
{%- endif %}

The directory of compose projects is present:
  file.directory:
    - name: {{ settings.podman.projects_dir | json }}
    - user: root
    - group: root
    - mode: '0755'
    - makedirs: true
    - require:
      - sls: immich.identity
{%- endif %}
