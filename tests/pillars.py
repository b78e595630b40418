"""Pillars for the tests, made by hypothesis from the schema: right ones, wrong ones, and what no schema thought of.

Strings are as nasty as each setting admits: they hold what means something to Jinja, YAML, a shell, compose, systemd,
libpq or nftables, in the middle of what they have to be.
"""

import json
import string
import stringprep
import unicodedata
from pathlib import Path

from hypothesis import strategies as st

REPO = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((REPO / "immich/schema.json").read_text(encoding="utf8"))
# In each secret, so that it is found wherever one turns up. No other text holds it.
MARK = "5ecret"

NASTY = (
    "{{ 1 / 0 }}", "{% raw %}", "{%", "{#", "#}", "$", "$$", "${HOME}", "$(id)", "`id`", "%", "%%", "%h", "%n", "#",
    " # ", ": ", "- ", "'", '"', "\\", "\\n", "\\x41", "~", "null", "yes", "0x1F", "1e3", "2026-01-01", "<<", "&a",
    "*a", "!!python/object:os.system", "|", ">", "@", "---", "...", ",", ",ro", ";", "; reboot", "=", "-", "--", "*",
    "?", "[", "]", "{", "}", "(", ")", "\u00e9", "\u00a0", "\u200b", "\u202e", "\ufeff", "\ufdd0", "\ufffe", "\uffff",
    "\U0001f600", "\U0001ffff", " ", "  ", "\t", "\n", "\r", "\x00", "\x7f", "\x85", "\u2028", "\u2029",
)  # fmt: skip
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp", "Cn")
CHARACTERS = st.characters(exclude_categories=UNPRINTABLE)


def sample(*values):
    return st.sampled_from(values)


def text(min_size=0, max_size=12, alphabet=CHARACTERS):
    """Text that the formula takes for printable, with metacharacters in it."""
    allowed = [piece for piece in NASTY if piece.isprintable() or piece in ("\u00a0", "\u200b", "\u202e", "\ufeff")]
    pieces = st.lists(st.sampled_from(allowed) | st.text(alphabet, min_size=1, max_size=4), max_size=5).map("".join)
    padding = st.text(string.ascii_letters, min_size=min_size, max_size=max_size)
    return st.tuples(pieces, padding).map("".join)


def secret():
    return st.tuples(text(), text()).map(lambda parts: f"{parts[0]}{MARK}-{MARK}{parts[1]}")


def one_form(value):
    """A text without what SASLprep, by which PostgreSQL knows a password, would change."""
    kept = [char for char in value if not stringprep.in_table_b1(char) and not stringprep.in_table_c12(char)]
    normal = unicodedata.normalize("NFKC", "".join(kept))
    return normal if normal == value else one_form(normal)


def path(*below):
    """A directory of its own for one setting, whose other parts are anything that a path may hold."""
    part = text(1).map(lambda name: name.replace("/", "|").replace(":", ";"))
    return st.lists(part, max_size=2).map(lambda parts: "/".join(["/srv", *below, *parts]))


def _users():
    names = st.from_regex(r"other[A-Za-z0-9_.-]{1,9}", fullmatch=True)
    rules = sample("~a:* +@all -@dangerous", "resetchannels &x -@all +ping", "")
    patterns, commands = sample("a:* b:*", "*", ""), sample("+@read -@dangerous", "")
    own = {"name": names, "rules": rules, "password": secret()}
    role = {"username": names, "keypattern": patterns, "commands": commands, "password": secret()}
    either = st.fixed_dictionaries(own) | st.fixed_dictionaries(role)
    return st.lists(either, max_size=3, unique_by=lambda user: user.get("name", user.get("username")))


def _accounts():
    each = {
        "email": st.from_regex(r"[a-z]{1,9}@example\.(org|net)", fullmatch=True),
        "name": text(1),
        "password": secret(),
    }
    more = {"quota": sample("500m", "50g", "unlimited"), "admin": st.booleans()}
    accounts = st.lists(st.fixed_dictionaries(each, optional=more), max_size=2, unique_by=lambda user: user["email"])
    return accounts.map(lambda users: [user for user in users if user["email"] != ADMIN])


def _networks():
    places = st.sampled_from([("172.20.0.0/16", "172.20.0.1"), ("172.21.0.0/24", "172.21.0.9"), ("10.9.0.0/29", None)])
    more = {
        "interface_name": sample("br0", "null", "x-y.z_0"),
        "isolate": sample("strict", True, False),
        "internal": st.booleans(),
    }
    each = st.tuples(NETWORK_NAMES, places, st.fixed_dictionaries({}, optional=more))
    return st.lists(each, max_size=3, unique_by=(lambda network: network[0], lambda network: network[1])).map(
        lambda networks: [
            {"name": name, "subnet": subnet, **({"gateway": gateway} if gateway else {}), **rest}
            for name, (subnet, gateway), rest in networks
        ]
    )


def _libraries():
    owner = {"owner": st.just(ADMIN)}
    each = path("library") | st.fixed_dictionaries({"path": path("other"), "mount": path("mount")}, optional=owner)
    return st.lists(each, max_size=1)


