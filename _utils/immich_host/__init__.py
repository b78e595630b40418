"""What modules, states, doctor and restore share of Immich on this host: what is there, and steps that change it.

Salt's functions (``__salt__``) are handed in where they are needed. Raises Salt's exceptions.
"""
