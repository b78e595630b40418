"""
Where the pillar has the passwords of Immich's own logins, and of Valkey's administrator
========================================================================================
"""

POSTGRES_PASSWORD = "immich:postgres:password"
VALKEY_PASSWORD = "immich:valkey:password"
VALKEY_ADMIN_PASSWORD = "immich:valkey:admin_password"
