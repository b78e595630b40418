# What the programs on the host import: the decisions that they share with Salt's modules. Depends on immich.identity.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}

The library of the host's programs is present:
  file.recurse:
    - names:
      - /usr/local/lib/immich-formula/host_core:
        - source: salt://_utils/host_core
      - /usr/local/lib/immich-formula/immich_core:
        - source: salt://_utils/immich_core
    - clean: true
    - dir_mode: "0755"
    - file_mode: "0644"
    - exclude_pat: E@(^|/)__pycache__(/|$)
    - require:
      - sls: immich.identity
{%- endif %}
