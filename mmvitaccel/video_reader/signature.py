"""Detection of a file's container and codec from its bytes, for error messages."""

from __future__ import annotations

import codecs
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_CODECS = {
    "AV1": (b"av01", b"V_AV1", b"AV01"),
    "H.264": (b"avc1", b"avc3", b"V_MPEG4/ISO/AVC", b"H264", b"h264"),
    "H.265": (b"hvc1", b"hev1", b"V_MPEGH/ISO/HEVC", b"HEVC"),
    "H.266": (b"vvc1", b"vvi1", b"V_MPEGI/ISO/VVC"),
    "VP9": (b"vp09", b"V_VP9", b"VP90"),
    "VP8": (b"vp08", b"V_VP8", b"VP80"),
    "ProRes": (b"apch", b"apcn", b"apcs", b"apco", b"ap4h", b"ap4x", b"V_PRORES"),
    "MPEG-4": (b"mp4v", b"V_MPEG4/ISO/ASP", b"XVID", b"xvid", b"DIVX", b"DX50", b"FMP4"),
    "Motion JPEG": (b"V_MJPEG", b"MJPG", b"mjpg", b"mjpa", b"jpeg"),
}
_SOUNDS = (b"A_OPUS", b"A_VORBIS", b"A_AAC", b"A_MPEG", b"A_FLAC", b"A_AC3", b"A_PCM", b"soun")
_PICTURES = re.compile(rb"vide|V_[A-Z0-9/]{3}")  # MP4's track type, Matroska's codec
_SEARCHED = 1 << 20  # bytes at each end of a file
_LONGEST_JPEG = 1 << 24  # bytes in which the second image of a JPEG stream is searched
ISO, AVI, MJPEG, WEBP = "MP4/MOV", "AVI", "Motion JPEG", "animated WebP"
EMPTY, TEXT, PAGE, PICTURE, SOUND = "empty", "text", "page", "picture", "sound"
# First bytes of images: PNG, BMP, TIFF of both byte orders, JPEG 2000, OpenEXR, Radiance, PNM.
_STILL = (b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"v/1\x01")
_STILL += (b"#?RADIANCE", *(b"P%d%c" % (kind, end) for kind in range(1, 7) for end in b"\n "))
_STILL_BRANDS = (b"avif", b"heic", b"heix", b"mif1")
_SOUND = (
    b"ID3",
    b"\xff\xfb",
    b"\xff\xf3",
    b"\xff\xf2",
    b"\xff\xf1",
    b"\xff\xf9",
    b"fLaC",
    b"#!AMR",
)
_OGG_SOUND = re.compile(rb"\x01vorbis|OpusHead|\x7fFLAC|Speex")
_OGG_PICTURES = re.compile(rb"theora|OVP80|BBCD|fishead")
_JPEG, _NEXT_JPEG = b"\xff\xd8\xff", b"\xff\xd9\xff\xd8\xff"


@dataclass(frozen=True)
class Signature:
    """A file's type, detected from its bytes.

    Attributes:
        container: Name of the container; ``EMPTY``, ``TEXT``, ``PAGE``, ``PICTURE`` or ``SOUND``
            if the file is not a video; None if it is unknown.
        boxes: Names of the top-level boxes of an MP4; None for other files.
    """

    container: str | None
    boxes: tuple[bytes, ...] | None = None

    @property
    def complete(self) -> bool:
        """Whether an MP4 has an index; True for other files."""
        return self.boxes is None or b"moov" in self.boxes

    @property
    def counts_frames(self) -> bool:
        """Whether the header stores a frame count, not only a duration and a rate."""
        if self.container == ISO:
            return self.complete and b"moof" not in self.boxes
        return self.container == AVI


def read_signature(path: str | Path) -> Signature:
    """Detect the container of a file; of an MP4, also read the names of its boxes.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(1024)
        container = _container(head)
        if container == PICTURE and head.startswith(_JPEG):
            data = head + file.read(_LONGEST_JPEG)
            # Phones append a second image to a JPEG and announce it with MPF.
            container = MJPEG if _NEXT_JPEG in data and b"MPF\0" not in data else PICTURE
        if container != ISO:
            return Signature(container)
        size = os.fstat(file.fileno()).st_size
        return Signature(container, tuple(name for name, _, _ in mp4_boxes(file, 0, size)))


def codec_name(path: str | Path) -> str | None:
    """Return the name of the video codec by its tag in the container; None if no tag is found."""
    data = _ends_of(path)
    places = {
        codec: min((found for tag in tags if (found := data.find(tag)) >= 0), default=None)
        for codec, tags in _CODECS.items()
    }
    known = {codec: place for codec, place in places.items() if place is not None}
    return min(known, key=known.get) if known else None


def is_sound_alone(path: str | Path) -> bool:
    """Check whether an MP4 or Matroska file has audio tracks and no video track."""
    data = _ends_of(path)
    return any(tag in data for tag in _SOUNDS) and _PICTURES.search(data) is None


def _ends_of(path: str | Path) -> bytes:
    """Read the first and last MiB of a file, where containers have their headers."""
    with open(path, "rb") as file:
        data = file.read(_SEARCHED)
        size = os.fstat(file.fileno()).st_size
        file.seek(max(size - _SEARCHED, len(data)))
        return data + file.read()


def _container(head: bytes) -> str | None:
    if not head:
        return EMPTY
    if head.startswith(b"\x89PNG") and b"acTL" in head:
        return "animated PNG"
    if head[:4] == b"RIFF":
        webp = WEBP if b"ANIM" in head[:64] else PICTURE
        return {b"AVI ": AVI, b"WEBP": webp, b"WAVE": SOUND}.get(head[8:12])
    if head.startswith((_JPEG, *_STILL)):
        return PICTURE
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        return PICTURE
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
        return ISO
    starts = {
        b"\x1a\x45\xdf\xa3": "WebM" if b"webm" in head[:64] else "Matroska",
        b"FLV": "FLV",
        b"OggS": SOUND if _OGG_SOUND.search(head) and not _OGG_PICTURES.search(head) else "Ogg",
        b"DKIF": "IVF",
        b"GIF8": "GIF",
        b"\x30\x26\xb2\x75": "WMV/ASF",
        b"\x00\x00\x01\xba": "MPEG-PS",
        b"\x00\x00\x00\x01": "raw H.264 or H.265",
        b"\x00\x00\x01": "raw video stream",
    }
    for start, name in starts.items():
        if head.startswith(start):
            return name
    if head.startswith(_SOUND):
        return SOUND
    if head[0] == 0x47 and head[188:189] in (b"\x47", b""):
        return "MPEG-TS"
    return _page_or_text(head)


def _page_or_text(head: bytes) -> str | None:
    """Detect HTML pages and other text; return None for binary data."""
    start = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return PAGE
    try:
        text = head[:-4].decode() if len(head) > 4 else head.decode()
    except UnicodeDecodeError:
        return None
    return TEXT if all(c.isprintable() or c.isspace() for c in text) else None


def mp4_boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes of an MP4 between two offsets; stop at one that is incomplete.

    Args:
        file: The file; its position is changed.
        start: Offset of the first box in bytes.
        stop: Offset of the end of the last box in bytes.

    Yields:
        Name of a box, and the offsets of the start and end of its contents.
    """
    while start + 8 <= stop:
        file.seek(start)
        size, name = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:  # a 64-bit size follows
            size, header = int.from_bytes(file.read(8), "big"), 16
        elif size == 0:
            size = stop - start
        if size < header or start + size > stop:
            return
        yield name, start + header, start + size
        start += size
