"""Stand-in for ``mmcv._ext``, mmcv's compiled operators, where mmcv was installed without.

The operators that the detectors of mmdet and the recognizers of mmaction2 need are implemented with
torchvision or torch. Every other name exists, because ``mmcv.ops`` checks this on import, and
raises an error when it is called.
"""

from __future__ import annotations

from typing import NoReturn

from mmvitaccel.compat.mmcv_build import advice
from mmvitaccel.compat.ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from mmvitaccel.compat.ops.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
)
from mmvitaccel.compat.ops.ms_deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from mmvitaccel.compat.ops.nms import nms, softnms
from mmvitaccel.compat.ops.roi_align import roi_align_backward, roi_align_forward

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "roi_align_backward",
    "roi_align_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softnms",
]


def get_compiler_version() -> str:
    """Answer mmcv's environment report."""
    return "not compiled (mmcv._ext is mmvitaccel's stand-in)"


def get_compiling_cuda_version() -> str:
    """Answer mmcv's environment report."""
    return "not compiled (mmcv._ext is mmvitaccel's stand-in)"


def __getattr__(name: str) -> _MissingOp:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _MissingOp(name)


class _MissingOp:
    """An operator of mmcv that has no replacement here.

    Args:
        name: Its name in ``mmcv._ext``.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv operator '{self.name}': the mmcv here has no compiled operators and mmvitaccel "
            f"has no replacement for this one; {advice()}"
        )
