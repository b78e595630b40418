# The programs on the host: the one that runs Immich's containers, the one that makes backups, and what they import, which
# they share with Salt's modules. Together, so that neither runs with a library of another version: an update's backup is made
# before anything else of immich.backup is applied. Depends on immich.identity.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}

The library of the host's programs is present:
  # One state for all packages: after each that changes something, Salt reloads all modules.
  file.recurse:
    - name: /usr/local/lib/immich-formula
    - source: salt://_utils
    - include_pat: {{ ("E@^(" ~ salt["immich_settings.program_library"]() | join("|") | replace(".", "[.]") ~ ")$") | json }}
    # What Python has written, and the programs, which lie beside the packages.
    - exclude_pat: E@(^|/)__pycache__(/|$)|^[^/]*$
    - clean: true
    - dir_mode: "0755"
    - file_mode: "0644"
    - require:
      - sls: immich.identity
{%-   for component, program, does in (("app", "immich-stack", "runs Immich's containers"), ("backup", "immich-backup", "makes backups"),
          ("backup", "immich-library-backup", "backs up the library"))
        if component in settings.components and (program != "immich-library-backup" or salt["immich.library_backup_plan"](settings)) %}

The program that {{ does }} is present:
  file.managed:
    - name: /usr/local/lib/immich-formula/{{ program }}
    - source: salt://immich/{{ component }}/files/{{ program }}
    - mode: "0755"
    - require:
      - The library of the host's programs is present
{%-   endfor %}
{%- endif %}
