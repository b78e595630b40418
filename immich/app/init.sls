# Immich itself: compose project, secrets, images, and the service that runs them. Requires its network, PostgreSQL and
# Valkey; where those are managed elsewhere, only that they answer.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls, ["immich.identity", "immich.programs", "immich.podman", "immich.gateway", "immich.postgres", "immich.valkey"]) }}
{%- if settings %}

{#- Until they are migrated, folders and network are those of before. #}
{%-   set current = salt["immich_identity.current"](settings) %}
{%-   set former_network = current.network %}

# Where this SLS is applied, Immich is stopped before its network is recreated, and what differs from the record is
# migrated.
extend:
  The installation is the one on record:
    immich_identity:
      - migrates: true
  Podman network {{ settings.network.name }} is present:
    podman_network:
      - removed_containers: [immich-server, immich-machine-learning]
{%-   if former_network != settings.network.name %}
      - replaces: {{ former_network | json }}
{%-   endif %}
      - require:
        - Immich's former network is absent
{%-   set project = settings.project_dir %}
{%-   set compose_file = project ~ "/docker-compose.yml" %}
{%-   set service = salt["immich_app.unit"](settings) %}

{%-   set accounts = salt["immich_user.accounts"](settings) %}
{%-   for account in accounts %}

Immich's user {{ account.name }} is present:
  immich_app.account_present:
    - name: {{ account.name | json }}
    - number: {{ account.id }}
    - require:
      - sls: immich.identity
{%-   endfor %}

{%-   for what, part, path in (("library", "server", settings.upload_location),
                               ("model cache", "machine_learning", settings.machine_learning.cache_location)) %}
{%-     if part == "server" or settings.machine_learning.enabled %}
{%-       set owner = salt["immich_user.numbers"](current[part ~ "_user"]) %}

Immich's {{ what }} is present:
  immich_app.library_present:
    - name: {{ path | json }}
    - user: {{ owner.user }}
    - group: {{ owner.group }}
    - require:
      - sls: immich.identity
{%-       for account in accounts %}
      - Immich's user {{ account.name }} is present
{%-       endfor %}
{%-       if what != "library" %}
      - Immich's library is present
{%-       endif %}
{%-     endif %}
{%-   endfor %}

Immich's project directory is present:
  file.directory:
    - name: {{ project | json }}
    - user: root
    - group: root
    - mode: "0755"
    - require:
      - sls: immich.podman

Immich's secrets directory is present:
  file.directory:
    - name: {{ (project ~ "/secrets") | json }}
    - user: root
    - group: root
    - mode: "0700"
    - require:
      - Immich's project directory is present

{%-   for secret, service_of in (("db_password", "postgres"), ("redis_password", "valkey")) %}

Immich's secret {{ secret }} is present:
  file.managed:
    - name: {{ (project ~ "/secrets/" ~ secret) | json }}
    - contents_pillar: immich:{{ service_of }}:password
    - contents_newline: false
    - show_changes: false
    - user: {{ service.owner.server.user }}
    - group: {{ service.owner.server.group }}
    - mode: "0400"
    - require:
      - Immich's secrets directory is present
      # A container that starts with it is let in.
      - sls: immich.{{ service_of }}
{%-   endfor %}

# Before anything else changes: a wrong library, a version that Immich cannot go to, or an image that cannot be had stops
# nothing and touches no password.
Immich can go to the version that is asked for:
  immich_update.possible:
    - settings: {{ settings | json }}
    - require:
      - Immich's library is present

Immich's images are present:
  immich_app.images_present:
    - images: {{ service.images | json }}
    - require:
      - Immich can go to the version that is asked for
      - pkg: Podman and its compose provider are installed

Immich's update is prepared:
  immich_update.prepared:
    - settings: {{ settings | json }}
    - require:
      - Immich's images are present

Immich is stopped for what cannot change while it runs:
  immich_app.stopped_for_changes:
    - name: immich.service
    - settings: {{ settings | json }}
    - require:
      - Immich's update is prepared
    - require_in:
      - sls: immich.postgres
      - sls: immich.valkey

# Before the network of the pillar is present, which may have the subnet of the former one.
Immich's former network is absent:
  immich_identity.network_replaced:
    - require:
      - Immich is stopped for what cannot change while it runs

Immich's project, tables and queues are migrated:
  immich_identity.migrated:
    - require:
      - Immich's project directory is present
      - sls: immich.postgres
      - sls: immich.valkey

Immich's compose file is managed:
  immich_app.compose_file_managed:
    - name: {{ compose_file | json }}
    - settings: {{ settings | json }}
    - require:
      - Immich's project directory is present
      - Immich's project, tables and queues are migrated

The program that runs Immich's containers is present:
  file.managed:
    - name: {{ service.program }}
    - source: salt://immich/app/files/immich-stack
    - mode: "0755"
    - makedirs: true
    - require:
      - sls: immich.programs

Immich's unit is present:
  file.managed:
    - name: /etc/systemd/system/immich.service
    - source: salt://immich/app/files/immich.service.jinja
    - template: jinja
    - context: {app: {{ service | json }}}
    - mode: "0644"
    - require:
      - Immich's compose file is managed

Immich is running:
  immich_app.running:
    - name: immich.service
    - settings: {{ settings | json }}
    - require:
      - sls: immich.valkey
      - Immich's compose file is managed
      - The program that runs Immich's containers is present
      - Immich's unit is present
      - Immich's secret db_password is present
      - Immich's secret redis_password is present

Immich's former Valkey passwords are invalid:
  immich_valkey.former_passwords_absent:
    - user: {{ settings.valkey.user | json }}
    - connection: {{ salt["immich_valkey.logins"](settings) | json }}
    - require:
      - Immich is running

The installation is recorded:
  immich_identity.recorded:
    - require:
      - Immich is running

Immich is still active after a failed run:
  immich_app.still_active:
    - name: immich.service
    - onfail:
      - Immich is running
{%- endif %}
