"""
What a pillar may say of the proxy
==================================
"""

import ipaddress

from immich_core import proxy

# Published for Caddy alone; the default is what a pillar has that says nothing.
_BIND_ADDRESSES = ("0.0.0.0", "127.0.0.1", ["0.0.0.0"], ["127.0.0.1"])


def check_proxy(settings):
    """What the schema cannot say of immich:proxy."""
    declared, names = settings["proxy"], proxy.domains(settings["proxy"]["domain"])
    yield from _check_files(declared)
    if declared["domain"] is None:
        return
    if not names:
        yield ("proxy", "domain"), "must hold a name: leave it out for no proxy"
    for index, name in enumerate(names):
        path = ("proxy", "domain") if isinstance(declared["domain"], str) else ("proxy", "domain", index)
        yield from _check_name(path, name, names[:index], declared["tls"])
    if settings["bind_address"] not in _BIND_ADDRESSES:
        yield (
            ("bind_address",),
            "must be left out with immich:proxy: Immich then listens on 127.0.0.1 alone, and Caddy on every address",
        )
    if settings["port"] in (proxy.HTTP, proxy.HTTPS):
        yield ("port",), "is Caddy's with immich:proxy: leave it out"


def _check_name(path, name, before, tls):
    if name in before:
        yield path, f"is the second {name}"
    if _is_address(name):
        yield path, "must be a name, not an address"
    elif tls == proxy.ACME and proxy.is_local_name(name):
        seen = f"is a name for which no public authority makes a certificate: {name}"
        yield path, f"{seen}. Set immich:proxy:tls to internal or files"


def _is_address(name):
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _check_files(declared):
    for key in ("certificate", "key"):
        if declared["tls"] == proxy.FILES and declared["domain"] is not None and not declared[key]:
            yield ("proxy", key), "is required while immich:proxy:tls is files"
        elif declared["tls"] != proxy.FILES and declared[key]:
            yield ("proxy", key), "has no effect unless immich:proxy:tls is files"
