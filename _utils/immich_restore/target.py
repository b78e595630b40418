"""
The installation whose database is restored
===========================================

What every step of a restore goes by.
"""

from collections import namedtuple

from immich_core.pillar_paths import POSTGRES_PASSWORD


class Target(namedtuple("Target", "settings salt pillar minion")):
    """
    ``settings`` are the formula's, as of ``immich_settings.get``, ``salt`` Salt's execution functions by name
    (``__salt__``), ``pillar`` the whole pillar, and ``minion`` the minion's id.
    """

    __slots__ = ()

    @property
    def database(self):
        """Name of Immich's database."""
        return self.settings["postgres"]["database"]

    @property
    def user(self):
        """Name of Immich's role."""
        return self.settings["postgres"]["user"]

    @property
    def connection(self):
        """How to reach the server as its administrator."""
        return self.settings["postgres"]["connection"]

    @property
    def managed(self):
        """Whether the formula manages the server."""
        return self.settings["postgres"]["managed"]

    def owner(self, database):
        """How to log in to a database as Immich's own role: over TCP, as it has nothing but its password."""
        connection = self.connection
        kept = {key: connection[key] for key in ("port", "sslmode", "sslrootcert") if key in connection}
        host = "127.0.0.1" if connection["host"].startswith("/") else connection["host"]
        login = {"host": host, "user": self.user, "password_pillar": POSTGRES_PASSWORD}
        return {**kept, **login, "maintenance_db": database}
