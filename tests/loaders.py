"""Salt's loaders over the formula's own modules, as a run of Salt has them: Salt 3006, 3007 and 3008."""

import inspect

import salt.loader
from saltfactories.utils.functional import Loaders, StateFunction, StateResult


class Run(Loaders):
    """Loaders whose states are called directly, each call a run of its own.

    By `state.single` each call would take a turn of Salt's compiler, which takes longer than most tests. ``quick`` has
    the same states in test mode and not, with the ``context`` and the execution modules of this object.

    ``opts["pillar"]``, changed in place, is the pillar of all of them.
    """

    def __init__(self, opts):
        super().__init__(opts)
        self._context_of_states = {}
        utils = salt.loader.utils(self.opts, context=self._context_of_states)
        modules = salt.loader.minion_mods(self.opts, context=self._context_of_states, utils=utils)
        self._direct = self._state_loaders(modules, utils, self._context_of_states, "direct")
        self.quick = self._state_loaders(self.modules, self.utils, self.context, "quick")
        loaders = [self.utils, self.modules, utils, modules, *self._direct.values(), *self.quick.values()]
        for loader in [*loaders, self.modules.pack["__salt__"], modules.pack["__salt__"]]:
            # Before Salt 3008 each loader has a copy of its options.
            loader.pack["__pillar__"] = self.opts["pillar"]

    def _state_loaders(self, modules, utils, context, name):
        loaders = {}
        for test in (False, True):
            loaders[test] = salt.loader.states(
                dict(self.opts, test=test),
                modules,
                utils,
                self.serializers,
                context=context,
                loaded_base_name=f"{name}{test}",
            )
            # As Salt's compiler does.
            loaders[test].inject_globals = {"__env__": "base", "__instance_id__": "0"}
        return loaders

    @property
    def states(self):
        """The states, as in ``states.file.managed("/a", contents="b", test=True)``."""
        return States(self._call)

    def configuration(self, function):
        """The minion's configuration as the module of an execution function has it, by the function's name."""
        return inspect.unwrap(self.modules[function].func).__globals__["__opts__"]

    def _call(self, function, *args, test=False, **kwargs):
        self._context_of_states.clear()
        return StateResult({function: self._direct[test][function](*args, **kwargs)})


class States:
    """Attributes that are attributes that are functions."""

    def __init__(self, call, module=None):
        self._call = call
        self._module = module

    def __getattr__(self, name):
        if self._module is None:
            return States(self._call, name)
        return StateFunction(self._call, f"{self._module}.{name}")
