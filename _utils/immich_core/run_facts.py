"""
What one state of a run has seen or done for a later one
=========================================================

A run asks Podman and the server once where that is enough. What one state hands to another is kept here; each field
says which function sets it, and which takes it. Where none has set it, the one that needs it looks itself, so that no
state depends on another one having run. What a module caches for its own functions has a key of its own in
``__context__``.
"""

import dataclasses
from typing import Optional

# In Salt's ``__context__``, which states and modules of a run share.
KEY = "immich_core.run_facts"


@dataclasses.dataclass
class Facts:
    """
    The facts of a run.

    A fact that the run's own actions make outdated is taken once: the next one that needs it looks again.
    """

    # The ids of images, as of `project.image_ids`, by the list of names that were asked for. Set when all images were
    # there (immich_host.images.missing), taken by the first comparison of containers after that (containers.compared).
    images: Optional[tuple] = None
    # Process of the server's container. Set by that comparison, taken by the next question to machine learning.
    server_pid: Optional[int] = None
    # When the server answered last before this run stopped it, in monotonic seconds. Set by immich_host.service.stop,
    # taken by its bring_up, which measures from there. Until then Immich counts as serving: it did before the run.
    served_until: Optional[float] = None
    # Whether this run has moved something of the installation: a former compose file names what is gone
    # (states of immich_identity; asked by immich_host.update).
    migrated: bool = False
    # Whether the formula makes Immich's network, on a host without an installation. Set by immich_identity.compared,
    # taken by immich_identity.recorded.
    network_made: Optional[bool] = None
    # In a dry run, what its states would have removed before Immich's network is created: containers, if Immich would
    # be stopped (immich_app.stopped_for_changes), and the former network (immich_identity.network_replaced).
    removed_containers: Optional[tuple] = None
    replaced_network: Optional[str] = None
    # What becomes of the installation. Set by the first state that asks (immich_host.identity.plan_of_run), dropped
    # with each change of the record (states of immich_identity).
    identity_plan: Optional[dict] = None

    def take(self, name):
        """
        Return a fact, and forget it.

        name
            Name of the field.

        .. code-block:: python

            run_facts.of(__context__).take("server_pid")
        """
        value = getattr(self, name)
        setattr(self, name, None)
        return value


def begin(run):
    """
    Forget what was seen before this run, by another one or by an execution function in the same process.

    Salt hands each run a copy of ``__context__``, and the copy has the same object. Called by the first state of a run,
    ``immich_identity.compared``.

    run
        The ``__context__`` of the run.

    .. code-block:: python

        run_facts.begin(__context__)
    """
    run[KEY] = Facts()


def of(run):
    """
    Return the facts of a run.

    run
        The ``__context__`` of the run.

    .. code-block:: python

        run_facts.of(__context__).served_until
    """
    if KEY not in run:
        run[KEY] = Facts()
    return run[KEY]
