"""Mistakes in what a user gave, said in one sentence; everything else keeps its traceback.

While a configuration is read and built, any error is one of the configuration. Once the model
runs, only those are that a user can mend: shapes that do not fit together, files, devices and
disks, and what a ``raise`` of this package refuses. ``MMVITACCEL_TRACEBACK=1`` shows the traceback
of these too.
"""

from mmvitaccel.errors.configs import building
from mmvitaccel.errors.origin import frames_of_error, is_refusal
from mmvitaccel.errors.runs import running
from mmvitaccel.errors.sentence import UserError, closest, one_line, shorten
from mmvitaccel.errors.tool import EXIT_STATUS, ArgumentParser, one_sentence_errors, sentence_of

__all__ = [
    "EXIT_STATUS",
    "ArgumentParser",
    "UserError",
    "building",
    "closest",
    "frames_of_error",
    "is_refusal",
    "one_line",
    "one_sentence_errors",
    "running",
    "sentence_of",
    "shorten",
]
