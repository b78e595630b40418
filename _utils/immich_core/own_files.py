"""
What the formula syncs to a minion: names below ``_modules``, ``_output``, ``_states`` and ``_utils``
======================================================================================================

Written by bin/docs. To find the files in each run would be a walk through all file roots. A minion with an older list
has an older version of this file, which shows.
"""

OWN_FILES = {
    "modules": [
        "immich_app",
        "immich_backup",
        "immich_compose",
        "immich_doctor",
        "immich_gateway",
        "immich_identity",
        "immich_image",
        "immich_overview",
        "immich_postgres",
        "immich_preflight",
        "immich_restore",
        "immich_settings",
        "immich_update",
        "immich_user",
        "immich_valkey",
        "netns",
        "pgsql",
        "pgsql_hba",
        "podman_network",
        "systemd_unit",
        "valkey_acl",
        "valkey_config",
    ],
    "output": [
        "immich_doctor",
    ],
    "states": [
        "immich",
        "immich_app",
        "immich_backup",
        "immich_gateway",
        "immich_identity",
        "immich_postgres",
        "immich_update",
        "immich_valkey",
        "pgsql_config",
        "pgsql_database",
        "pgsql_extension",
        "pgsql_hba",
        "pgsql_role",
        "podman_network",
        "systemd_unit",
        "valkey_acl",
        "valkey_config",
    ],
    "utils": [
        "immich_core/__init__",
        "immich_core/file_tree",
        "immich_core/lock",
        "immich_core/own_files",
        "immich_core/progress",
        "immich_core/project",
        "immich_core/settings/__init__",
        "immich_core/settings/checks",
        "immich_core/settings/derivation",
        "immich_core/settings/environment",
        "immich_core/settings/networks",
        "immich_core/settings/problems",
        "immich_core/settings/schema",
        "immich_core/untrusted",
        "immich_core/versions",
        "systemd_looks",
    ],
}
