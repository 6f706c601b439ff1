"""Gaps of the installed OpenMMLab stack, closed before mmdet or mmaction2 is imported.

One entry, :func:`apply`, which ``import mmvitaccel`` calls. It imports neither torch nor an
OpenMMLab package: it arranges that a module which turns out to be missing is answered for, and
that mmengine's checkpoint loaders are guarded, at the moment when somebody imports them. What is
installed always comes first.

A process that is started afresh (``torchrun``, a data loader's worker under ``spawn``) has to
import mmvitaccel itself, before mmdet: through ``custom_imports``, ``python -m mmvitaccel`` or a
class of this package in what the worker unpickles. Forked workers inherit it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from mmvitaccel.compat.fallback import serve_stand_ins
from mmvitaccel.compat.import_hooks import after_import
from mmvitaccel.compat.requirements import explain_missing_packages

__all__ = ["apply"]

_applied = False


def apply() -> None:
    """Close every gap that this environment has; a second call changes nothing."""
    global _applied
    if _applied:
        return
    _applied = True
    explain_missing_packages()
    serve_stand_ins()
    after_import("mmengine.runner.checkpoint", _guard_loaders)
    if find_spec("pkg_resources") is None:
        after_import("mmengine.utils.package_utils", _replace_look_up)


def _guard_loaders(module: ModuleType) -> None:
    # reason: torch and mmengine are imported there, and by now somebody has asked for them.
    import_module("mmvitaccel.compat.checkpoint").guard_loaders(module)


def _replace_look_up(module: ModuleType) -> None:
    import_module("mmvitaccel.compat.packages").replace_look_up(module)
