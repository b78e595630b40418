"""Made-up ACL rules, names and passwords for properties."""

from hypothesis import strategies as st

# What the server takes for a blank (isspace() of C) or an end can be in no name, the rest of Unicode can.
_CHARACTERS = st.characters(codec="utf-8", exclude_characters=" \t\n\v\f\r\0")
NAMES = st.text(st.sampled_from("abcXYZ019_.:@/-é$\"'\\#()%~&+\u00a0\x1c"), min_size=1, max_size=12)
NAMES |= st.text(_CHARACTERS, min_size=1, max_size=8)
PASSWORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
COMMANDS = [
    "get",
    "set",
    "del",
    "hset",
    "keys",
    "flushall",
    "eval",
    "client",
    "config",
    "publish",
    "subscribe",
    "select",
    "acl",
    "xadd",
    "sort",
]
SUBCOMMANDS = ["client|kill", "client|list", "config|get", "config|set", "acl|list", "xinfo|stream", "object|freq"]
_CATEGORIES = [
    "@all",
    "@read",
    "@write",
    "@dangerous",
    "@admin",
    "@pubsub",
    "@keyspace",
    "@string",
    "@connection",
    "@scripting",
]
_COMMAND_RULES = st.tuples(st.sampled_from("+-"), st.sampled_from(COMMANDS + SUBCOMMANDS + _CATEGORIES)).map("".join)
_PATTERNS = st.text(st.sampled_from("abc*?[]:^-{}é\\\u00a0\x85"), min_size=1, max_size=5)
_KEYS = st.tuples(st.sampled_from(["~", "%R~", "%W~", "%RW~", "%r~"]), _PATTERNS).map("".join)
_CHANNELS = _PATTERNS.map("&{}".format)
_WORDS = st.sampled_from(
    ["allkeys", "resetkeys", "allchannels", "resetchannels", "allcommands", "nocommands", "+select|0", "+select|3"]
)
_DATABASES = st.sampled_from(["db=1", "db=0,3", "DB=3,0,3", "alldbs", "resetdbs"])
_RULE = _COMMAND_RULES | _COMMAND_RULES | _KEYS | _CHANNELS | _WORDS | _DATABASES
_SELECTOR = st.lists(_RULE, max_size=6).map(lambda rules: f"({' '.join(rules)})")
RULES = st.lists(_RULE | _SELECTOR | st.sampled_from(["clearselectors", "skip-sanitize-payload"]), max_size=12)
# A second db= for the same selector is refused.
RULES = RULES.filter(lambda rules: all(each.lower().count("db=") < 2 for each in _selectors(rules)))


def _selectors(rules):
    return [" ".join(rule for rule in rules if not rule.startswith("(")), *(each for each in rules if each[0] == "(")]