ADMIN = "admin@example.org"
NETWORK_NAMES = sample("immich", "paperless", "null", "true", "123", "1e3", "0x10", "2026-01-01", "a.b-c_d", "Z")
# Setting -> values that it may have, where the schema alone does not say which they are.
KNOWN = {
    # Those of a host on which Immich runs.
    "roles": sample(
        ["postgres", "valkey", "server", "microservices", "machine_learning", "proxy"],
        ["machine_learning", "microservices", "server", "valkey", "postgres"],
    ),
    "timezone": sample("Etc/UTC", "Europe/Paris", "America/Argentina/Buenos_Aires", "Asia/Kolkata"),
    "upload_location": path("immich", "upload"),
    "upload_location_moved_from": st.none() | path("former"),
    "external_libraries": _libraries(),
    "users": _accounts(),
    "admin": st.just({}) | st.fixed_dictionaries({"email": st.just(ADMIN), "name": text(1), "password": secret()}),
    "bind_address": sample("0.0.0.0", "127.0.0.1", "::", ["192.0.2.7", "2001:db8::7"], ["0.0.0.0", "::"]),
    "ipv6_subnet": sample("fd00:20::/64", "2001:db8:1::/64"),
    "host_gateway": sample("podman", "10.99.0.1", "192.0.2.1"),
    "port": st.integers(2000, 5000),
    "settings": st.none()
    | sample(
        {},
        {
            "trash": {"days": 7},
            "theme": {"customCss": "p {\n  color: red\n}"},
            "newerThanThis": {"a": [1, None, "{{ x }}"]},
        },
        {
            "oauth": {
                "enabled": True,
                "issuerUrl": "https://a.example",
                "clientId": "x",
                "clientSecret": f"{MARK}-{MARK}",
            }
        },
    ),
    "server:ca_certificates": st.none(),
    "server:user": st.none() | sample("0:0", "2000:2000", "2147483647:1", "own", "root"),
    **{
        f"{part}:{key}": values
        for part in ("server", "machine_learning")
        for key, values in {
            "volumes": sample(
                [], ["/usr/share/doc"], [{"path": "/usr/share/doc", "mount": "/mnt/doc", "read_only": False}]
            ),
            "hosts": sample({}, {"nas.example.org": "192.0.2.9", "a_b": "2001:db8::9"}),
            "dns": sample([], ["192.0.2.53"]),
            "devices": st.just([]),
        }.items()
    },
    "server:own_user:name": sample("immich-server", "photos", "_"),
    "server:own_user:id": st.integers(50000, 50099),
    "machine_learning:user": st.none() | sample("0:0", "2000:3000", "own"),
    "machine_learning:own_user:name": sample("immich-ml", "learning"),
    "machine_learning:own_user:id": st.integers(50100, 50199),
    # No test host has any: tests/scenarios/test_hardware.py makes some.
    "hardware": sample({}, {"transcoding": None, "machine_learning": None, "devices": "auto"}),
    # Python and Podman write into it.
    "server:tmp_size": sample("64m", "2g"),
    "machine_learning:tmp_size": sample("64m", "1g"),
    "machine_learning:cache_location": path("immich", "cache"),
    "podman:projects_dir": path("projects") | st.just("/opt/podman"),
    "lookup:podman:compose_command": sample(["podman", "compose"], ["/usr/bin/podman-compose"]),
    "podman:external_networks": _networks(),
    "postgres:port": st.integers(5001, 6000),
    "postgres:password": secret().map(one_form),
    "postgres:vectorchord": st.just({}),
    "valkey:tls": st.just(False),
    "valkey:tls_ca": st.none(),
    "postgres:sslmode": st.none(),
    "postgres:sslrootcert": st.none(),
    "postgres:host": sample(None, "host.containers.internal", "db.example", "192.0.2.5"),
    "postgres:admin:host": sample("db.example", "192.0.2.5", "/var/run/postgresql"),
    "valkey:port": st.integers(6001, 7000),
    "valkey:host": sample(None, "host.containers.internal", "cache.example"),
    "valkey:maxmemory": sample(None, "0", "256m", "1g"),
    "valkey:acl_users": _users(),
    "backup:directory": path("backups"),
    "backup:schedule": sample("daily", "*-*-* 02:30:00", "Mon..Fri 04:00", "*-*-1/7 03:00:00 Europe/Paris"),
    "backup:restore_drill": sample(None, "monthly", "Sun 04:00"),
    "backup:on_failure": st.none() | text(1),
    "update:require_pinned": st.just(False),
    "clean:delete_storage": st.just([]),
    **{
        f"clean:{key}": st.none()
        for key in ("delete_database", "delete_uploads", "delete_model_cache", "delete_backups")
    },
}
ENVIRONMENT = st.dictionaries(
    st.text(string.ascii_letters + "_", min_size=1, max_size=12)
    | sample("IMMICH_X", "LD_X", "_", "A_FILE", "NO_COLOR"),
    text(1) | st.integers(-(2**62), 2**62) | st.floats(-1e15, 1e15),
    max_size=3,
)


