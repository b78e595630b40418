# Removes the packages that the programs on the host import, after the programs.
{%- from "immich/settings.jinja" import included, settings, start with context %}
{{ start(sls) }}
{%- if settings %}

The library of the host's programs is absent:
  file.absent:
    - name: /usr/local/lib/immich-formula
    - require: {{ included | json }}
{%- endif %}
