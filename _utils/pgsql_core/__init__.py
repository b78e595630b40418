"""PostgreSQL without Salt: sessions, quoting, and what is decided about roles, databases and their settings."""
