"""Where an error comes from: this package's refusal of an input, a fault of its code, or others."""

from __future__ import annotations

import dis
import traceback
from types import FrameType


def frames_of_error(error: BaseException) -> list[FrameType]:
    """The frames of an error's traceback, the one that raised it last."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def is_refusal(error: BaseException) -> bool:
    """Whether a ``raise`` of this package, which refuses an input, made an error.

    An error that torch or Python raise inside a function of this package is none.
    """
    if not isinstance(error, (RuntimeError, ValueError, FileNotFoundError)):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or not _is_own(last.tb_frame):
        return False
    return dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


def _is_own(frame: FrameType) -> bool:
    """Whether a frame is of this package, by the name of its module, wherever it lies."""
    return frame.f_globals.get("__name__", "").partition(".")[0] == "mmvitaccel"


def is_own_fault(error: Exception) -> bool:
    """Whether an error can be nothing but a fault of this package's code."""
    frames = frames_of_error(error)
    return isinstance(error, NameError) and bool(frames) and _is_own(frames[-1])
