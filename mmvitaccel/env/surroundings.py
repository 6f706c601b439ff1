"""Checks of compiled operators and kernels, devices, optional parts and imports."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Iterable
from importlib.util import find_spec

from mmvitaccel.compat.mmcv_build import rebuild_command
from mmvitaccel.env import installed
from mmvitaccel.env.versions import Row


def inspect_mmcv_operators() -> Iterable[Row]:
    """Yield a row that says where mmcv's operators come from; nothing if mmcv is not imported."""
    if "mmcv" not in sys.modules:
        return
    spec = find_spec("mmcv._ext")
    if spec is None or "stand_ins" in str(spec.origin):
        remark = "nms, roi_align and others from torchvision; all others raise when called"
        yield Row("mmcv operators", "stand-in", "ok", remark)
        return
    error = installed.import_quietly("mmcv._ext")
    if error:
        remark = f"{error}; mmcv was compiled for another torch"
        yield Row("mmcv operators", "compiled", "wrong", remark, rebuild_command(), True)
    else:
        yield Row("mmcv operators", "compiled", "ok", "used unchanged")


def inspect_surroundings() -> Iterable[Row]:
    """Yield rows of optional parts that are the cause of many problems."""
    if find_spec("pkg_resources") is None:
        remark = "OpenMMLab's tools need it for `mmdet::` base configs; with mmvitaccel they do not"
        yield Row("pkg_resources", "-", "note", remark, 'pip install "setuptools<81"')
    else:
        yield Row("pkg_resources", f"setuptools {installed.version_of('setuptools')}", "ok")
    spec = find_spec("importlib_metadata")
    if spec is None or "stand_ins" in str(spec.origin):
        remark = "mmaction2 imports it; the standard library's module is used instead"
        yield Row("importlib_metadata", "stand-in", "ok", remark)
    else:
        yield Row("importlib_metadata", installed.version_of("importlib_metadata"), "ok")
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    use = "optional: compiles kernels if no prebuilt ones fit, and mmcv's operators"
    yield Row("C++ compiler", compiler or "-", "note", use)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda"):
        yield inspect_kernels()
        built = f"torch for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU-only torch"
        count = torch.cuda.device_count()
        device = torch.cuda.get_device_name(0) if count else "no CUDA device, so it uses the CPU"
        yield Row("CUDA", f"{count} device(s)", "note", f"{built}; {device}")


def inspect_kernels() -> Row:
    """Return a row that says which compiled kernels are used on the CPU, and why.

    They are compiled if necessary.
    """
    from mmvitaccel.core.kernels.library.choice import chosen

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the row contains the same information
            choice = chosen()
    except ValueError as error:
        return Row("kernels", "-", "wrong", str(error))
    slower = "" if choice.library else "; torch's operators compute the same on a CPU, more slowly"
    return Row(
        "kernels", choice.name or "-", "ok" if choice.library else "note", choice.why + slower
    )


def inspect_imports() -> Iterable[Row]:
    """Import the modules of the main job and yield a row for each.

    Versions alone do not reveal a broken installation.
    """
    for module, needed in (
        ("mmdet.apis", True),
        ("mmvitaccel.models", True),
        ("mmaction.apis", False),
    ):
        if find_spec(module.partition(".")[0]) is None:
            continue
        error = installed.import_quietly(module)
        if error:
            yield Row(f"import {module}", "-", "wrong", error, stops=needed)
        else:
            yield Row(f"import {module}", "works", "ok")
