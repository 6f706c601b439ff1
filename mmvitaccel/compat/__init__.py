"""Compatibility patches for the installed OpenMMLab stack.

The entry point is :func:`apply`, which ``import mmvitaccel`` calls. It imports neither torch nor an
OpenMMLab package. It installs import hooks that provide stand-ins for missing modules and make
mmengine's checkpoint loaders safe, and mmcv's operators right for maps of any layout, at the time
when these modules are imported. Installed modules always take precedence.

A new process of ``torchrun`` must import mmvitaccel itself before mmdet: through
``custom_imports`` or ``python -m mmvitaccel``. Forked workers inherit the patches, and those under
``spawn`` and ``forkserver`` apply them before they unpickle their work.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from mmvitaccel.compat.fallback import serve_stand_ins
from mmvitaccel.compat.import_hooks import after_import
from mmvitaccel.compat.requirements import explain_missing_packages
from mmvitaccel.compat.spawned import close_gaps_in_workers

__all__ = ["apply"]

_applied = False

# Modules of mmcv.ops whose compiled operators take maps.
_OPERATORS_OF_MAPS = (
    "border_align", "carafe", "deform_conv", "deform_roi_pool", "modulated_deform_conv",
    "prroi_pool", "riroi_align_rotated", "roi_align", "roi_align_rotated", "roi_pool",
)  # fmt: skip

# Modules that use what numpy 1.24 took out.
_OF_OLD_NUMPY = (
    "mmcv.ops.pixel_group",
    "mmdet.evaluation.functional.recall",
    "mmdet.evaluation.functional.ytviseval",
)


def apply() -> None:
    """Apply all patches that this environment needs; a second call has no effect."""
    global _applied
    if _applied:
        return
    _applied = True
    explain_missing_packages()
    serve_stand_ins()
    after_import("multiprocessing.process", close_gaps_in_workers)
    after_import("mmengine.runner.checkpoint", _guard_loaders)
    for package in ("mmpretrain", "mmaction"):
        after_import(f"{package}.utils.dependency", _leave_out_language_models)
    for name in _OPERATORS_OF_MAPS:
        after_import(f"mmcv.ops.{name}", _lay_out_maps)
    for name in _OF_OLD_NUMPY:
        after_import(name, _serve_old_numpy)
    after_import("mmaction.datasets.transforms.processing", _serve_old_integers)
    if find_spec("pkg_resources") is None:
        after_import("mmengine.utils.package_utils", _replace_look_up)


def _lay_out_maps(module: ModuleType) -> None:
    import_module("mmvitaccel.compat.map_layout").lay_out_maps(module)


def _serve_old_numpy(module: ModuleType) -> None:
    import_module("mmvitaccel.compat.old_numpy").serve_old_numpy(module)


def _serve_old_integers(module: ModuleType) -> None:
    import_module("mmvitaccel.compat.old_numpy").serve_old_integers(module)


def _guard_loaders(module: ModuleType) -> None:
    # This module imports torch and mmengine, so it is imported only when they are.
    import_module("mmvitaccel.compat.checkpoint").guard_loaders(module)


def _leave_out_language_models(module: ModuleType) -> None:
    # They need parts that transformers 5 no longer has, and would keep all of mmpretrain
    # (and mmdet with it) or mmaction2 from being imported; without them these say what they require
    from importlib.metadata import PackageNotFoundError, version  # loads socket

    try:
        installed = version("transformers")
    except PackageNotFoundError:
        return
    if int(installed.partition(".")[0]) >= 5:
        module.WITH_MULTIMODAL = False


def _replace_look_up(module: ModuleType) -> None:
    import_module("mmvitaccel.compat.packages").replace_look_up(module)
