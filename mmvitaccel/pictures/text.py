"""Text in pictures, in any script with an installed font."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

DEFAULT = "DejaVu Sans"  # Included in matplotlib, so it is available everywhere
Colour = tuple[int, int, int]


class Line(NamedTuple):
    """A line of text; its fields are :func:`put_text`'s."""

    text: str
    place: tuple[int, int]
    size: int
    colour: Colour


def put_text(
    image: np.ndarray,
    text: str,
    place: tuple[int, int],
    size: int,
    colour: Colour,
    outline: Colour | None = None,
) -> np.ndarray:
    """Write a line of text on a picture.

    Args:
        image: (H, W, 3) uint8.
        text: The text. Each character is drawn in the first font that has it.
        place: (x, y) of the upper left corner, in pixels.
        size: Height of the font in pixels.
        colour: In the order of the picture's channels.
        outline: Colour of a line around; None for none.

    Returns:
        A picture like it, with the text.
    """
    return put_texts(image, [Line(text, place, size, colour)], outline)


def put_texts(
    image: np.ndarray, lines: Iterable[Line], outline: Colour | None = None
) -> np.ndarray:
    """Write lines of text on a picture (H, W, 3) uint8, see :func:`put_text`."""
    drawn = Image.fromarray(np.ascontiguousarray(image))
    canvas = ImageDraw.Draw(drawn)
    border = {} if outline is None else dict(stroke_width=1, stroke_fill=outline)
    for text, place, size, colour in lines:
        left, base = place[0], place[1] + _pil_font(_default(), size).getmetrics()[0]
        for part, path in _runs(text):
            font = _pil_font(path, size)
            canvas.text((left, base), part, fill=colour, font=font, anchor="ls", **border)
            left += font.getlength(part)
    return np.array(drawn)


def legible(name: str, number: int) -> str:
    """A class name, prefixed with its number if no installed font has all of its characters.

    Args:
        name: The name.
        number: Number of the class.
    """
    missing = [c for c in name if _font_of(c) is None]
    return f"[{number}] {name}" if missing else name


def families(text: str) -> list[str]:
    """Names of fonts for matplotlib's ``family``, which together have a text's characters."""
    found = [_font_of(character) for character in text]
    names = [FT2Font(path).family_name for path in found if path is not None]
    return list(dict.fromkeys([DEFAULT, *names]))


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Parts of a text with the font of each; accents stay with their letters."""
    part, font = "", _default()
    for character in text:
        own = font if character.isspace() else _font_of(character) or _default()
        if own != font and part:
            yield part, font
            part = ""
        part, font = part + character, own
    if part:
        yield part, font


@functools.cache
def _font_of(character: str) -> str | None:
    """Path of the first font that has a character; white space is everywhere."""
    if character.isspace():
        return _default()
    return next((path for path in _paths() if ord(character) in _characters(path)), None)


@functools.cache
def _paths() -> tuple[str, ...]:
    """Fonts, the default one first, upright and of ordinary weight before others."""
    # matplotlib's other fonts are for formulas, and its last resort draws only boxes
    own = matplotlib.get_data_path()
    entries = sorted(
        (entry for entry in font_manager.fontManager.ttflist if not entry.fname.startswith(own)),
        key=lambda entry: (
            entry.style != "normal",
            entry.weight not in (400, "normal"),
            entry.name,
        ),
    )
    return tuple(dict.fromkeys([_default(), *(entry.fname for entry in entries)]))


@functools.cache
def _default() -> str:
    return font_manager.findfont(DEFAULT)


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """Code points that a font has."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except RuntimeError:  # a font that FreeType cannot open
        return frozenset()


@functools.cache
def _pil_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
