"""Choice of the backend that reads a source, and the error if none can."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader.opencv import OpenCVCapture
from mmvitaccel.video_reader.pyav import PyAVCapture, is_installed
from mmvitaccel.video_reader.signature import (
    EMPTY,
    PAGE,
    PICTURE,
    SOUND,
    TEXT,
    WEBP,
    Signature,
    codec_name,
    is_sound_alone,
    read_signature,
)
from mmvitaccel.video_reader.source import Source
from mmvitaccel.video_reader.timing import Capture, Stamp, Unreadable

INSTALL = "pip install 'mmvitaccel[video]'"
_NO_VIDEO = {
    EMPTY: "it is empty (0 bytes); get a new copy",
    PAGE: "it is an HTML page; download the video itself",
    TEXT: "it is a text file; give a video",
    PICTURE: "it is a single picture; give its folder, a pattern such as %06d.png, or a video",
    SOUND: "it contains audio but no video; give a video",
}
# OpenCV's wheels have no decoder for these.
_OPENCV_LACKS = {"AV1", "H.266"}


def open_file(source: Source) -> tuple[Capture, Stamp, Signature]:
    """Open a file with the first backend that decodes a frame of it: PyAV, else OpenCV.

    Returns:
        The capture, which is at the first frame; the stamp of that frame; the file's signature.

    Raises:
        UserError: If no backend can. The message names container and codec.
    """
    signature = signature_of(source)
    reason = ""
    for backend in _backends():
        try:
            capture = backend(str(source.target))
        except Unreadable as error:
            reason = reason or str(error)
            continue
        first = capture.grab()
        if first is not None:
            return capture, first, signature
        capture.close()
    raise UserError(f"{source.name} cannot be opened as a video: {_why(source, signature, reason)}")


def signature_of(source: Source) -> Signature:
    """Read the signature of a video file.

    Raises:
        UserError: If the file cannot be read or is not a video.
    """
    try:
        signature = read_signature(source.target)
    except OSError as error:
        raise UserError(
            f"{source.name} cannot be read: {error.strerror}; check its permissions."
        ) from error
    if signature.container in _NO_VIDEO:
        raise UserError(
            f"{source.name} cannot be opened as a video: {_NO_VIDEO[signature.container]}."
        )
    return signature


def open_remote(source: Source) -> Capture:
    """Open a URL or a camera.

    Raises:
        Unreadable: If it does not respond or sends no video.
    """
    if source.kind == "camera":
        return OpenCVCapture(source.target)
    reason = ""
    for backend in _backends():
        try:
            return backend(str(source.target), remote=True)
        except Unreadable as error:
            reason = reason or str(error)
    raise Unreadable(reason)


def _backends() -> Iterator[type[Capture]]:
    if is_installed():
        yield PyAVCapture
    yield OpenCVCapture


def _why(source: Source, signature: Signature, reason: str) -> str:
    if not signature.complete:
        return "it is an MP4 without an index (moov), so it is incomplete; get a new copy."
    if signature.container == WEBP:
        return "it is an animated WebP, which FFmpeg does not decode; convert it to GIF or MP4."
    codec = codec_name(source.target)
    if codec is None and is_sound_alone(source.target):
        return f"{_NO_VIDEO[SOUND]}."
    if codec is None and signature.container is None:
        what = "unknown container and codec"
    else:
        what = f"{codec or 'an unknown codec'} in {signature.container or 'an unknown container'}"
    name = shlex.quote(source.name)
    convert = f"convert it: ffmpeg -i {name} -c:v libx264 out.mp4"
    if is_installed():
        cause = f", {reason}" if reason else ""
        return (
            f"neither PyAV nor OpenCV can decode a frame ({what}{cause}), so it is damaged, "
            f"incomplete or contains no video; get a new copy, or {convert}."
        )
    if codec in _OPENCV_LACKS:
        return f"the installed OpenCV cannot decode {what}; {INSTALL}, or {convert}."
    return (
        f"OpenCV cannot decode a frame ({what}), so it is damaged or incomplete, or the installed "
        f"OpenCV lacks the codec; get a new copy, {INSTALL}, or {convert}."
    )
