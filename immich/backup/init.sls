# Backups of the database, and of the library with it: their configuration, their services, and the timer. The programs are of
# immich.programs. Requires the database.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set backup = salt["immich.backup_plan"](settings) %}
{%-   set library = salt["immich.library_backup_plan"](settings) %}
{%-   if not settings.postgres.here %}

pg_dump is installed:
  pkg.installed:
    - pkgs: {{ settings.lookup.postgres.client_packages | json }}
    - require:
      - sls: immich.postgres
{%-   endif %}

The directory of the backups is present:
  immich_backup.directory_present:
    - name: {{ settings.backup.directory | json }}
    - user: {{ backup.user | json }}
    - require:
      - sls: immich.postgres

The directory of the formula's programs' configuration is present:
  file.directory:
    - name: /etc/immich-formula
    - user: root
    - group: root
    - mode: "0755"
    - require:
      - sls: immich.identity

The backup's configuration is managed:
  file.managed:
    - name: {{ backup.files.config }}
    - contents: {{ backup.config | json }}
    - user: root
    - group: root
    - mode: "0644"
    - require:
      - The directory of the formula's programs' configuration is present

{%-   if backup.password_pillar %}

The backup's password is managed:
  immich_backup.passfile_managed:
    - name: {{ backup.files.passfile }}
    - password_pillar: {{ backup.password_pillar }}
    - user: {{ backup.user | json }}
    - require:
      - The directory of the formula's programs' configuration is present
      - sls: immich.postgres
{%-   else %}

The backup needs no password:
  file.absent:
    - name: {{ backup.files.passfile }}
    - require:
      - sls: immich.identity
{%-   endif %}

The lock of backup, restore and update is created at boot:
  file.managed:
    - name: {{ backup.files.tmpfiles }}
    - source: salt://immich/backup/files/tmpfiles.conf.jinja
    - template: jinja
    - context: {user: {{ backup.user | json }}}
    - mode: "0644"
    - require:
      - sls: immich.identity

The backup's unit is present:
  file.managed:
    - name: {{ backup.files.service }}
    - source: salt://immich/backup/files/immich-backup.service.jinja
    - template: jinja
    - context: {backup: {{ backup | json }}, library: {{ (library is not none) | json }}}
    - mode: "0644"
    - require:
      - sls: immich.identity

