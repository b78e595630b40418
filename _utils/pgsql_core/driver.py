"""
psycopg2, which not every Python that Salt runs in has
======================================================

It is imported where it is used, so that modules load far enough to report that they need it, and need no restart of
Salt once it is there.
"""


def required_by(module):
    """
    Return True if psycopg2 can be imported, else False and why a module does not load, as for ``__virtual__``.

    module
        Name of the module.
    """
    try:
        import psycopg2  # noqa: F401
    except ImportError:
        return False, f"{module} needs psycopg2 in Salt's Python: install psycopg2-binary there with pip."
    return True
