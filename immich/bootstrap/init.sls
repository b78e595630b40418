# Installs the libraries into Salt's Python and the formula's modules on the minion, using only core states, and checks
# the pillar. If both are present, only the check of the pillar remains. Depends on nothing.
{%- from "immich/settings.jinja" import ready with context %}
{%- import_yaml "immich/osfamilymap.yaml" as osfamilymap %}
{%- import_yaml "immich/components.yaml" as components %}
{%- set python = grains["pythonexecutable"] %}
{%- set of_distribution = python.startswith("/usr/bin/") %}
{%- set wheels = ["redis", "psycopg2-binary", "jsonschema"] %}
{%- set packages = ["python3-redis", "python3-psycopg2", "python3-jsonschema"] %}

{%- if ready %}

The pillar is valid:
  immich.pillar_valid:
    - errors: {{ salt["immich_settings.errors"]() | json }}
    - warnings: {{ salt["immich_settings.warnings"]() | json }}

{%- elif opts["test"] %}

The rest of the plan needs the formula's modules:
  test.show_notification:
    - text: |
        This minion lacks the formula's modules, or has other versions of them, and a dry run installs nothing.
        state.apply without test=True brings them itself. To see the whole plan before, type:
          {{ ("dnf" if grains["os_family"] == "RedHat" else "apt-get") ~ " install" if of_distribution else python ~ " -m pip install" }} {{ (packages if of_distribution else wheels) | join(" ") }}
          salt-call {{ "--local " if opts["file_client"] == "local" }}saltutil.sync_all
        and repeat test=True. The part of the plan that does not need them follows.

{%-   import_yaml "immich/defaults.yaml" as defaults %}
{#-   Nobody has looked at the pillar yet: roles may be anything. #}
{%-   set declared = salt["pillar.get"]("immich:roles", defaults.roles) %}
{%-   set roles = declared if declared is iterable else defaults.roles %}
{%-   for component in components.values() if component.packages is defined and component.roles | default(roles) | intersect(roles) %}
{%-     set service = component.packages %}
{%-     set found = namespace(packages=[]) %}
{%-     for family in (grains["os_family"], grains["os"], grains["osfinger"]) %}
{%-       set found.packages = osfamilymap.get(family, {}).get(service, {}).get("packages", found.packages) %}
{%-     endfor %}

Packages of {{ service }} are installed:
  pkg.installed:
    - pkgs: {{ found.packages | json }}
{%-   endfor %}

{%- else %}
{#-   Looked for as files: pip takes most of a second to say that all is there. #}
{%-   set absent = [] %}
{%-   for library in ("redis", "psycopg2", "jsonschema") %}
{%-     set places = [] %}
{%-     for path in grains["pythonpath"] if salt["file.directory_exists"](path ~ "/" ~ library) %}
{%-       do places.append(path) %}
{%-     endfor %}
{%-     if not places %}
{%-       do absent.append(library) %}
{%-     endif %}
{%-   endfor %}
{%-   if absent %}

Salt's Python has the libraries of the formula's modules:
{%-     if of_distribution %}
  pkg.installed:
    - pkgs: {{ packages | json }}
{%-     else %}
  pip.installed:
    - pkgs: {{ wheels | json }}
{%-     endif %}
    - reload_modules: true
    - require_in:
      - The formula's modules are synced
{%-   endif %}

{#- Not saltutil.sync_all, which looks for fifteen kinds more. A running minion has to load what is new for its next job;
    where there is none, Salt would wait a second for it. #}
{%-   set minion = salt["file.find"](opts["sock_dir"], name="minion_event_*_pull.ipc") %}
{%-   for kind, what in (("utils", "packages"), ("output", "outputters"), ("beacons", "beacons"), ("states", "states"), ("modules", "modules")) %}

The formula's {{ what }} are synced:
  saltutil.sync_{{ kind }}:
    - refresh: {{ loop.last and minion != [] }}
    - reload_modules: true
{%-   endfor %}

{%- endif %}
