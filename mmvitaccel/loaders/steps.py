"""Explains which step of a pipeline failed, and why, where no file of the sample is at fault."""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType

from mmvitaccel.errors import frames_of_error, message_of
from mmvitaccel.loaders.broken import paths_of

_PACKAGES = ("mmcv", "mmdet", "mmaction", "mmpretrain", "mmengine")
_BACKENDS = "mmengine.fileio"
# How mmengine's data set begins what it says about samples that are None.
_NONE_LEFT = ("Cannot find valid image after", "Test time pipline should not get `None`")


def explain_step(error: Exception) -> str | None:
    """Explain an error of a step of OpenMMLab's; None for a bug, or a step of someone else's.

    Such a step fails for what the config gives it: arguments, an order of steps, a file backend.
    """
    frames = frames_of_error(error)
    message = message_of(error)
    if message.startswith(_NONE_LEFT):
        data = type(frames[-1].f_locals.get("self")).__name__
        return (
            f"the pipeline of {data} leaves no sample: a step drops them; FilterAnnotations drops "
            "pictures without boxes, and LoadImageFromFile with ignore_empty=True files that it "
            "cannot read; correct its arguments or the paths."
        )
    step = _innermost_step(frames)
    if step is None:
        return None
    name = type(step).__name__
    inner = frames[-1]
    if isinstance(error, KeyError) and inner.f_locals.get("self") is step:
        return (
            f"the pipeline's step {name} needs {message!r}, which no step before it adds to the "
            "samples; correct the order of the steps, or add what loads it."
        )
    if isinstance(error, KeyError) and inner.f_globals.get("__name__", "").startswith(_BACKENDS):
        message = f"there is no file backend named {message!r}"
    elif isinstance(error, KeyError):
        message = f"{message!r} is missing (in {inner.f_code.co_name})"
    at = next((f" ({path})" for path in paths_of(frames)), "")
    reason = message.removesuffix(".")
    return f"the pipeline's step {name} fails{at}: {reason}; correct its arguments."


def _innermost_step(frames: Sequence[FrameType]) -> object | None:
    """The step of a pipeline in which an error arose; None if it is not one of OpenMMLab's."""
    held = [frame.f_locals["self"] for frame in frames if "self" in frame.f_locals]
    steps = [item for item in held if callable(getattr(item, "transform", None))]
    package = type(steps[-1]).__module__.partition(".")[0] if steps else ""
    return steps[-1] if package in _PACKAGES else None
