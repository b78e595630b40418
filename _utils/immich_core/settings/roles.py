"""
Roles: what a host is, and what follows
=======================================
"""

# Immich's server runs on one host with all that it needs: the formula cannot spread these over several yet.
_TOGETHER = ("server", "microservices", "postgres", "valkey")
_IMMICH = {"server", "microservices", "machine_learning"}


def check_roles(settings):
    """What the formula cannot make of a host yet."""
    roles = settings["roles"]
    if not roles:
        yield ("roles",), "must name a role: leave it out for all of them"
    for index, role in enumerate(roles):
        if role in roles[:index]:
            yield ("roles", index), f"is the second {role}"
    missing = [role for role in _TOGETHER if role not in roles]
    if _IMMICH & set(roles) and missing and None not in roles:
        beside = f"lacks {' and '.join(missing)}: {', '.join(_TOGETHER)} cannot be on different hosts yet"
        yield ("roles",), f"{beside}. A server that something else manages is immich:postgres:managed: false"


def passwords(settings):
    """Paths of the passwords that a host with these roles needs."""
    roles = set(settings["roles"])
    needed = [(part, "password") for part in ("postgres", "valkey") if roles & {part, "server", "microservices"}]
    if "valkey" in roles and settings["valkey"]["managed"]:
        needed.append(("valkey", "admin_password"))
    return needed


def here(settings, components):
    """
    The servers that this pillar manages and that are on this host: `managed` alone says nothing of the host.

    components
        Those that the host has, or that its former roles have left on it.
    """
    return [part for part in ("postgres", "valkey") if settings[part]["managed"] and part in components]
