"""A clear error if torch or mmengine is not installed.

``import mmvitaccel`` itself needs neither, so that ``python -m mmvitaccel.env`` can report what is
missing. The subpackages need them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from types import ModuleType

_NEEDS_NOTHING = ("compat", "env", "version", "__main__")
_NEEDS_TORCH = ("core", "adapters")


class MissingPackageFinder(MetaPathFinder):
    """Raises on import of a subpackage whose requirements are not installed.

    Args:
        missing: Names of the packages that are not installed.
    """

    def __init__(self, missing: Sequence[str]) -> None:
        self.missing = missing

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Raise for subpackages that cannot work; leave all other imports to the other finders.

        Args:
            fullname: The dotted name that is being imported.
            path: The parent package's search path; unused.
            target: The module being reloaded, if any; unused.

        Raises:
            ModuleNotFoundError: A requirement of the subpackage is not installed.
        """
        package, _, rest = fullname.partition(".")
        room = rest.partition(".")[0]
        if package != "mmvitaccel" or not room or room in _NEEDS_NOTHING:
            return
        needed = ("torch",) if room in _NEEDS_TORCH else ("torch", "mmengine")
        lacking = [name for name in needed if name in self.missing]
        if lacking:
            raise ModuleNotFoundError(
                f"{fullname} needs {' and '.join(lacking)}, not installed here; run "
                "`python -m mmvitaccel.env` to see what to install.",
                name=lacking[0],
            )


def explain_missing_packages() -> None:
    """Install the finder if torch or mmengine is missing."""
    missing = [n for n in ("torch", "mmengine") if n not in sys.modules and find_spec(n) is None]
    if missing:
        sys.meta_path.insert(0, MissingPackageFinder(missing))
