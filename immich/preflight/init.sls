# The checks before a run that deploys Immich changes the host's services: library and version are accepted, the images
# are present, and an update has its backup. If the library is wrong, or Immich cannot go to the version, or an image
# cannot be pulled, nothing is stopped and no password is changed. Applied alone it downloads and backs up, and Immich
# keeps serving. Depends on immich.identity, immich.programs and immich.podman.installed.
{%- from "immich/settings.jinja" import handed_down, settings, start with context %}
{{ start(sls) }}
{%- if settings %}

{%-   set images = salt["immich_app.unit"](settings).images %}
{%-   set written = salt["immich_identity.folders"](settings) %}
{%-   for account in written.accounts %}

Immich's user {{ account.name }} is present:
  immich_system_user.present:
    - name: {{ account.name | json }}
    - number: {{ account.id }}
    - require:
      - sls: immich.identity
{%-   endfor %}

{%-   for folder in written.folders %}

Immich's {{ folder.what }} is present:
  immich_folder.present:
    - name: {{ folder.path | json }}
    - user: {{ folder.user }}
    - group: {{ folder.group }}
    - require:
      - sls: immich.identity
{%-     for account in written.accounts %}
      - Immich's user {{ account.name }} is present
{%-     endfor %}
{%-     if not loop.first %}
      - Immich's library is present
{%-     endif %}
{%-   endfor %}

Immich can go to the version that is asked for:
  immich_update.possible:
    - settings: {{ handed_down | json }}
    - require:
      - Immich's library is present

Immich's images are present:
  immich_app.images_present:
    - images: {{ images | json }}
    - require:
      - Immich can go to the version that is asked for
      - sls: immich.podman.installed

Immich's update is prepared:
  immich_update.prepared:
    - settings: {{ handed_down | json }}
    - require:
      - Immich's images are present
{%-   if "immich.programs" in settings.includes[sls] %}
      # What the backup's program imports, also one of a former formula.
      - sls: immich.programs
{%-   endif %}
{%- endif %}
