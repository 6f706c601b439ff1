"""Stand-ins for modules that the installed stack imports but does not have.

The finder is the last one in ``sys.meta_path`` and is only reached if no other finder knows the
module. A compiled ``mmcv._ext``, a complete mmaction2 or an installed ``importlib_metadata`` is
therefore used unchanged. A stand-in is an ordinary source file that is executed under the missing
name. It has a real ``__spec__`` (which mmcv checks), and nothing is imported before it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).parent / "stand_ins"

STAND_INS: dict[str, Path] = {
    # mmcv-lite has the Python side of mmcv.ops but not the compiled module behind it.
    "mmcv._ext": _FOLDER / "mmcv_ext.py",
    # mmaction2's wheel was built without this folder, which mmaction.models imports.
    "mmaction.models.localizers.drn": _FOLDER / "mmaction_drn" / "__init__.py",
    # mmaction2 imports this backport of the standard library without declaring it.
    "importlib_metadata": _FOLDER / "importlib_metadata.py",
}


class StandInFinder(MetaPathFinder):
    """Finds stand-ins for the missing modules in :data:`STAND_INS`, and no other modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the stand-in, or None for any other name.

        Args:
            fullname: The dotted name that the other finders did not find.
            path: The parent package's search path; unused.
            target: The module being reloaded, if any; unused.
        """
        source = STAND_INS.get(fullname)
        if source is None:
            return None
        is_package = source.name == "__init__.py"
        return spec_from_file_location(
            fullname,
            source,
            submodule_search_locations=[str(source.parent)] if is_package else None,
        )


def serve_stand_ins() -> None:
    """Append the finder to ``sys.meta_path`` unless it is already there."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())