The backup's timer is present:
  file.managed:
    - name: {{ backup.files.timer }}
    - source: salt://immich/backup/files/immich-backup.timer.jinja
    - template: jinja
    - context: {schedule: {{ settings.backup.schedule | json }}, what: the backups of Immich's database}
    - mode: "0644"
    - require:
      - sls: immich.identity

{%-   if settings.backup.on_failure %}

The hook of a failed backup is present:
  file.managed:
    - name: {{ backup.files.hook }}
    - contents: {{ ("#!/bin/sh\n" ~ settings.backup.on_failure) | json }}
    - user: root
    - group: root
    - mode: "0700"
    - show_changes: false
    - require:
      - The directory of the formula's programs' configuration is present

The unit of a failed backup is present:
  file.managed:
    - name: {{ backup.files.failed_service }}
    - source: salt://immich/backup/files/immich-backup-failed.service.jinja
    - template: jinja
    - context: {backup: {{ backup | json }}, what: a backup of Immich's database}
    - mode: "0644"
    - require:
      - sls: immich.identity
{%-   else %}

No hook of a failed backup is present:
  systemd_unit.files_absent:
    - files: {{ [backup.files.failed_service, backup.files.hook] | json }}
    - require:
      - The backup's unit is present
{%-   endif %}

Backups are scheduled:
  immich_backup.scheduled:
    - name: immich-backup.timer
    - enabled: {{ settings.backup.enabled | json }}
    - require:
      - The directory of the backups is present
      - The backup's configuration is managed
      - The lock of backup, restore and update is created at boot
      - sls: immich.programs
      - The backup's unit is present
      - The backup's timer is present
      - {{ "The unit of a failed backup is present" if settings.backup.on_failure else "No hook of a failed backup is present" }}
      - {{ "The backup's password is managed" if backup.password_pillar else "The backup needs no password" }}

{%-   set drill = salt["immich.restore_drill_plan"](settings) %}
{%-   if settings.backup.restore_drill %}

The restore drill's unit is present:
  file.managed:
    - name: {{ drill.files.service }}
    - source: salt://immich/backup/files/immich-restore-drill.service.jinja
    - template: jinja
    - context: {drill: {{ drill | json }}}
    - mode: "0644"
    - require:
      - sls: immich.identity

The restore drill's timer is present:
  file.managed:
    - name: {{ drill.files.timer }}
    - source: salt://immich/backup/files/immich-backup.timer.jinja
    - template: jinja
    - context: {schedule: {{ settings.backup.restore_drill | json }}, what: the rehearsals of a restore}
    - mode: "0644"
    - require:
      - sls: immich.identity

{%-     if drill.on_failure %}

The unit of a failed restore drill is present:
  file.managed:
    - name: {{ drill.files.failed_service }}
    - source: salt://immich/backup/files/immich-backup-failed.service.jinja
    - template: jinja
    - context: {backup: {{ backup | json }}, what: a rehearsal of a restore}
    - mode: "0644"
    - require:
      - sls: immich.identity
    - require_in:
      - The restore drill is scheduled
{%-     else %}

The unit of a failed restore drill is absent:
  systemd_unit.files_absent:
    - files: {{ [drill.files.failed_service] | json }}
    - require:
      - The restore drill's unit is present
    - require_in:
      - The restore drill is scheduled
{%-     endif %}

The restore drill is scheduled:
  immich_backup.scheduled:
    - name: immich-restore-drill.timer
    - require:
      - Backups are scheduled
      - The restore drill's unit is present
      - The restore drill's timer is present
{%-   else %}

No restore drill is scheduled:
  immich_backup.dead:
    - name: immich-restore-drill.timer
    - require:
      - sls: immich.identity

The restore drill's units are absent:
  systemd_unit.files_absent:
    - files: {{ drill.files.values() | list | json }}
    - require:
      - No restore drill is scheduled
{%-   endif %}

{%-   if library %}

The programs of the library's backup are installed:
  pkg.installed:
    - pkgs: {{ library.packages | json }}
    - require:
      - sls: immich.postgres

The user that backs up the library is present:
  immich_system_user.present:
    - name: {{ library.user }}
    - number: {{ library.user_id }}
    - require:
      - sls: immich.identity
{%-     if library.local %}

The repository of the library's backup is a directory of its user:
  immich_backup.directory_present:
    - name: {{ library.local | json }}
    - user: {{ library.user }}
    - require:
      - The user that backs up the library is present
    - require_in:
      - The library's backup is loaded
{%-     endif %}

The configuration of the library's backup is managed:
  file.managed:
    - name: {{ library.files.config }}
    - contents: {{ library.config | json }}
    - user: root
    - group: root
    - mode: "0644"
    - require:
      - The directory of the formula's programs' configuration is present

The password of the library's backup is managed:
  immich_library_backup.secret_managed:
    - name: {{ library.files.password }}
    - pillar_path: {{ library.pillar }}:password
    - require:
      - The directory of the formula's programs' configuration is present

The login of the library's backup is managed:
  immich_library_backup.environment_managed:
    - name: {{ library.files.environment }}
    - pillar_path: {{ library.pillar }}:environment
    - require:
      - The directory of the formula's programs' configuration is present

{%-     set ssh = namespace(absent=[]) %}
{%-     if library.ssh %}

The library's backup goes over SSH to known hosts only:
  file.managed:
    - name: {{ library.files.ssh_config }}
    - contents: {{ library.ssh_config | json }}
    - user: root
    - group: root
    - mode: "0644"
    - require:
      - The directory of the formula's programs' configuration is present
    - require_in:
      - The library's backup is loaded
{%-     else %}
{%-       do ssh.absent.append(library.files.ssh_config) %}
{%-     endif %}
{%-     for key in ("ssh_key", "ssh_known_hosts") %}
{%-       if key in library.declared %}

The library's backup has its {{ key }}:
  immich_library_backup.secret_managed:
    - name: {{ library.files[key] }}
    - pillar_path: {{ library.pillar }}:{{ key }}
    - require:
      - The directory of the formula's programs' configuration is present
    - require_in:
      - The library's backup is loaded
{%-       else %}
{%-         do ssh.absent.append(library.files[key]) %}
{%-       endif %}
{%-     endfor %}
{%-     for file in ssh.absent %}

{{ file }} is absent:
  file.absent:
    - name: {{ file }}
    - require:
      - sls: immich.identity
{%-     endfor %}

The unit of the library's backup is present:
  file.managed:
    - name: {{ library.files.service }}
    - source: salt://immich/backup/files/immich-library-backup.service.jinja
    - template: jinja
    - context: {library: {{ library | json }}}
    - mode: "0644"
    - require:
      - sls: immich.identity

The unit of a failed backup of the library is present:
  file.managed:
    - name: {{ library.files.failed_service }}
    - source: salt://immich/backup/files/immich-library-backup-failed.service.jinja
    - template: jinja
    - context: {library: {{ library | json }}}
    - mode: "0644"
    - require:
      - sls: immich.identity

The library's backup is loaded:
  systemd_unit.loaded:
    - name: immich-library-backup.service
    - require:
      - Backups are scheduled
      - The programs of the library's backup are installed
      - The user that backs up the library is present
      - The configuration of the library's backup is managed
      - The password of the library's backup is managed
      - The login of the library's backup is managed
    # One that systemd has known before, and that was absent meanwhile, is not outdated for it.
    - watch:
      - The unit of the library's backup is present
      - The unit of a failed backup of the library is present
{%-   else %}

No backup of the library is running:
  immich_backup.service_dead:
    - name: immich-library-backup.service
    - require:
      - Backups are scheduled

The library's backup is absent:
  systemd_unit.files_absent:
    - files: {{ salt["immich.library_backup_files"]() | json }}
    - require:
      - No backup of the library is running
{%-   endif %}
{%- endif %}
