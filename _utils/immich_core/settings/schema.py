"""
Pillar against schema: what of it can be read, what is wrong with it, and what of it is secret
===============================================================================================

The schema is that of ``immich/schema.json`` without references: ``inlined``. No message quotes a secret.
"""

import itertools
import json
import math
import unicodedata

from immich_core.settings.problems import PILLAR_KEY, likely

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, half surrogates, line and paragraph ends
_KINDS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "nothing",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}


def inlined(schema, definitions):
    """The schema without ``$ref``, so that a walk along it needs no resolver."""
    if isinstance(schema, list):
        return [inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    local = {key: inlined(value, definitions) for key, value in schema.items() if key != "$ref"}
    if "$ref" not in schema:
        return local
    referred = definitions[schema["$ref"].rpartition("/")[2]]
    return {**inlined(referred, definitions), **local}


class _Foreign:
    """In the place of a value of another type than those of JSON, whatever it holds: a date, a tuple, bytes."""

    def __init__(self, kind):
        self.kind = kind


def projected(value, schema, path, problems):
    """
    The pillar as far as the schema goes into it, in plain types.

    Whatever YAML or a renderer puts below a wrong key or type (secrets, loops, numbers without end) stays out
    of the validator, whose errors quote what they are about.
    """
    kinds = _kinds(schema)
    if value is None and path == ():
        return {}
    if isinstance(value, dict):
        return _projected_mapping(value, schema, path, problems) if "object" in kinds else {}
    if isinstance(value, list):
        items = enumerate(value) if "array" in kinds else ()
        return [projected(each, schema["items"], (*path, index), problems) for index, each in items]
    # x-lines: a text that may have several lines.
    unprintable = set(filter(_is_unprintable, value)) if isinstance(value, str) else set()
    if unprintable - (set("\n\r\t") if schema.get("x-lines") else set()):
        problems.append((path, "holds a line break or another control character"))
        return value
    plain = _plain(value)
    whole = "integer" in kinds and isinstance(plain, float) and plain.is_integer()
    return int(plain) if whole else plain


def _is_unprintable(char):
    # The code points that are no characters, U+FFFE and their like, YAML and systemd refuse.
    code = ord(char)
    return unicodedata.category(char) in _UNPRINTABLE or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def _plain(value):
    """A scalar that can be compared, quoted and shown."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if not isinstance(value, (int, float)):
        return _Foreign(type(value).__name__)
    return math.inf if abs(value) >= 2**63 else value


def _projected_mapping(value, schema, path, problems):
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties")
    plain = {}
    for key, item in value.items():
        if item is None and set(_kinds(properties.get(key, {}))) & {"array", "object"}:
            continue  # a section or list of which every line is commented out says nothing
        if not isinstance(key, str):
            problems.append(((*path, "?"), f"a key here is {kind_of(_plain(key))}, not text: put it in quotes"))
        elif key in properties:
            plain[key] = projected(item, properties[key], (*path, key), problems)
        elif isinstance(others, dict):
            plain[key] = projected(item, others, (*path, key), problems)
        else:
            plain[key] = None
    return plain


def violations(schema, pillar):
    """What JSON Schema finds wrong with a projected pillar, one ``(path, message)`` for each path."""
    from jsonschema import Draft202012Validator

    problems = {}
    for error in Draft202012Validator(schema).iter_errors(pillar):
        for path, message in _explained(error):
            problems.setdefault(path, message)
    return problems.items()


def _explained(error):
    path = tuple(error.absolute_path)
    schema = error.schema
    if error.validator == "additionalProperties":
        known = list(schema["properties"])
        return [((*path, key), f"is not a setting{likely(key, known)}") for key in error.instance if key not in known]
    if error.validator == "required":
        return [((*path, key), "is missing") for key in schema["required"] if key not in error.instance]
    if error.validator == "enum":
        known = [each if isinstance(each, str) else json.dumps(each) for each in schema["enum"]]
        return [(path, f"must be one of {', '.join(known)}{likely(error.instance, known, '; ')}")]
    if error.validator == "type":
        return [(path, _wrong_type(error.instance, schema))]
    if error.validator == "minimum" and "maximum" not in schema:
        return [(path, f"must be {schema['minimum']} or more")]
    if error.validator in ("minimum", "maximum"):
        return [(path, f"must be from {schema['minimum']} to {schema['maximum']}")]
    if error.validator == "minLength":
        return [(path, "must not be empty")]
    return [(path, f"must be {schema['x-expects']}")]


def _wrong_type(value, schema):
    kinds = [kind for kind in _kinds(schema) if kind != "null"]
    message = f"must be {' or '.join(_KINDS[kind] for kind in kinds)}, not {kind_of(value)}"
    if "x-expects" in schema and "string" in kinds and "object" not in kinds:
        message += f": {schema['x-expects']}"
    elif "string" in kinds and isinstance(value, (int, float)):
        message += ": put it in quotes"
    elif isinstance(value, str) and kinds in (["integer"], ["boolean"]):
        message += ": leave the quotes out"
    return message


def _kinds(schema):
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def kind_of(value):
    """A value's type, in words."""
    if value is None:
        return "nothing (an empty value)"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number" if math.isfinite(value) else "a number that is too large"
    names = {str: "text", dict: "a mapping", list: "a list"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), None) or f"a {value.kind}"


def pruned(pillar, wrong):
    """The pillar without what is wrong in it, so that the rest can be checked too."""
    for path in filter(None, wrong):
        pillar = _without(pillar, path)
    if not isinstance(pillar, dict):
        return {}
    return pillar


def _without(tree, path):
    key, rest = path[0], path[1:]
    if isinstance(tree, list):
        # An entry of a list is right as a whole or not at all; its place stays, for the paths of the others.
        return [None if index == key else each for index, each in enumerate(tree)]
    if not isinstance(tree, dict) or key not in tree:
        return tree
    if rest:
        return {**tree, key: _without(tree[key], rest)}
    return {each: value for each, value in tree.items() if each != key}


def entries(items):
    """The right entries of a list, with their places in the pillar."""
    return [(index, entry) for index, entry in enumerate(items) if entry is not None]


def secrets(schema, path=(PILLAR_KEY,)):
    """Paths of all that the schema marks as writeOnly; ``*`` stands for every entry of a list."""
    if schema.get("writeOnly"):
        return [path]
    below = [secrets(each, (*path, key)) for key, each in schema.get("properties", {}).items()]
    if "items" in schema:
        below.append(secrets(schema["items"], (*path, "*")))
    return list(itertools.chain.from_iterable(below))


def public(settings, schema):
    """Settings without what the schema marks as writeOnly."""
    if not isinstance(settings, dict):
        return settings
    properties = schema.get("properties", {})
    return {
        key: public(value, properties.get(key, {}))
        for key, value in settings.items()
        if not properties.get(key, {}).get("writeOnly")
    }
