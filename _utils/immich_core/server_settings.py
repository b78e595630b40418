"""
Immich's own settings, as the pillar declares them and as its configuration file holds them
============================================================================================

``declared`` is the tree of ``immich:settings``, as the pillar has it. Names, types and bounds are checked by
``immich/server_settings.json``; here is what a schema cannot say, and what becomes of the tree. A path is a tuple of
keys below the pillar key ``immich``.

Sources, of Immich v3.3: server/src/dtos/config.dto.ts (names, types, defaults) and server/src/utils/config.ts, which
merges the file into the defaults, logs keys that it does not know with their values, and refuses to start with a wrong
value.
"""

import json
import math
import re
import unicodedata

from immich_core.settings.problems import likely, path_text

KEY = "settings"
# The settings that Immich itself treats as secrets. Each may be a text, or say where it is.
SECRETS = (("oauth", "clientSecret"), ("notifications", "smtp", "transport", "password"))
# Below a name that Immich does not know, where its log would show the value.
_SECRET_NAME = re.compile("secret|passw|passphrase|token|credential|(api|private|access)_?key", re.IGNORECASE)
_DEEPEST = 12
# A switch of Immich's, and the settings without which nobody gets in, or no mail gets out.
_REQUIRED = {
    ("oauth", "enabled"): (("oauth", "issuerUrl"), ("oauth", "clientId")),
    ("notifications", "smtp", "enabled"): (
        ("notifications", "smtp", "from"),
        ("notifications", "smtp", "transport", "host"),
    ),
}
# Addresses that answer without a login, and of what they say which setting it is.
# From server/src/services/server.service.ts of Immich v3.3.
_SHOWN = {
    "features": {
        "map": ("map", "enabled"),
        "reverseGeocoding": ("reverseGeocoding", "enabled"),
        "importFaces": ("metadata", "faces", "import"),
        "trash": ("trash", "enabled"),
        "oauth": ("oauth", "enabled"),
        "oauthAutoLaunch": ("oauth", "autoLaunch"),
        "passwordLogin": ("passwordLogin", "enabled"),
        "email": ("notifications", "smtp", "enabled"),
    },
    "config": {
        "loginPageMessage": ("server", "loginPageMessage"),
        "trashDays": ("trash", "days"),
        "userDeleteDelay": ("user", "deleteDelay"),
        "oauthButtonText": ("oauth", "buttonText"),
        "publicUsers": ("server", "publicUsers"),
        "mapDarkStyleUrl": ("map", "darkStyle"),
        "mapLightStyleUrl": ("map", "lightStyle"),
    },
}
ADDRESSES = tuple(_SHOWN)
# What Immich itself changes in the declared ones: buildConfig of server/src/utils/config.ts.
_ADAPTED = ("server:externalDomain", "ffmpeg:acceptedVideoCodecs", "ffmpeg:acceptedAudioCodecs")


# -- what is wrong with it ----------------------------------------


def problems(declared, schema):
    """
    Return what the schema cannot say of the declared settings, as two lists of ``(path, message)``: errors, warnings.

    A name that the schema does not have is a warning, as newer versions of Immich have more. One of a secret is an
    error: Immich would log its value.

    declared
        As above. Of another type than a mapping it has no problems but that, which the schema says.
    schema
        What ``immich/server_settings.json`` holds, without references.

    .. code-block:: python

        errors, warnings = server_settings.problems({"oauth": {"enabeld": True}}, schema)
    """
    if not isinstance(declared, dict):
        return [], []
    errors, warnings = [], []
    for path, value, message in _unknown(declared, schema, (KEY,)):
        broken = _broken(path[-1], value)
        if broken:
            errors.append((path, broken))
        else:
            warnings.append((path, message))
    errors += [((KEY, *path), "is not a number that JSON has") for path in _endless(declared)]
    for path in SECRETS:
        if _has(declared, path) and _at(declared, path) is None:
            errors.append(((KEY, *path), "is empty: a text, {pillar: PATH} or {file: PATH}"))
    for switch, required in _REQUIRED.items():
        missing = required if _at(declared, switch) is True else ()
        name = f"immich:{KEY}:{':'.join(switch)}"
        errors += [((KEY, *path), f"is required where {name} is true") for path in missing if not _at(declared, path)]
    oauth = declared.get("oauth") if isinstance(declared.get("oauth"), dict) else {}
    if str(oauth.get("issuerUrl", "")).startswith("http:") and oauth.get("allowInsecureRequests") is not True:
        message = f"is not https, which Immich refuses without immich:{KEY}:oauth:allowInsecureRequests: true"
        warnings.append(((KEY, "oauth", "issuerUrl"), message))
    return errors, warnings


def _unknown(declared, schema, path):
    known = schema["properties"]
    for name, value in declared.items():
        if not isinstance(name, str):
            continue  # which the schema's own check says
        if name not in known:
            hint = likely(name, list(known), "; ")
            yield (
                (*path, name),
                value,
                f"is not a setting of Immich v3.3, which ignores unknown ones{hint}",
            )
        elif isinstance(value, dict) and "properties" in known[name] and (*path, name)[1:] not in SECRETS:
            yield from _unknown(value, known[name], (*path, name))


def _endless(tree, path=()):
    """Paths of `.nan` and `.inf`, which no bounds of the schema exclude."""
    for name, value in tree.items():
        if isinstance(value, dict) and len(path) < _DEEPEST:
            yield from _endless(value, (*path, name))
        elif isinstance(value, float) and not math.isfinite(value):
            yield (*path, name)


