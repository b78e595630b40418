# States that do nothing: what Salt itself takes for each state of a run.
{%- for n in range(pillar["size"]) %}
Nothing {{ n }}:
  test.nop: []
{%- endfor %}
