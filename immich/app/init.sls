# Immich itself: compose project, secrets, and the service that runs them. Requires the checks before any change, its
# network, PostgreSQL and Valkey; if those are managed elsewhere, only that they answer.
{%- from "immich/settings.jinja" import handed_down, settings, start with context %}
{{ start(sls) }}
{%- if settings %}

{%-   set project = settings.project_dir %}
{%-   set compose_file = project ~ "/docker-compose.yml" %}
{%-   set service = salt["immich_app.unit"](settings) %}

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
      # A container that starts with it can authenticate.
      - sls: immich.{{ service_of }}
{%-   endfor %}

Immich's project, tables and queues are migrated:
  immich_identity.migrated:
    - settings: {{ handed_down | json }}
    - require:
      - Immich's project directory is present
      - sls: immich.postgres
      - sls: immich.valkey

{%-   if settings.server.settings_managed %}

Immich's own settings are as declared:
  immich_app.server_settings_managed:
    - name: {{ (project ~ "/secrets/server_settings") | json }}
    - settings: {{ handed_down | json }}
    - user: {{ service.owner.server.user }}
    - group: {{ service.owner.server.group }}
    - require:
      - Immich's secrets directory is present
      - Immich's project, tables and queues are migrated
    - require_in:
      - Immich's compose file is managed
{%-   endif %}
{%-   if settings.server.trusted %}

The certificates that Immich trusts are present:
  immich_app.certificates_managed:
    - name: {{ (project ~ "/secrets/ca_certificates") | json }}
    - files: {{ settings.server.trusted | json }}
    - user: {{ service.owner.server.user }}
    - group: {{ service.owner.server.group }}
    - require:
      - Immich's secrets directory is present
    - require_in:
      - Immich's compose file is managed
{%-   endif %}

{%-   if settings.valkey.tls %}

Immich's way to Valkey by TLS is present:
  file.managed:
    - name: /usr/local/lib/immich-formula/valkey-tls.cjs
    - source: salt://immich/app/files/valkey-tls.cjs
    - mode: "0644"
    - require:
      - sls: immich.programs
    - require_in:
      - Immich's compose file is managed
{%-   endif %}

Immich's compose file is managed:
  immich_app.compose_file_managed:
    - name: {{ compose_file | json }}
    - settings: {{ handed_down | json }}
    - require:
      - Immich's project directory is present
      - Immich's project, tables and queues are migrated

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
    - settings: {{ handed_down | json }}
    - require:
      - sls: immich.valkey
      # Without its firewall others would reach it, who must not before somebody has signed up.
      - sls: immich.gateway
      - Immich's compose file is managed
      - sls: immich.programs
      - Immich's unit is present
      - Immich's secret db_password is present
      - Immich's secret redis_password is present

# Not before: a container that was made with them cannot be started again without them.
{%-   for name, there in (("server_settings", settings.server.settings_managed), ("ca_certificates", settings.server.trusted)) %}
{%-     set file = project ~ "/secrets/" ~ name %}
{%-     if not there and salt["file.file_exists"](file) %}

Immich's secret {{ name }} is absent:
  file.absent:
    - name: {{ file | json }}
    - require:
      - Immich is running
{%-     endif %}
{%-   endfor %}

{%-   if not settings.valkey.tls and salt["file.file_exists"]("/usr/local/lib/immich-formula/valkey-tls.cjs") %}

Immich's way to Valkey by TLS is absent:
  file.absent:
    - name: /usr/local/lib/immich-formula/valkey-tls.cjs
    - require:
      - Immich is running
{%-   endif %}

Immich's former Valkey passwords are invalid:
  immich_valkey.former_passwords_absent:
    - user: {{ settings.valkey.user | json }}
    - connection: {{ salt["immich_valkey.logins"](settings) | json }}
    - require:
      - Immich is running

The installation is recorded:
  immich_identity.recorded:
    - settings: {{ handed_down | json }}
    - require:
      - Immich is running

Immich is still active after a failed run:
  immich_app.still_active:
    - name: immich.service
    - onfail:
      - Immich is running
{%- endif %}
