"""Explains from a file's content why a picture or video cannot be read."""

from __future__ import annotations

import io
import os
from pathlib import Path

from mmvitaccel.compat.file_kind import describe_kind
from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import open_video

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG", b"IEND"
_HEAD = 512  # bytes


def describe_damage(path: str) -> str | None:
    """Explain why a local file is not a complete picture or video.

    Args:
        path: Path of a picture or a video, recognised by its suffix.

    Returns:
        The end of a sentence, or None if no problem is found.
    """
    if "://" in path:
        return None
    if not os.path.exists(path):
        return "the file does not exist"
    if os.path.isdir(path):
        return "it is a folder and not a file"
    try:
        with open(path, "rb") as file:
            start = file.read(_HEAD)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if not start:
        return "the file is empty (0 bytes)"
    kind = describe_kind(start)
    if kind:
        return f"it is {kind}"
    if Path(path).suffix.lower() in PICTURES:
        return picture_damage(Path(path).read_bytes())
    if Path(path).suffix.lower() in VIDEOS:
        return _video_damage(path)
    return None


def picture_damage(content: bytes) -> str | None:
    """Explain why bytes are not a complete picture; None if they decode completely."""
    from PIL import Image, UnidentifiedImageError  # Rarely needed, and slow to import

    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except UnidentifiedImageError:
        return f"it is not a picture, it begins with {content[:12]!r}"
    except Exception as error:  # Decoders raise anything on broken content
        if "truncated" in str(error) or is_unended(content):
            return f"the picture is truncated or damaged, after {len(content)} bytes"
        return f"the picture is damaged ({' '.join(str(error).split())})"
    return None


def of_no_codec(content: bytes) -> str:
    """Explain that OpenCV lacks the codec of a complete picture."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        return f"this OpenCV does not decode {picture.format} pictures; convert it to PNG or JPEG"


def is_unended(content: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker. OpenCV fills the missing part with grey."""
    if content.startswith(_JPEG):
        return not content.rstrip(b"\0 \r\n").endswith(_JPEG_END)
    return content.startswith(_PNG) and _PNG_END not in content[-16:]


def _video_damage(path: str) -> str | None:
    try:
        open_video(path).close()
    except UserError as error:
        return f"it {str(error).removeprefix(path).strip().removesuffix('.')}"
    return None
