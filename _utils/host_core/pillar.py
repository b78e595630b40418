"""
A value of the pillar
=====================

``pillar.get`` and ``config.get`` return asterisks for secrets to modules since Salt 3008. So the pillar itself is read,
``__pillar__`` in a module or a state.
"""


def value(pillar, path):
    """
    Return what is at a path of the pillar, or ``None``.

    As ``salt.utils.data.traverse_dict_and_list`` finds it: a number may be a key, or count the entries of a list.

    pillar
        The whole pillar.
    path
        Keys with colons between them.

    .. code-block:: python

        pillar.value(__pillar__, "shop:database:password")
    """
    found = pillar
    for word in path.split(":"):
        keys = (word, int(word)) if word.isdecimal() else (word,)
        if isinstance(found, list):
            found = _in_list(found, keys)
        elif hasattr(found, "keys"):
            found = next((found[key] for key in keys if key in found), None)
        else:
            return None
    return found


def _in_list(entries, keys):
    mappings = [entry for entry in entries if isinstance(entry, dict)]
    for key in keys:
        for mapping in mappings:
            if key in mapping:
                return mapping[key]
    number = keys[-1]
    return entries[number] if isinstance(number, int) and number < len(entries) else None
