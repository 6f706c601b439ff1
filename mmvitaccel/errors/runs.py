"""Errors of a running model that a user can fix.

These are mismatched shapes, files, devices and disks, and errors that this package raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from torch import nn

from mmvitaccel.errors.origin import frames_of_error, is_refusal
from mmvitaccel.errors.sentence import UserError, message_of
from mmvitaccel.errors.system import explain_system

_SHAPES_DIFFER = re.compile(
    r"expected .*(input|channels|size)|must match|size mismatch|shapes cannot be multiplied"
    r"|normalized_shape|is invalid for input of size|Kernel size can't be greater|too small"
    r"|running_mean should contain|Expected more than 1 value per channel"
    r"|must be the same as input size"
)
# What a pipeline loads, by the name under which a loss looks for it in the samples.
_LOADED = {
    "bboxes": "boxes; set with_bbox=True in LoadAnnotations",
    "labels": "labels; set with_label=True in LoadAnnotations",
    "masks": "masks; set with_mask=True in LoadAnnotations, or use a model without a mask head",
    "gt_sem_seg": "segmentation maps; set with_seg=True in LoadAnnotations",
    "gt_panoptic_seg": "panoptic maps; load them with LoadPanopticAnnotations",
}
_METRICS_OF = ("mmdet", "mmaction", "mmpretrain", "mmengine")
_PACKED = ("inputs", "data_samples")  # what the last step of a pipeline makes
_NOT_LOADED = re.compile(r"'(?:InstanceData|DetDataSample)' object has no attribute '_?(\w+)'")


@contextmanager
def running(model: nn.Module, what: str, every_error: bool = False) -> Iterator[None]:
    """Convert errors in the block that a user can fix into a :class:`UserError`.

    Args:
        model: The running model, used to name the failing module.
        what: Start of the message.
        every_error: Whether to convert all errors, for a run that only tries the model.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        sentence = _explain_run(error, model)
        if sentence is None and every_error:
            sentence = f"{_place(frames_of_error(error), model)}{message_of(error)}"
        if sentence is None:
            raise
        raise UserError(f"{what}: {sentence}") from error


def _explain_run(error: Exception, model: nn.Module) -> str | None:
    """Explain an error of a running model that a user can fix; None for other errors."""
    message = message_of(error)
    frames = frames_of_error(error)
    system = explain_system(error)
    if system is not None:
        return system
    if isinstance(error, (RuntimeError, ValueError, AssertionError)):
        place = _place(frames, model)
        if _SHAPES_DIFFER.search(message) or (place and isinstance(error, AssertionError)):
            return f"{place}{message}; correct the channels or the input's size"
    if is_refusal(error) or isinstance(error, FileNotFoundError):
        return message
    if isinstance(error, KeyError) and message in _PACKED and _is_preprocessing(frames):
        return (
            f"{_place(frames, model)}the samples have no {message!r}; end the pipeline of the data "
            "set with the step that packs them (PackDetInputs, PackActionInputs or PackInputs)"
        )
    metric = _metric_that_reads(frames) if isinstance(error, KeyError) else None
    if metric is not None:
        return (
            f"the evaluator {metric} reads {message!r}, which the samples do not have; name it in "
            "meta_keys of the step that packs them if it is of the annotations, or take the metric "
            "that belongs to the model and its data set"
        )
    lacks = _NOT_LOADED.search(message) if isinstance(error, AttributeError) else None
    # Outside of a loss it is a prediction that lacks it
    if lacks and lacks[1] in _LOADED and any(f.f_code.co_name == "loss" for f in frames):
        what = f"the samples of the training pipeline have no {_LOADED[lacks[1]]}"
        return f"{_place(frames, model)}{what}"
    return None


def _metric_that_reads(frames: list[FrameType]) -> str | None:
    """Class of OpenMMLab's metric that takes a batch in the innermost frame."""
    metric = frames[-1].f_locals.get("self")
    package = type(metric).__module__.partition(".")[0]
    takes = frames[-1].f_code.co_name == "process" and hasattr(metric, "compute_metrics")
    return type(metric).__name__ if takes and package in _METRICS_OF else None


def _is_preprocessing(frames: list[FrameType]) -> bool:
    """Whether the innermost frame with an object is one of a model's data preprocessor."""
    held = [type(f.f_locals["self"]).__name__ for f in frames if "self" in f.f_locals]
    return bool(held) and "Preprocessor" in held[-1]


def _place(frames: list[FrameType], model: nn.Module) -> str:
    """Dotted name of the innermost module of the model in the frames of an error."""
    names = {id(module): name for name, module in model.named_modules()}
    for frame in reversed(frames):
        module = frame.f_locals.get("self")
        if names.get(id(module)):
            return f"in {names[id(module)]} ({type(module).__name__}): "
    return ""
