"""Decodes frames: JPEG or PNG files, or raw pixels.

The size of a picture is read from its header and checked against the limits before it is decoded.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from mmvitaccel.errors import one_line
from mmvitaccel.serving.answers import Refused

FORMATS = ("JPEG", "PNG")


@dataclass(frozen=True)
class FrameLimits:
    """Limits on the size of a frame.

    Attributes:
        megabytes: Largest file or raw picture, in 1e6 bytes.
        megapixels: Largest picture, in 1e6 pixels.

    Raises:
        ValueError: A limit is not above 0.
    """

    megabytes: float = 16.0
    megapixels: float = 4.0

    def __post_init__(self) -> None:
        for name in ("megabytes", "megapixels"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"FrameLimits: {name}={value!r} must be a number above 0.")

    @property
    def bytes(self) -> int:
        """The largest number of bytes."""
        return int(self.megabytes * 1e6)

    def check_bytes(self, count: int) -> None:
        """Check a number of bytes.

        Raises:
            Refused: It is above the limit.
        """
        if count > self.bytes:
            raise Refused(
                "large",
                f"the frame has {count} bytes, above the limit of {self.bytes}; send a smaller "
                "picture.",
            )

    def check_size(self, width: int, height: int) -> None:
        """Check the size of a picture, in pixels.

        Raises:
            Refused: The picture is empty or above the limit.
        """
        if width < 1 or height < 1:
            raise Refused("frame", f"the picture is empty: {width} x {height} pixels.")
        if width * height > self.megapixels * 1e6:
            raise Refused(
                "large",
                f"the picture has {width} x {height} pixels, above the limit of "
                f"{self.megapixels:g} megapixels; send a smaller one.",
            )


def read_picture(content: bytes, limits: FrameLimits) -> np.ndarray:
    """Decode a JPEG or PNG file.

    Args:
        content: The bytes of the file.
        limits: Limits on its size.

    Returns:
        (H, W, 3) uint8 RGB, upright; of grey in 16 bits the upper 8.

    Raises:
        Refused: It is another kind of file, damaged or too large.
    """
    limits.check_bytes(len(content))
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            limits.check_size(*picture.size)
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off
                grey = (np.asarray(upright).astype(np.int32) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(upright.convert("RGB"))
    except Refused:
        raise
    except Image.DecompressionBombError:
        raise Refused(
            "large",
            f"the picture is far above the limit of {limits.megapixels:g} megapixels; send a "
            "smaller one.",
        ) from None
    except Image.UnidentifiedImageError:
        raise Refused(
            "frame",
            f"the frame's {len(content)} bytes are not a picture: they begin with "
            f"{content[:12]!r}; send {' or '.join(FORMATS)}.",
        ) from None
    except Exception as error:  # Decoders raise anything on broken content
        raise Refused(
            "frame",
            f"the picture of {len(content)} bytes is damaged ({one_line(error)}); send it whole.",
        ) from None


def picture_of(content: bytes, width: int, height: int, limits: FrameLimits) -> np.ndarray:
    """Make a picture from raw pixels.

    Args:
        content: Rows of RGB pixels, one byte per colour.
        width: In pixels.
        height: In pixels.
        limits: Limits on its size.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        Refused: The number of bytes does not match the size, or the picture is too large.
    """
    limits.check_bytes(len(content))
    limits.check_size(width, height)
    if len(content) != 3 * width * height:
        raise Refused(
            "frame",
            f"raw RGB of {width} x {height} pixels has {3 * width * height} bytes, not "
            f"{len(content)}; correct the size.",
        )
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


def check_picture(picture: np.ndarray, limits: FrameLimits) -> np.ndarray:
    """Check the shape and size of a picture, and return it.

    Raises:
        Refused: It is not (H, W, 3) uint8, or too large.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise Refused(
            "frame",
            f"the picture is {picture.shape} {picture.dtype}; give (height, width, 3) uint8 in "
            "RGB.",
        )
    limits.check_size(picture.shape[1], picture.shape[0])
    return picture
