# Removes the timer, the service and the program that make backups. The backups stay, unless immich:clean:delete_backups
# names their directory.
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

{%-   set before = ["The restore drill's units are absent", "The backup's program is absent", "The backup's passfile is absent",
                    "The backup's hook is absent", "The backup's tmpfiles is absent"] %}
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
