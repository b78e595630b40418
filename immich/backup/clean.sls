# Removes the timer, the services and the programs that make backups, with their secrets. The backups stay, unless
# immich:clean:delete_backups names their directory, and so does the library's repository.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set backup = salt["immich.backup_plan"](settings) %}

{%-   set drill = salt["immich.restore_drill_plan"](settings) %}

No restore drill runs or is scheduled:
  immich_backup.dead:
    - name: immich-restore-drill.timer

The restore drill's units are absent:
  systemd_unit.files_absent:
    - files: {{ drill.files.values() | list | json }}
    - require:
      - No restore drill runs or is scheduled

No backup runs or is scheduled:
  immich_backup.dead:
    - name: immich-backup.timer

The backup's units are absent:
  systemd_unit.files_absent:
    - files: {{ [backup.files.timer, backup.files.service, backup.files.failed_service] | json }}
    - require:
      - No backup runs or is scheduled

{%-   for file in ("program", "passfile", "hook", "tmpfiles") %}

The backup's {{ file }} is absent:
  file.absent:
    - name: {{ backup.files[file] }}
    - require:
      - The backup's units are absent
{%-   endfor %}

No backup of the library is running:
  immich_backup.service_dead:
    - name: immich-library-backup.service
    - require:
      - No backup runs or is scheduled

# The repository stays: it may be all that is left.
The library's backup is absent:
  systemd_unit.files_absent:
    - files: {{ salt["immich.library_backup_files"]() | json }}
    - require:
      - No backup of the library is running
{%-   set folders = [] %}
{%-   for folder in salt["immich.library_backup_files"](folders=true) %}
{%-     do folders.append(folder ~ " is absent") %}

{{ folder }} is absent:
  file.absent:
    - name: {{ folder }}
    - require:
      - The library's backup is absent
{%-   endfor %}

The user that backs up the library is absent:
  immich_system_user.absent:
    - name: immich-backup
    - number: 60885
    - require:
      - The library's backup is absent

{%-   set before = ["The library's backup is absent", "The user that backs up the library is absent",
                    "The restore drill's units are absent", "The backup's program is absent", "The backup's passfile is absent",
                    "The backup's hook is absent", "The backup's tmpfiles is absent"] + folders %}
{%-   if settings.clean.delete_backups == settings.backup.directory %}

The backups are deleted, as immich:clean:delete_backups says:
  immich_folder.absent:
    - name: {{ settings.backup.directory | json }}
    - require:
      - The backup's units are absent
{%-     do before.append("The backups are deleted, as immich:clean:delete_backups says") %}
{%-   endif %}

# Last: by this file the next removal knows that backups have been set up on this host.
The backup's config is absent:
  file.absent:
    - name: {{ backup.files.config }}
    - require: {{ before | json }}
{%- endif %}
