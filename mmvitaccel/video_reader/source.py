"""Parsing of a video source: a file, numbered images, a URL or a camera."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from mmvitaccel.errors import UserError

CAMERA = "camera"
# http and https are not here: they can also serve a file.
LIVE_SCHEMES = {"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp", "mms", "mmsh"}
SCHEMES = LIVE_SCHEMES | {"http", "https"}
HELP = (
    "give a file, a folder or pattern of numbered pictures (frames/, %06d.png, *.png), a URL "
    f"(rtsp://, http://), or a camera ({CAMERA}, /dev/video0, 0)"
)
_DEVICE = re.compile(r"(?:/dev/video|camera:)?(\d+)")


@dataclass(frozen=True)
class Source:
    """A parsed video source.

    Attributes:
        kind: ``'file'``, ``'pictures'``, ``'address'`` (a URL) or ``'camera'``.
        name: Name for messages, without the user name and password of a URL.
        target: Path, pattern or URL; for a camera, its number.
    """

    kind: str
    name: str
    target: str | int


def parse_source(source: str | int | os.PathLike) -> Source:
    """Parse a video source.

    Args:
        source: See :func:`~mmvitaccel.video_reader.open_video`.

    Raises:
        UserError: If the source is empty or does not exist, or if its protocol is not supported.
    """
    text = os.fspath(source) if isinstance(source, os.PathLike) else str(source)
    if not text.strip():
        raise UserError(f"the name of the video is empty; {HELP}.")
    if "://" in text:
        return _address(text)
    path = Path(text)
    # Existing paths first: a file can be named '0' or 'clip[1].mp4'.
    if path.is_dir():
        return Source("pictures", text, text)
    device = _DEVICE.fullmatch(text)
    if text == CAMERA or (device and not path.is_file()):
        return Source("camera", text, int(device[1]) if device else 0)
    if path.is_file():
        return Source("file", text, text)
    if is_pattern(path.name):
        return Source("pictures", text, text)
    raise UserError(f"the video {text} does not exist; {HELP}.")


def is_pattern(name: str) -> bool:
    """Check whether a file name is a pattern that can match several files."""
    return re.search(r"%0?\d*d|[*?\[]", name) is not None


def _address(text: str) -> Source:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise UserError(
            f"the video {text.rpartition('@')[2]} is not a valid URL: {error}; give a URL such as "
            "rtsp://host:port/path."
        ) from error
    scheme = parts.scheme.lower()
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise UserError(
                f"the video {text} is on the host {parts.netloc!r}; a file:// URL can only name a "
                "file on this machine: file:///path/of/the/video.mp4."
            )
        return _file_address(text, url2pathname(parts.path))
    if scheme not in SCHEMES:
        raise UserError(
            f"the video {text} has the unsupported protocol {scheme!r}; give one of "
            f"{', '.join(sorted(SCHEMES | {'file'}))}."
        )
    host = parts.netloc.rpartition("@")[2]
    shown = urlunsplit(parts._replace(netloc=f"***@{host}" if "@" in parts.netloc else host))
    return Source("address", shown, text)


def _file_address(text: str, path: str) -> Source:
    """Return the source that a ``file://`` URL names; its path may be percent-encoded or not."""
    # In a path that is not encoded, %05d looks like an escape and # ends the path.
    as_written = re.sub(r"^file://(localhost)?", "", text, flags=re.IGNORECASE)
    if not Path(path).exists() and (Path(as_written).exists() or is_pattern(as_written)):
        path = as_written
    if not path:
        raise UserError(f"the video {text} names no file; give file:///path/of/the/video.mp4.")
    return parse_source(path)
