"""Origin of an error: an input refused by this package, a bug of its code, or other code."""

from __future__ import annotations

import dis
import traceback
from types import FrameType


def frames_of_error(error: BaseException) -> list[FrameType]:
    """The frames of an error's traceback, innermost last."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def is_refusal(error: BaseException) -> bool:
    """Whether this package raised the error, to refuse an input.

    Errors raised by torch or Python inside a function of this package do not count.
    """
    if not isinstance(error, (RuntimeError, TypeError, ValueError, FileNotFoundError)):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or not _is_own(last.tb_frame):
        return False
    return dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


def _is_own(frame: FrameType) -> bool:
    """Whether a frame belongs to this package, by the name of its module."""
    return frame.f_globals.get("__name__", "").partition(".")[0] == "mmvitaccel"


def is_own_fault(error: Exception) -> bool:
    """Whether an error can only be a bug of this package."""
    frames = frames_of_error(error)
    return isinstance(error, NameError) and bool(frames) and _is_own(frames[-1])
