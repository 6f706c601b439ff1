"""What the system, the disk or the device refuses."""

from __future__ import annotations

import errno
import os
import re

from mmvitaccel.errors.origin import frames_of_error
from mmvitaccel.errors.sentence import one_line

# What the system says of a user's files and disks; a broken pipe or a bad descriptor is none.
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
        "the GPU has not memory enough; set a smaller batch size or image",
    ),
    (
        r"not compiled with CUDA|no NVIDIA driver|No CUDA GPUs|invalid device ordinal"
        r"|torch\.cuda\.is_available\(\) is False|ProcessGroupNCCL is only supported with GPUs",
        "CUDA was asked for, and there is no such device here; run on the CPU or correct the "
        "device and CUDA_VISIBLE_DEVICES",
    ),
    (
        r"gloo\S* (Connection closed by peer|Read error|Write error)|NCCL communicator was aborted"
        r"|remote process exited or there was a network error",
        "another process of this run ended, and this one cannot go on alone; the one that failed "
        "first says why",
    ),
    (
        r"PytorchStreamWriter failed|inline_container.*write failed",
        "a checkpoint could not be written whole; free space on the disk or give another path",
    ),
)


def explain_system(error: BaseException) -> str | None:
    """Say what is wrong with a file, a disk or a device; None for an error of another kind."""
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
    """The file that was read or written when that failed, where the error does not say it."""
    for frame in reversed(frames_of_error(error)):
        for name in _PATHS:
            value = frame.f_locals.get(name)
            if isinstance(value, (str, os.PathLike)):
                return str(value)
    return None
