"""Errors of the system, the disk or the device."""

from __future__ import annotations

import errno
import os
import re

from mmvitaccel.errors.origin import frames_of_error
from mmvitaccel.errors.sentence import one_line

# System errors of files and disks, without broken pipes and bad descriptors.
_OF_THE_SYSTEM = {
    errno.ENOENT: "correct the path",
    errno.EACCES: "correct the permissions or give another path",
    errno.EPERM: "correct the permissions or give another path",
    errno.EROFS: "give a path on a disk that can be written",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "give a path below a folder",
    errno.EEXIST: "give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "correct the link",
    errno.ENOSPC: "free space on the disk or give another path",
    errno.EDQUOT: "free space within the quota or give another path",
    errno.EFBIG: "give a path on a disk that takes files of this size",
    errno.EIO: "check the disk",
}
_PATHS = ("filepath", "filename", "file_path", "path", "out_file", "annotation_file", "ann_file")
_OF_THE_DEVICE = (
    (
        r"CUDA out of memory|CUDA error: out of memory",
        "not enough GPU memory; reduce the batch size or the image size",
    ),
    (
        r"not compiled with CUDA|no NVIDIA driver|No CUDA GPUs|invalid device ordinal"
        r"|torch\.cuda\.is_available\(\) is False|ProcessGroupNCCL is only supported with GPUs",
        "CUDA was requested, but there is no such device; run on the CPU or correct the device "
        "and CUDA_VISIBLE_DEVICES",
    ),
    (
        r"gloo\S* (Connection closed by peer|Read error|Write error)|NCCL communicator was aborted"
        r"|remote process exited or there was a network error",
        "another process of this run ended, and this one cannot continue alone; see the message "
        "of the process that failed first",
    ),
    (
        r"PytorchStreamWriter failed|inline_container.*write failed",
        "a checkpoint could not be written completely; free space on the disk or give another path",
    ),
)


def explain_system(error: BaseException) -> str | None:
    """Explain an error of a file, a disk or a device; None for other errors."""
    message = one_line(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        path = error.filename if error.filename is not None else open_path(error)
        place = f"{path}: " if path is not None else ""
        reason = (error.strerror or message).lower()
        return f"{place}{reason}; {_OF_THE_SYSTEM[error.errno]}."
    if isinstance(error, (RuntimeError, AssertionError, ValueError)):
        for pattern, advice in _OF_THE_DEVICE:
            if re.search(pattern, message):
                return f"{advice} ({message[:160]})."
    return None


def open_path(error: BaseException) -> str | None:
    """The file being read or written, if the error does not name it."""
    for frame in reversed(frames_of_error(error)):
        for name in _PATHS:
            value = frame.f_locals.get(name)
            if isinstance(value, (str, os.PathLike)):
                return str(value)
    return None
