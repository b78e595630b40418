"""
What can be wrong with the description of a network
===================================================
"""


class DescriptionError(Exception):
    """A description that makes no sense, whatever Podman has."""
