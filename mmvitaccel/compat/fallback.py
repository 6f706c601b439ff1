"""Stand-ins for modules that the installed stack imports but does not have.

The finder is the last one in ``sys.meta_path``, so that it is asked only for what no other finder
knows: a compiled ``mmcv._ext``, a repaired mmaction2 or an installed ``importlib_metadata`` is
used as it is. A stand-in is an ordinary source file executed under the missing name, hence it has
a real ``__spec__`` (mmcv looks for that) and nothing is imported before it is needed.
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
    """Answers for the missing modules of :data:`STAND_INS` and for nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the stand-in, or None for any other name.

        Args:
            fullname: The dotted name that no finder before this one knew.
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
    """Put one finder at the end of ``sys.meta_path`` unless there is one."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())
