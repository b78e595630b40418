# The packages that the programs on the host import, with the decisions that they share with Salt's modules. Depends on
# immich.identity.
{%- from "immich/settings.jinja" import settings, start with context %}
{{ start(sls) }}
{%- if settings %}

The library of the host's programs is present:
  # One state for all packages: after each that changes something, Salt reloads all modules. The programs themselves lie
  # beside them and are of other components. Of pgsql_core it is what needs no driver.
  file.recurse:
    - name: /usr/local/lib/immich-formula
    - source: salt://_utils
    - include_pat: E@^(host_core|immich_core|immich_io)/|^pgsql_core/(__init__|connection|dump_rows|errors)[.]py$
    - exclude_pat: E@(^|/)__pycache__(/|$)|^[^/]*$
    - clean: true
    - dir_mode: "0755"
    - file_mode: "0644"
    - require:
      - sls: immich.identity
{%- endif %}
