# Accounts in Immich: the administrator, the formula's own API key, accounts, and external libraries with an owner, through
# Immich's API. While nobody has signed up, root of this host alone reaches the server; once the administrator is, sign-up is
# closed for good and the port is opened. Depends on immich.app.
{%- from "immich/settings.jinja" import handed_down, settings, start with context %}
{{ start(sls) }}
{%- if settings %}
{%-   set accounts = salt["immich_account.plan"](settings) %}

Immich's administrator is signed up:
  immich_account.administrator_present:
    - name: {{ settings.admin.email | json }}
    - full_name: {{ settings.admin.name | json }}
    - password_pillar: {{ accounts.password_pillar }}
    - url: {{ accounts.first_url }}
    - postgres: {{ accounts.postgres | json }}
    - require:
      - sls: immich.app
{%-   if settings.once_signed_up %}

Sign-up is closed, and the port of Immich is open:
  immich_account.sign_up_closed:
    - settings: {{ dict(handed_down, **settings.once_signed_up) | json }}
    - require:
      - Immich's administrator is signed up
{%-   endif %}

The formula's API key for Immich is present:
  immich_account.key_present:
    - name: {{ accounts.key_file }}
    - email: {{ settings.admin.email | json }}
    - password_pillar: {{ accounts.password_pillar }}
    - url: {{ accounts.url }}
    - require:
      - {{ "Sign-up is closed, and the port of Immich is open" if settings.once_signed_up else "Immich's administrator is signed up" }}

{%-   for user in settings.users %}
{%-     if user.delete is defined %}

{{ ("There is no account " ~ user.email) | json }}:
  immich_user.absent:
    - name: {{ user.email | json }}
    - confirm: {{ user.delete | json }}
{%-     else %}

{{ ("The account " ~ user.email ~ " is present") | json }}:
  immich_user.present:
    - name: {{ user.email | json }}
    - full_name: {{ user.name | json }}
    - password_pillar: {{ user.password_pillar }}
{%-       for key in ("quota", "storage_label", "admin") if key in user %}
    - {{ key }}: {{ user[key] | json }}
{%-       endfor %}
{%-     endif %}
    - url: {{ accounts.url }}
    - require:
      - The formula's API key for Immich is present
{%-   endfor %}

{%-   for library in settings.external_libraries if library.owner is defined %}

{{ (library.mount ~ " is a library of " ~ library.owner) | json }}:
  immich_library.present:
    - name: {{ library.mount | json }}
    - owner: {{ library.owner | json }}
    - url: {{ accounts.url }}
    - require:
      - The formula's API key for Immich is present
{%-     for user in settings.users if user.email | lower == library.owner | lower and user.delete is not defined %}
      - {{ ("The account " ~ user.email ~ " is present") | json }}
{%-     endfor %}
{%-   endfor %}
{%- endif %}
