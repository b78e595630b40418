"""The program behind bin/deploy. Python 3.9 and its standard library alone: it runs before Salt is there."""


class DeployError(Exception):
    """What keeps this machine from being deployed; the text says what to do."""
