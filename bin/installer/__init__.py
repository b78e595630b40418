"""The program behind bin/deploy. Python 3.9 and its standard library alone: it runs before Salt is there."""

# Before the question Salt and its libraries are installed, and pillar and passwords written.
NOTHING_DONE = "Nothing of the plan was done."


class DeployError(Exception):
    """What keeps this machine from being deployed; the text says what to do."""
