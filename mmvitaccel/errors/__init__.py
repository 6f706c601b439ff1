"""One-sentence messages for users' mistakes; all other errors keep their traceback.

Any error while a config is read and built is treated as a mistake in the config. While a model
runs, only errors that a user can fix are: mismatched shapes, files, devices and disks, and errors
that this package raises. ``MMVITACCEL_TRACEBACK=1`` shows the traceback of these too.
"""

from mmvitaccel.errors.configs import building
from mmvitaccel.errors.origin import frames_of_error, is_refusal
from mmvitaccel.errors.runs import running
from mmvitaccel.errors.sentence import UserError, closest, message_of, one_line, shorten
from mmvitaccel.errors.tool import (
    EXIT_STATUS,
    ArgumentParser,
    one_sentence_errors,
    refuse_below,
    sentence_of,
)

__all__ = [
    "EXIT_STATUS",
    "ArgumentParser",
    "UserError",
    "building",
    "closest",
    "frames_of_error",
    "is_refusal",
    "message_of",
    "one_line",
    "one_sentence_errors",
    "refuse_below",
    "running",
    "sentence_of",
    "shorten",
]
