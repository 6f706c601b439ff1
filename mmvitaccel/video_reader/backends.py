"""Which backend reads a source, and the sentence where none does."""

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
    EMPTY: "it is empty (0 bytes); get it again",
    PAGE: "it is a HTML page; download the video itself",
    TEXT: "it is a text file; give a video",
    PICTURE: "it is a single picture; give its folder, a pattern such as %06d.png, or a video",
    SOUND: "it is sound without pictures; give a video",
}
# reason: the wheels of OpenCV have no decoder of these
_OPENCV_LACKS = {"AV1", "H.266"}


def open_file(source: Source) -> tuple[Capture, Stamp, Signature]:
    """Open a file by the first backend that decodes a frame of it: PyAV, or else OpenCV.

    Returns:
        The capture, its first frame's stamp (that is grabbed already), and what the bytes say.

    Raises:
        UserError: None does; container, codec and what to do are named.
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
    """What the bytes of a file say.

    Raises:
        UserError: They are those of no video at all, or it cannot be read.
    """
    try:
        signature = read_signature(source.target)
    except OSError as error:
        raise UserError(
            f"{source.name} cannot be read: {error.strerror}; check its rights."
        ) from error
    if signature.container in _NO_VIDEO:
        raise UserError(
            f"{source.name} cannot be opened as a video: {_NO_VIDEO[signature.container]}."
        )
    return signature


def open_remote(source: Source) -> Capture:
    """Open an address or a camera.

    Raises:
        Unreadable: It does not answer, or not with a video.
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
        return "it is an MP4 without its index (moov): it is incomplete; get it again."
    if signature.container == WEBP:
        return "it is an animated WebP, which FFmpeg does not decode; convert it to GIF or MP4."
    codec = codec_name(source.target)
    if codec is None and is_sound_alone(source.target):
        return f"{_NO_VIDEO[SOUND]}."
    if codec is None and signature.container is None:
        what = "neither its container nor its codec is known"
    else:
        what = f"{codec or 'an unknown codec'} in {signature.container or 'an unknown container'}"
    name = shlex.quote(source.name)
    convert = f"convert it: ffmpeg -i {name} -c:v libx264 out.mp4"
    if is_installed():
        said = f", {reason}" if reason else ""
        return (
            f"neither PyAV nor OpenCV decodes a frame of it ({what}{said}); it is damaged, "
            f"incomplete or has no pictures: get it again, or {convert}."
        )
    if codec in _OPENCV_LACKS:
        return f"OpenCV here does not decode {what}; {INSTALL}, or {convert}."
    return (
        f"OpenCV decodes no frame of it ({what}); it is damaged, incomplete, or OpenCV here lacks "
        f"the codec: get it again, {INSTALL}, or {convert}."
    )
