"""Run a function on a module right after it is imported.

``import mmvitaccel`` must not import mmengine, but its patches must be applied before mmengine is
used. Import hooks apply them in between.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class AfterImportFinder(MetaPathFinder):
    """Finds one module through the other finders and adds a step after loading.

    Args:
        name: The module's dotted name.
        action: Called with the module after its code has run.
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
    """Call ``action(module)`` after ``name`` is imported, or now if it already is.

    Args:
        name: Dotted module name; nothing happens if the module does not exist.
        action: Called with the module.
    """
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, AfterImportFinder(name, action))