def resolved(schema):
    """The schema of a setting with what it refers to."""
    if "$ref" not in schema:
        return schema
    return {**SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], **schema}


def right(schema=SCHEMA, at=()):
    """Values that the schema admits, most of them sensible."""
    if schema.get("$ref") == "#/$defs/path" and ":".join(at) not in KNOWN:
        return path(*at)
    schema = resolved(schema)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if ":".join(at) in KNOWN:
        return KNOWN[":".join(at)]
    if schema.get("writeOnly"):
        return secret()
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "properties" in schema and kinds == ["object"]:
        below = {key: right(each, (*at, key)) for key, each in schema["properties"].items()}
        required = {key: below.pop(key) for key in schema.get("required", [])}
        return st.fixed_dictionaries(required, optional=below)
    if "items" in schema:
        return st.lists(right(schema["items"], (*at, "*")), max_size=3)
    choices = {
        "object": ENVIRONMENT,
        "boolean": st.booleans(),
        "integer": st.integers(schema.get("minimum", 0), schema.get("maximum", 2**62)),
        "null": st.none(),
        "string": st.from_regex(schema["pattern"], fullmatch=True, alphabet=CHARACTERS)
        if "pattern" in schema
        else text(1),
    }
    return st.one_of([choices[kind] for kind in kinds])


def consistent(pillar):
    """A pillar whose settings go together: what each needs of another is there, what it excludes is not."""
    pillar = {key: dict(value) if isinstance(value, dict) else value for key, value in pillar.items()}
    for service in ("postgres", "valkey"):
        part = pillar.setdefault(service, {})
        part.setdefault("password", f"{MARK}-{MARK}-{service}")
        admin = part.get("admin", {})
        admin = {key: value for key, value in admin.items() if not key.startswith(("tls_", "sslcert", "sslkey"))}
        if part.get("managed", True):
            part.pop("host", None)
        else:
            part.pop("tuning", None)
            admin["host"] = admin.get("host") or "server.example"
            admin["password"] = f"{MARK} of the administrator"
        part["admin"] = admin
    pillar["valkey"].setdefault("admin_password", f"{MARK}-{MARK}-default")
    if not pillar["postgres"].get("managed", True):  # there is none, and each look would wait for it
        pillar.pop("admin", None), pillar.pop("setup", None)
    if not pillar.get("admin"):
        pillar.pop("users", None)
        libraries = pillar.get("external_libraries", [])
        pillar["external_libraries"] = [_without_owner(library) for library in libraries]
    networks = [network["name"] for network in pillar.get("podman", {}).get("external_networks", [])]
    pillar["network"] = networks[0] if networks else "immich"
    return pillar


def _without_owner(library):
    return library if isinstance(library, str) else {key: library[key] for key in library if key != "owner"}


# Some have more digits than Python turns into text.
HUGE = st.integers(60, 40000).map(lambda bits: 1 << bits)
# What YAML, JSON and Salt's Python renderers can put into a pillar.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | HUGE
    | st.floats()
    | st.text(max_size=20)
    | st.lists(st.sampled_from(NASTY), max_size=3).map("".join)
    | st.binary(max_size=5)
    | st.dates()
    | st.datetimes()
    | st.decimals()
    | sample("/", "/srv/immich", "/srv/" + "x" * 300, "10.0.0.0/8", "172.20.0.1", "fd00::/64", "::", "immich", "v3.3.1")
)
KEYS = (
    st.text(max_size=8)
    | st.sampled_from(NASTY)
    | st.sampled_from(sorted({*SCHEMA["properties"], "password", "name", "pasword"}))
    | st.integers()
    | HUGE
    | st.floats()
    | st.none()
    | st.booleans()
    | st.dates()
    | st.tuples(st.integers())
    | st.binary(max_size=3)
)
JUNK = st.recursive(
    SCALARS,
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(KEYS, below, max_size=3)
        | st.sets(st.integers() | st.text(max_size=5), max_size=2)
        | st.tuples(below)
    ),
    max_leaves=12,
)


@st.composite
def wrong(draw):
    """A right pillar in which one to three things are exchanged for something else, added or taken away."""
    pillar = draw(right().map(consistent))
    for _ in range(draw(st.integers(1, 3))):
        pillar = _spoilt(draw, pillar)
    return pillar


def _spoilt(draw, tree):
    """The tree with junk somewhere: at every level it may go one deeper or strike here."""
    if not isinstance(tree, (dict, list)) or not tree or draw(st.integers(1, 12)) == 12:
        return draw(JUNK)
    if isinstance(tree, list):
        index = draw(st.integers(0, len(tree) - 1))
        return [*tree[:index], _spoilt(draw, tree[index]), *tree[index + 1 :]]
    if draw(st.integers(1, 6)) == 6:
        return {**tree, draw(KEYS): draw(JUNK)}
    key = draw(st.sampled_from(list(tree)))
    return {**tree, key: _spoilt(draw, tree[key])}


RIGHT = right().map(consistent)
WRONG = wrong()
ANY = st.one_of(RIGHT, RIGHT, RIGHT, WRONG, WRONG, WRONG, JUNK)
