# Installs the libraries into Salt's Python and the formula's modules on the minion, using only core states, and checks
# the pillar. If both are present, only the check of the pillar remains. Depends on nothing.
{%- from "immich/settings.jinja" import ready with context %}

{%- if ready %}

The pillar is valid:
  immich.pillar_valid:
    - errors: {{ salt["immich_settings.errors"]() | json }}
    - warnings: {{ salt["immich_settings.warnings"]() | json }}

{%- else %}
{%    include "immich/bootstrap/missing.jinja" %}
{%- endif %}
