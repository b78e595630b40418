"""Backups of Immich's database, as ``immich.backup`` has them made: the plan, the unit, the list, and what is wrong."""
