"""Run a function on a module right after somebody imports it.

``import mmvitaccel`` has to stay light, while what it changes in mmengine has to be changed
before it is used; this is the moment between.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class AfterImportFinder(MetaPathFinder):
    """Finds one module as the other finders do and adds a step to its loading.

    Args:
        name: The module's dotted name.
        action: Called with the module once its code has run.
    """

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's own spec, whose loader also calls the action.

        Args:
            fullname: The dotted name that is being imported.
            path: The parent package's search path.
            target: The module being reloaded, if any.
        """
        if fullname != self.name:
            return None
        found = (
            finder.find_spec(fullname, path, target)
            for finder in sys.meta_path
            if finder is not self
        )
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module: ModuleType) -> None:
                execute(module)
                self.action(module)

            spec.loader.exec_module = execute_and_act
        return spec


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call ``action(module)`` when ``name`` is imported, or now if it has been.

    Args:
        name: Dotted module name; nothing happens where there is no such module.
        action: What to do with it.
    """
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, AfterImportFinder(name, action))
