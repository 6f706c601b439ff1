"""What may come as a frame: a JPEG or PNG file, or the pixels of a picture.

How large a picture would be is read from its header and compared with the limits before anything
is decoded.
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
    """What is taken of a frame.

    Attributes:
        megabytes: Most 1e6 bytes of a file or of raw pixels.
        megapixels: Most 1e6 pixels of a picture.

    Raises:
        ValueError: One is not above 0.
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
        """Most bytes."""
        return int(self.megabytes * 1e6)

    def check_bytes(self, count: int) -> None:
        """Refuse so many bytes if they are too many.

        Raises:
            Refused: They are.
        """
        if count > self.bytes:
            raise Refused(
                "large",
                f"the frame has {count} bytes and {self.bytes} are taken; send a smaller picture.",
            )

    def check_size(self, width: int, height: int) -> None:
        """Refuse a picture of that size, in pixels, if it is too large or empty.

        Raises:
            Refused: It is.
        """
        if width < 1 or height < 1:
            raise Refused("frame", f"the picture has {width} x {height} pixels; send one with any.")
        if width * height > self.megapixels * 1e6:
            raise Refused(
                "large",
                f"the picture has {width} x {height} pixels and {self.megapixels:g} megapixels are "
                "taken; send a smaller one.",
            )


def read_picture(content: bytes, limits: FrameLimits) -> np.ndarray:
    """Decode a file.

    Args:
        content: Of a JPEG or PNG file.
        limits: What is taken.

    Returns:
        (H, W, 3) uint8 RGB, upright.

    Raises:
        Refused: It is no such file, damaged or too large.
    """
    limits.check_bytes(len(content))
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            limits.check_size(*picture.size)
            picture.load()
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except Refused:
        raise
    except Image.DecompressionBombError:
        raise Refused(
            "large",
            f"the picture has far more than the {limits.megapixels:g} megapixels that are taken; "
            "send a smaller one.",
        ) from None
    except Image.UnidentifiedImageError:
        raise Refused(
            "frame",
            f"the frame's {len(content)} bytes are no picture, they begin with {content[:12]!r}; "
            f"send {' or '.join(FORMATS)}.",
        ) from None
    except Exception as error:  # reason: decoders raise anything on broken content
        raise Refused(
            "frame",
            f"the picture of {len(content)} bytes is damaged ({one_line(error)}); send it whole.",
        ) from None


def picture_of(content: bytes, width: int, height: int, limits: FrameLimits) -> np.ndarray:
    """Raw pixels as a picture.

    Args:
        content: Rows of RGB pixels, a byte for each colour.
        width: In pixels.
        height: In pixels.
        limits: What is taken.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        Refused: It has another size than is said, or is too large.
    """
    limits.check_bytes(len(content))
    limits.check_size(width, height)
    if len(content) != 3 * width * height:
        raise Refused(
            "frame",
            f"raw pixels of {width} x {height} in RGB are {3 * width * height} bytes and "
            f"{len(content)} came; correct the size.",
        )
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


def check_picture(picture: np.ndarray, limits: FrameLimits) -> np.ndarray:
    """The picture, if it is one.

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