def _broken(name, value):
    """Why an unknown name cannot be handed to Immich as it is."""
    if any(_SECRET_NAME.search(each) for each in (name, *_names(value))):
        return "is not a known setting, and Immich logs the values of unknown settings: it must not be a secret"
    if not _is_json(value):
        return "contains what JSON does not have, such as a date or a control character: put it in quotes"
    return None


def _names(value, depth=0):
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    names = [str(name) for name in value] if isinstance(value, dict) else []
    if depth < _DEEPEST:
        for each in below:
            names += _names(each, depth + 1)
    return names


def _is_json(value, depth=0):
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(each, depth + 1) for name, each in value.items())
    if isinstance(value, list):
        return all(_is_json(each, depth + 1) for each in value)
    if isinstance(value, str):
        return not any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\r\t" for char in value)
    if isinstance(value, (int, float)):
        return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63
    return value is None


# -- the file ----------------------------------------


def references(declared):
    """
    Return which of Immich's secrets are elsewhere: ``{path: {"pillar": path} or {"file": path}}``.

    declared
        As above.

    .. code-block:: python

        server_settings.references({"oauth": {"clientSecret": {"file": "/root/oauth"}}})
    """
    found = {path: _at(declared, path) for path in SECRETS}
    return {path: value for path, value in found.items() if _is_reference(value)}


def _is_reference(value):
    """Of another mapping the schema says what is wrong."""
    return isinstance(value, dict) and list(value) in (["pillar"], ["file"]) and all(map(_is_text, value.values()))


def _is_text(value):
    return isinstance(value, str)


def merged(below, declared):
    """
    Return the declared settings, with those of ``below`` that they do not name.

    below
        Settings that follow from other parts of the pillar, of the same form.
    declared
        As above.

    .. code-block:: python

        server_settings.merged({"ffmpeg": {"accel": "vaapi"}}, {"ffmpeg": {"crf": 23}})
    """
    found = {**below, **declared}
    for name in below.keys() & declared.keys():
        if isinstance(below[name], dict) and isinstance(declared[name], dict):
            found[name] = merged(below[name], declared[name])
    return found


def text(declared, secrets):
    """
    Return the text of Immich's configuration file. It holds secrets.

    What has no value in the pillar is left out: it means Immich's default.

    declared
        As above.
    secrets
        The values of :py:func:`references`, by path.

    .. code-block:: python

        server_settings.text({"trash": {"days": 7}}, {})
    """
    # ASCII alone, so that YAML, as which Immich reads it, has no other idea of a line.
    return json.dumps(_filled(declared, secrets, ()), indent=1, sort_keys=True, allow_nan=False)


def _filled(tree, secrets, path):
    if path in secrets:
        return secrets[path]
    if not isinstance(tree, dict):
        return tree
    return {name: _filled(value, secrets, (*path, name)) for name, value in tree.items() if value is not None}


def changes(former, desired):
    """
    Return which settings differ, by their pillar paths, as ``{path: {"old": …, "new": …}}`` without any value.

    former, desired
        Texts of the file, or None where there is none.

    .. code-block:: python

        server_settings.changes(None, '{"trash": {"days": 7}}')
    """
    old, new = _leaves(_parsed(former)), _leaves(_parsed(desired))
    differing = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
    found = {path: {"old": "set" if path in old else None, "new": _said(path, old, new)} for path in differing}
    if not found and former != desired:
        found[f"immich:{KEY}"] = {"old": former and "another file", "new": desired and "as declared"}
    return found


def _said(path, old, new):
    if path not in new:
        return None
    return "another value" if path in old else "set"


def _parsed(file):
    try:
        return json.loads(file or "{}")
    except (ValueError, RecursionError):  # somebody has changed it by hand
        return {}


def _leaves(tree, path=("immich", KEY)):
    if not isinstance(tree, dict):
        return {path_text(path): json.dumps(tree)}
    found = {}
    for name, value in tree.items():
        found.update(_leaves(value, (*path, name)))
    return found


# -- what the server says that it uses ----------------------------------------


def differing(declared, answers):
    """
    Return the settings of which the server says that it uses others, as pillar paths; as ``immich:settings`` alone
    where it says that it reads no file.

    declared
        As above.
    answers
        What the server answered, by the names of :py:data:`ADDRESSES`; of an address that it does not have, ``{}``.

    .. code-block:: python

        server_settings.differing({"trash": {"days": 7}}, {"features": {"configFile": True}, "config": {}})
    """
    if answers.get("features", {}).get("configFile") is False:
        return [f"immich:{KEY}"]
    found = []
    for address, shown in _SHOWN.items():
        answer = answers.get(address, {})
        found += [
            ":".join(("immich", KEY, *path))
            for name, path in shown.items()
            if name in answer and _at(declared, path) not in (None, answer[name])
        ]
    return found


def unlike(desired, used):
    """
    Return the settings of which an administrator is told another value than that of the file, as pillar paths. What
    the server does not know, and what it adapts, is not compared.

    desired
        What the file has to hold.
    used
        What the server answered as its settings.

    .. code-block:: python

        server_settings.unlike({"trash": {"days": 7}}, client.system_config())
    """
    desired, used = _leaves(desired), _leaves(used)
    adapted = {f"immich:{KEY}:{path}" for path in _ADAPTED}
    compared = desired.keys() & used.keys() - adapted
    return sorted(path for path in compared if json.loads(desired[path]) != json.loads(used[path]))


def _has(tree, path):
    above = _at(tree, path[:-1])
    return isinstance(above, dict) and path[-1] in above


def _at(tree, path):
    for key in path:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(key)
    return tree
