"""Text in any script that a font is there for."""

from __future__ import annotations

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from mmvitaccel.pictures import text
from mmvitaccel.pictures.text import families, legible, put_text


def ink(words, **options):
    blank = np.zeros((24, 240, 3), np.uint8)
    return put_text(blank, words, (2, 2), 14, (255, 255, 255), **options)


@pytest.fixture
def fonts(monkeypatch):
    """Lets the machine have the given fonts beside the default one."""

    def have(*paths):
        for cached in (text._font_of, text._paths):
            cached.cache_clear()
        monkeypatch.setattr(text, "_paths", lambda: (text._default(), *map(str, paths)))

    yield have
    text._font_of.cache_clear()


@pytest.fixture
def cat_font(tmp_path):
    """A font whose only character, U+732B (cat), is a full square."""
    pen = TTGlyphPen(None)
    for place in ((0, 0), (0, 800), (800, 800), (800, 0)):
        (pen.lineTo if place != (0, 0) else pen.moveTo)(place)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "cat"])
    font.setupCharacterMap({0x732B: "cat"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (500, 0), "cat": (1000, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Cats", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(tmp_path / "cats.ttf")
    return tmp_path / "cats.ttf"


def test_accents_and_greek_are_drawn_as_they_are(fonts):
    fonts()
    for name, plain in (("caf\u00e9", "cafe"), ("\u0141\u00f3d\u017a", "Lodz")):
        assert legible(name, 3) == name
        assert not np.array_equal(ink(name), ink(plain))
        assert not np.array_equal(ink(name), ink("????"))
    assert not np.array_equal(ink("\u03b1"), ink("\u03b2"))


def test_a_font_with_the_character_is_found(fonts, cat_font):
    fonts(cat_font)
    assert legible("\u732b", 3) == "\u732b"
    drawn = ink("\u732b")
    assert drawn[..., 0].sum() > 255 * 80  # the square, not the outline of a missing character
    assert families("a \u732b") == ["DejaVu Sans", "Cats"]


def test_without_a_font_the_number_is_beside(fonts):
    fonts()
    assert legible("\u732b", 3) == "[3] \u732b"
    assert legible("cat", 3) == "cat"
    assert families("\u732b") == ["DejaVu Sans"]


def test_what_is_drawn_and_what_is_left():
    blank = np.full((24, 240, 3), 9, np.uint8)
    drawn = put_text(blank, "error 1.5 %", (6, 4), 15, (10, 20, 250), outline=(0, 0, 0))
    assert (blank == 9).all()
    assert (drawn[..., 2] > 200).any() and (drawn == 0).any()
    assert (drawn[:, 120:] == 9).all()
