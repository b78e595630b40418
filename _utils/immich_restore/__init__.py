"""Restore Immich's database from a backup: ``immich.restore``, ``immich.restore_drill`` and ``immich.restore_recover``.

A backup is a file of ``pg_dump --format=custom``, as ``immich.backup`` makes it. What is in it is under the control of
the application, and it runs when it is restored: so a superuser makes an empty database with its owner and its
extensions, and ``pgsql_dump.restore`` does the rest, logged in as a role that owns this database alone and is dropped
afterwards (``access``). A dump can act with that login on all of the server, as Immich's role on the live database: so
that role is not lent to it. What it made is given to Immich's role before the database takes its place.

The database that Immich uses is always a whole one: a backup is restored into another (``fill``), and both swap their
names in one transaction (``swap``). The names alone show what a restore that was killed has left (``leftovers``).
"""
