# Removes Immich's service, containers, compose project and secrets. The library and the model cache stay, with the
# formula's users that own them, unless immich:clean names their path. Images stay: `podman image prune --all` removes
# unused ones.
{%- from "immich/settings.jinja" import handed_down, settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set service = salt["immich_app.unit"](settings) %}
{%-   set project = salt["immich_identity.current"](settings).project_dir %}

Immich is stopped and disabled:
  immich_app.dead:
    - name: immich.service
    - directory: {{ project | json }}

What stays of the installation is recorded:
  immich_identity.kept:
    - settings: {{ handed_down | json }}
    - require:
      - Immich is stopped and disabled

The program that runs Immich's containers is absent:
  file.absent:
    - name: {{ service.program }}
    - require:
      - Immich is stopped and disabled

Immich's project directory is absent:
  file.absent:
    - name: {{ project | json }}
    - require:
      - Immich is stopped and disabled
      - What stays of the installation is recorded
{%-   set before = ["The program that runs Immich's containers is absent", "Immich's project directory is absent"] %}

{%-   for what, path, own_user in (("uploads", settings.upload_location, settings.server.own_user),
                              ("model_cache", settings.machine_learning.cache_location, settings.machine_learning.own_user)) %}
{%-     if settings.clean["delete_" ~ what] == path %}
{%-       set parts = settings.clean.delete_storage if what == "uploads" else [] %}
{%-       for part in parts %}

{{ (part ~ " is deleted, as immich:clean:delete_storage says") | json }}:
  immich_folder.absent:
    - name: {{ part | json }}
    - require:
      - Immich is stopped and disabled
    - require_in:
      - Immich's user {{ own_user.name }} is absent
{%-       endfor %}

Immich's {{ what | replace("_", " ") }} are deleted, as immich:clean:delete_{{ what }} says:
  immich_folder.absent:
    - name: {{ path | json }}
    - require:
      - Immich is stopped and disabled

Immich's user {{ own_user.name }} is absent:
  immich_system_user.absent:
    - name: {{ own_user.name | json }}
    - number: {{ own_user.id }}
    - require:
      - Immich's {{ what | replace("_", " ") }} are deleted, as immich:clean:delete_{{ what }} says
{%-       do before.append("Immich's user " ~ own_user.name ~ " is absent") %}
{%-     endif %}
{%-   endfor %}

# Last: by this file the next removal knows that Immich has been on this host.
Immich's unit is absent:
  systemd_unit.files_absent:
    - files: [/etc/systemd/system/immich.service]
    - require: {{ before | json }}
{%- endif %}
